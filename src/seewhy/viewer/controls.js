// Part 4 of 4: what one can press, and downloads.

function save(name, blob) {
  const address = URL.createObjectURL(blob);
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

const fileName = (ending) => `${[page.title, question(current()), page.methods[current().method].key, page.layers[current().layer].name]
  .join("_").replace(/[^\p{L}\p{N}._-]+/gu, "-")}.${ending}`;

function savePicture() {
  const canvases = figures.map(({ canvas }) => canvas), gap = 8;
  const all = make("canvas", { width: canvases.reduce((sum, one) => sum + one.width + gap, -gap), height: canvases[0].height });
  let x = 0;
  for (const one of canvases) { all.getContext("2d").drawImage(one, x, 0); x += one.width + gap; }
  all.toBlob((blob) => save(fileName("png"), blob));
}

function saveNumbers(kind) {
  const { rows, columns, values } = mapOf(current());
  if (kind === "csv") {
    const lines = Array.from({ length: rows }, (_, row) => [...values.subarray(row * columns, (row + 1) * columns)].join(","));
    return save(fileName("csv"), new Blob([`${lines.join("\n")}\n`], { type: "text/csv" }));
  }
  let header = `{'descr': '<f4', 'fortran_order': False, 'shape': (${rows}, ${columns}), }`;
  header = `${header.padEnd(64 * Math.ceil((header.length + 11) / 64) - 11)}\n`;
  const start = new Uint8Array([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, header.length & 255, header.length >> 8]);
  return save(fileName("npy"), new Blob([start, header, values]));
}

function controls() {
  const options = (id, list) => $(id).replaceChildren(...list.map(([value, text]) => new Option(text, value)));
  options("method", page.methods.map(({ key }, number) => [number, key]));
  options("versus", [[-1, "nothing"], ...page.targets.map(({ name }, number) => [number, name])]);
  options("colors", Object.keys(colors).map((name) => [name, name]));
  $("targets").replaceChildren(...page.targets.map(({ name, probability, score }, number) => {
    const input = make("input", { type: "radio", name: "target", value: number });
    input.onchange = () => change({ target: number, versus: current().versus === number ? -1 : current().versus }, true);
    const bar = make("i");
    bar.style.width = `${100 * (probability ?? 0)}%`;
    const value = make("b", { textContent: probability === null ? short(score) : percent(probability) });
    return make("label", { className: "target" }, input, make("bdi", { textContent: name }), value, bar);
  }));
  $("more").hidden = page.targets.length > 1 || page.top.length < 2;
  $("more-how").textContent = page.more;
  if (APP) $("more").textContent = "For other classes, and for one rather than another: choose more of them above.";
  const asked = page.targets.map(({ name }) => name);
  $("others").parentElement.hidden = page.top.every(({ name }) => asked.includes(name));
  $("unseen").hidden = !page.unseen;
  $("others").replaceChildren(...page.top.map(({ name, probability }) =>
    make("li", {}, make("bdi", { textContent: name }), make("b", { textContent: percent(probability) }))));
  $("swap").onclick = () => change({ target: current().versus, versus: current().target }, true);
  $("layer").oninput = (event) => change({ layer: layersOf(current().method)[+event.target.value] }, true);
  for (const key of ["method", "versus"]) $(key).onchange = (event) => change({ [key]: +event.target.value }, true);
  for (const key of ["colors", "scale"]) $(key).onchange = (event) => change({ [key]: event.target.value });
  $("chart-of").onchange = (event) => change({ chart: event.target.value });
  for (const key of ["opacity", "threshold"]) $(key).oninput = (event) => change({ [key]: +event.target.value });
  for (const key of ["fade", "smooth"]) $(key).onchange = (event) => change({ [key]: event.target.checked });
  $("add").onclick = () => { state.panels.push({ ...current() }); state.active = state.panels.length - 1; layout(); };
  $("play").onclick = play;
  $("png").onclick = savePicture;
  $("csv").onclick = () => saveNumbers("csv");
  $("npy").onclick = () => saveNumbers("npy");
  document.addEventListener("keydown", (event) => {
    const at = event.target.closest?.("input, select, textarea");
    if (at || event.ctrlKey || event.metaKey || event.altKey) return;
    const moves = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, Home: -1e6, End: 1e6 };
    if (event.key in moves) { step(moves[event.key]); event.preventDefault(); }
    if (event.key === " " && event.target.tagName !== "BUTTON") { play(); event.preventDefault(); }
  });
  window.addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("details")) part.open = true; });
  window.addEventListener("hashchange", () => { fromLink(location.hash); layout(); });
}

let playing = 0;
function play() {
  clearInterval(playing);
  const begin = !playing;
  playing = 0;
  if (begin) {
    const layers = layersOf(current().method);
    if (current().layer === layers.at(-1)) change({ layer: layers[0] }, true);
    playing = setInterval(() => { if (current().layer === layers.at(-1)) play(); else step(1); }, 220);
  }
  $("play").textContent = playing ? "Stop" : "Play the depth";
  $("play").setAttribute("aria-pressed", Boolean(playing));
}

/** In the local app the page is a frame, which a drop or a paste would never leave: pictures go on to the window around. */
function forward() {
  const pass = (event, files) => {
    if (event.type === "drop" || files.length) event.preventDefault();  // or the browser would leave for what was dropped
    if (files.length) parent.postMessage({ file: files[0] }, "*");
  };
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => pass(event, event.dataTransfer.files));
  document.addEventListener("paste", (event) => pass(event, event.clipboardData.files));
}

async function start() {
  const stream = new Blob([bytes($("maps").textContent)]).stream().pipeThrough(new DecompressionStream("deflate"));
  photo = Object.assign(new Image(), { src: $("photo").textContent });
  const [levels] = await Promise.all([new Response(stream).arrayBuffer(), photo.decode()]);
  packed = new Uint8Array(levels);
  const link = APP ? window.name.slice(APP_NAME.length) : location.hash;
  if (link) fromLink(link);
  if (APP) forward();
  controls();
  layout();
  await new Promise((done) => { requestAnimationFrame(() => setTimeout(done)); });  // the picture first
  strip();
  words();
}

window.seewhy = { page, state, change, mapOf, paint, divisor, toLink, fromLink, ready: start() };
