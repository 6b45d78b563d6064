// Part 8 of 8: controls, downloads, and the start of the page.

function saveFile(name, blob) {
  const url = URL.createObjectURL(blob);
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

function makeFileName(extension) {
  const panel = getActivePanel();
  const parts = [page.title, describeTarget(panel), ...describeMap(panel)];
  return `${parts.join("_").replace(/[^\p{L}\p{N}._-]+/gu, "-")}.${extension}`;
}

function savePng() {
  const canvases = figures.map(({ canvas }) => canvas), gap = 8;
  const sheet = make("canvas", { width: canvases.reduce((sum, { width }) => sum + width + gap, -gap), height: canvases[0].height });
  let x = 0;
  for (const canvas of canvases) { sheet.getContext("2d").drawImage(canvas, x, 0); x += canvas.width + gap; }
  sheet.toBlob((blob) => saveFile(makeFileName("png"), blob));
}

function saveCsv() {
  const { rows, columns, values } = getMap(getActivePanel());
  const lines = Array.from({ length: rows }, (_, row) => [...values.subarray(row * columns, (row + 1) * columns)].join(","));
  saveFile(makeFileName("csv"), new Blob([`${lines.join("\n")}\n`], { type: "text/csv" }));
}

function saveNpy() {
  const { rows, columns, values } = getMap(getActivePanel());
  let header = `{'descr': '<f4', 'fortran_order': False, 'shape': (${rows}, ${columns}), }`;
  header = `${header.padEnd(64 * Math.ceil((header.length + 11) / 64) - 11)}\n`;  // NPY format 1.0 pads the header to 64 bytes
  const start = new Uint8Array([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, header.length & 255, header.length >> 8]);
  saveFile(makeFileName("npy"), new Blob([start, header, values]));
}

function makeTargetOption({ name, probability, score }, number) {
  const input = make("input", { type: "radio", name: "target", value: number });
  input.onchange = () => {
    const { versus } = getActivePanel();
    updatePanel({ target: number, versus: versus === number ? -1 : versus });
  };
  const bar = make("i");
  bar.style.width = `${100 * (probability ?? 0)}%`;
  const value = make("b", { textContent: probability === null ? formatNumber(score) : formatPercent(probability) });
  return make("label", { className: "target" }, input, make("bdi", { textContent: name }), value, bar);
}

function buildControls() {
  const fillSelect = (id, options) => $(id).replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  fillSelect("method", page.methods.map(({ key }, number) => [number, key]));
  fillSelect("versus", [[-1, "(none)"], ...page.targets.map(({ name }, number) => [number, name])]);
  fillSelect("colors", Object.keys(colors).map((name) => [name, name]));
  $("targets").replaceChildren(...page.targets.map(makeTargetOption));
  $("more-targets").hidden = page.targets.length > 1 || page.top.length < 2;
  $("more-targets-option").textContent = page.more_targets;
  if (IN_APP) $("more-targets").textContent = "To compare classes, select more of them above.";
  const names = page.targets.map(({ name }) => name);
  $("predictions").parentElement.hidden = page.top.every(({ name }) => names.includes(name));
  $("cropped").hidden = !page.is_cropped;
  $("check-option").hidden = page.maps.every((entry) => !entry[10]);
  $("predictions").replaceChildren(...page.top.map(({ name, probability }) =>
    make("li", {}, make("bdi", { textContent: name }), make("b", { textContent: formatPercent(probability) }))));
  connectControls();
}

function connectControls() {
  $("swap").onclick = () => updatePanel({ target: getActivePanel().versus, versus: getActivePanel().target });
  $("layer").oninput = (event) => updatePanel({ layer: getChoices(getActivePanel())[+event.target.value] });
  for (const key of ["method", "versus"]) $(key).onchange = (event) => updatePanel({ [key]: +event.target.value });
  for (const key of ["colors", "scale"]) $(key).onchange = (event) => updateState({ [key]: event.target.value });
  $("chart-statistic").onchange = (event) => updateState({ chart: event.target.value });
  for (const key of ["opacity", "threshold"]) $(key).oninput = (event) => updateState({ [key]: +event.target.value });
  for (const key of ["fade", "smooth"]) $(key).onchange = (event) => updateState({ [key]: event.target.checked });
  $("add").onclick = () => { state.panels.push({ ...getActivePanel() }); state.active = state.panels.length - 1; buildPanels(); };
  $("play").onclick = togglePlayback;
  $("png").onclick = savePng;
  $("csv").onclick = saveCsv;
  $("npy").onclick = saveNpy;
  document.addEventListener("keydown", (event) => {
    if (event.target.closest?.("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
    const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, Home: -1e6, End: 1e6 };
    if (event.key in steps) { stepLayer(steps[event.key]); event.preventDefault(); }
    if (event.key === " " && event.target.tagName !== "BUTTON") { togglePlayback(); event.preventDefault(); }
  });
  window.addEventListener("beforeprint", () => { for (const details of document.querySelectorAll("details")) details.open = true; });
  window.addEventListener("hashchange", () => { restoreState(location.hash); buildPanels(); });
}

let playTimer = 0;
function togglePlayback() {
  clearInterval(playTimer);
  const isStarting = !playTimer;
  playTimer = 0;
  if (isStarting) {
    const layers = getLayers(getActivePanel().method);
    if (!layers.slice(0, -1).includes(getActivePanel().layer)) updatePanel({ layer: layers[0] });
    playTimer = setInterval(() => { if (getActivePanel().layer === layers.at(-1)) togglePlayback(); else stepLayer(1); }, 220);
  }
  $("play").textContent = playTimer ? "Stop" : "Play layers";
  $("play").setAttribute("aria-pressed", Boolean(playTimer));
}

/** Pass dropped and pasted files to the local app: drop and paste events do not leave the frame of this page. */
function forwardFiles() {
  const forward = (event, files) => {
    if (event.type === "drop" || files.length) event.preventDefault();  // otherwise the browser opens the dropped file
    if (files.length) parent.postMessage({ file: files[0] }, "*");
  };
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => forward(event, event.dataTransfer.files));
  document.addEventListener("paste", (event) => forward(event, event.clipboardData.files));
}

async function start() {
  const stream = new Blob([decodeBase64($("maps").textContent)]).stream().pipeThrough(new DecompressionStream("deflate"));
  photo = Object.assign(new Image(), { src: $("photo").textContent });
  const [buffer] = await Promise.all([new Response(stream).arrayBuffer(), photo.decode()]);
  levels = new Uint8Array(buffer);
  const fragment = IN_APP ? window.name.slice(APP_NAME.length) : location.hash;
  if (fragment) restoreState(fragment);
  if (IN_APP) forwardFiles();
  buildControls();
  buildCovering();
  buildRemoval();
  buildPanels();
  await new Promise((done) => { requestAnimationFrame(() => setTimeout(done)); });  // paint the overlay first
  buildFilmstrip();
  updateControls();
}

window.seewhy = { page, state, updateState, updatePanel, getMap, ready: start() };
