"use strict";
// a click, or Enter, on a column's head sorts by it; what is not known comes last either way
function sortBy(head) {
  const table = head.closest("table"), place = head.cellIndex, body = table.tBodies[0];
  const down = head.ariaSort === "ascending", number = head.classList.contains("number");
  for (const other of table.tHead.rows[0].cells) if (other.ariaSort) other.ariaSort = "none";
  head.ariaSort = down ? "descending" : "ascending";
  const key = row => row.cells[place].dataset.key;
  const compare = (a, b) => number ? a - b : a.localeCompare(b, "en", { numeric: true });
  const rows = [...body.rows].sort((one, two) => {
    const a = key(one), b = key(two);
    if (a === "" || b === "") return (a === "") - (b === "");
    return down ? compare(b, a) : compare(a, b);
  });
  body.append(...rows);
}
for (const button of document.querySelectorAll(".sortable th button")) {
  button.parentElement.dataset.name = button.textContent;
  button.addEventListener("click", () => sortBy(button.parentElement));
}

const dialog = document.querySelector("dialog"), pan = dialog.querySelector(".pan"), large = pan.querySelector("img");
let scale = 1;
// zooms so that what is at a point of the window stays there
function zoom(factor, x, y) {
  const before = large.getBoundingClientRect(), least = Math.min(1, innerWidth / 2 / large.naturalWidth);
  scale = Math.min(8, Math.max(least, scale * factor));
  large.style.width = large.naturalWidth * scale + "px";
  large.style.imageRendering = scale > 2 ? "pixelated" : "auto";
  const after = large.getBoundingClientRect();
  pan.scrollLeft += (x - before.left) * after.width / before.width - (x - after.left);
  pan.scrollTop += (y - before.top) * after.height / before.height - (y - after.top);
}
async function enlarge(button) {
  const small = button.querySelector("img");
  large.src = small.src;
  large.alt = small.alt;
  dialog.classList.toggle("chart", button.closest(".chart") !== null);
  dialog.showModal();
  await large.decode();
  scale = Math.min(2, .96 * innerWidth / large.naturalWidth, .86 * innerHeight / large.naturalHeight);
  zoom(1, 0, 0);
}
for (const button of document.querySelectorAll(".enlarge"))
  button.addEventListener("click", () => {
    // the viewer, where it holds the case, takes the click
    const asked = new CustomEvent("case", { detail: button.dataset.case, cancelable: true });
    if (!button.dataset.case || document.dispatchEvent(asked)) enlarge(button);
  });
for (const button of dialog.querySelectorAll("button[value]"))
  button.addEventListener("click", () => zoom(Number(button.value), innerWidth / 2, innerHeight / 2));
pan.addEventListener("wheel", event => {
  event.preventDefault();
  zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15, event.clientX, event.clientY);
}, { passive: false });
pan.addEventListener("pointermove", event => {
  if (event.buttons !== 1 || event.pointerType !== "mouse") return;
  pan.scrollBy(-event.movementX, -event.movementY);
});
large.draggable = false;
dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });

// pictures in a table shrink until its columns fit; what still does not fit says so
function fit() {
  const scrolls = [...document.querySelectorAll(".scroll")];
  for (const scroll of scrolls) scroll.style.removeProperty("--picture");
  const beyond = scrolls.map(scroll => scroll.scrollWidth - scroll.clientWidth);
  scrolls.forEach((scroll, place) => {
    const image = scroll.closest(".large") && scroll.querySelector("td img");
    if (beyond[place] > 0 && image) scroll.style.setProperty("--picture", Math.max(288, image.width - beyond[place]) + "px");
  });
  for (const scroll of scrolls) scroll.classList.toggle("wide", scroll.scrollWidth > scroll.clientWidth + 1);
}
// cells of a card on a narrow screen say what they are
for (const table of document.querySelectorAll(".large table")) {
  const names = [...table.tHead.rows[0].cells].map(head => head.classList.contains("number") ? head.textContent.trim() : "");
  for (const row of table.tBodies[0].rows) names.forEach((name, place) => row.cells[place].dataset.name = name);
}
fit();
addEventListener("load", fit);
let width = innerWidth;
addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; fit(); } });

// on paper every table is whole: closed parts are opened, and what is wider than the sheet is made smaller
const SHEET = 700;
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
  for (const scroll of document.querySelectorAll(".scroll")) {
    scroll.style.width = SHEET + "px";
    const needed = scroll.querySelector("table").offsetWidth;
    scroll.style.removeProperty("width");
    scroll.style.setProperty("--paper", Math.min(1, SHEET / needed));
  }
});
