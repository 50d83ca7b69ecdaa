"use strict";
(() => {
  const by = id => document.getElementById(id), nonce = document.currentScript.nonce;
  const stage = document.querySelector(".stage"), canvas = by("turn");
  const { names, colours } = JSON.parse(by("turn-labels").textContent);
  const colourMap = {
    R: [0, ...colours.map(one => one[0])], G: [0, ...colours.map(one => one[1])], B: [0, ...colours.map(one => one[2])],
    A: [0, ...colours.map(() => 255)], I: [0, ...colours.keys()].map((_, place) => place), labels: ["", ...names],
  };
  let viewer = null, shown = null, busy = Promise.resolve();

  async function unpacked(text) {
    const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  async function start() {
    const script = document.createElement("script");
    script.nonce = nonce;
    script.textContent = new TextDecoder().decode(await unpacked(by("turn-bundle").textContent));
    document.head.append(script);
    stage.hidden = false;
    viewer = new niivue.Niivue({
      isRadiologicalConvention: true, dragAndDropEnabled: false, logLevel: "error", loadingText: "", backColor: [0, 0, 0, 1],
      multiplanarShowRender: niivue.SHOW_RENDER.ALWAYS, multiplanarLayout: niivue.MULTIPLANAR_TYPE.GRID,
      crosshairColor: [1, 1, 1, 0.45], crosshairWidth: 0.4, crosshairWidthUnit: "percent",
      isCornerOrientationText: true, fontColor: [1, 1, 1, 1], fontMinPx: 16, sagittalNoseLeft: true,
    });
    await viewer.attachToCanvas(canvas);
  }

  async function volume(about, voxels, isMask) {
    const [x, y, z] = about.shape, a = about.affine;
    const mm = [0, 1, 2].map(axis => Math.hypot(a[axis], a[4 + axis], a[8 + axis]));
    const nifti = niivue.NVImage.createNiftiArray([x, y, z], mm, a, 2, voxels);
    const made = await niivue.NVImage.new(nifti.buffer, about.name + ".nii", "gray", 1, null, 0, 255);
    if (isMask) made.setColormapLabel(colourMap);
    return made;
  }

  // the cross stands where most labelled voxels are, axis by axis, as in the pictures
  function middle(about, voxels) {
    const [x, y, z] = about.shape, counts = about.shape.map(size => new Uint32Array(size));
    for (let k = 0, place = 0; k < z; k++) for (let j = 0; j < y; j++) for (let i = 0; i < x; i++, place++)
      if (voxels[place]) { counts[0][i]++; counts[1][j]++; counts[2][k]++; }
    const at = counts.map(of => of.some(Boolean) ? of.indexOf(of.reduce((a, b) => Math.max(a, b))) : of.length >> 1);
    return [0, 1, 2].map(row => about.affine.slice(4 * row, 4 * row + 4).reduce((sum, a, axis) => sum + a * [...at, 1][axis], 0));
  }

  // where they differ: what the prediction says there, or the truth where the prediction says nothing
  async function mask(about, which) {
    if (which !== "differ") return unpacked(about[which]);
    const [said, meant] = await Promise.all([unpacked(about.prediction), unpacked(about.truth)]);
    return said.map((label, place) => label === meant[place] ? 0 : label || meant[place]);
  }

  async function show() {
    if (viewer === null) await start();
    const about = JSON.parse(by("turn-" + by("turn-case").value).textContent), which = by("turn-mask").value;
    const wanted = [about.name, which].join();
    if (wanted !== shown) {
      const another = shown === null || !shown.startsWith(about.name + ",");
      while (viewer.volumes.length) viewer.removeVolume(viewer.volumes[0]);
      viewer.addVolume(await volume(about, await unpacked(about.scan), false));
      const known = which === "none" ? null : which === "prediction" || about.truth ? which : "prediction";
      if (known) viewer.addVolume(await volume(about, await mask(about, known), true));
      if (another) viewer.scene.crosshairPos = viewer.mm2frac(middle(about, await unpacked(about.prediction)));
    }
    const opacity = Number(by("turn-opacity").value);
    viewer.volumes.forEach((_, place) => place && viewer.setOpacity(place, opacity));
    viewer.setSliceType(Number(by("turn-view").value));
    shown = canvas.dataset.shown = wanted;
    by("turn-start").hidden = true;
  }

  function ask() {
    busy = busy.then(show).catch(error => {
      stage.hidden = true;
      by("turn-said").textContent = "This browser cannot show volumes (it needs WebGL 2): " + error.message;
    });
  }
  by("turn-start").addEventListener("click", ask);
  document.addEventListener("case", event => {
    const option = [...by("turn-case").options].find(one => one.textContent === event.detail);
    if (!option) return;
    event.preventDefault();
    by("turn-case").value = option.value;
    ask();
    document.querySelector(".viewer").scrollIntoView();
  });
  for (const id of ["turn-case", "turn-view", "turn-mask"]) by(id).addEventListener("change", ask);
  by("turn-opacity").addEventListener("input", () => viewer && ask());
})();
