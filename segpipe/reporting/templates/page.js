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
for (const button of document.querySelectorAll(".sortable th button"))
  button.addEventListener("click", () => sortBy(button.parentElement));

const dialog = document.querySelector("dialog");
for (const button of document.querySelectorAll(".enlarge"))
  button.addEventListener("click", () => {
    const small = button.querySelector("img"), large = dialog.querySelector("img");
    large.src = small.src;
    large.alt = small.alt;
    dialog.showModal();
  });
dialog.addEventListener("click", event => { if (event.target !== dialog.querySelector("button")) dialog.close(); });
