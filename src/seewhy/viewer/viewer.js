// The explorable page. Data comes as JSON and packed bytes in the document; nothing is fetched.
const $ = (id) => document.getElementById(id);
const make = (tag, props = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children);
  return node;
};
const page = JSON.parse($("data").textContent);
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const LEVELS = 127;
const colors = Object.fromEntries(Object.entries(page.colors).map(([name, text]) => [name, bytes(text)]));
const index = new Map(page.maps.map((entry, number) => [entry.slice(0, 3).join(), number]));
let packed, photo;

// --- Maps ------------------------------------------------------------------------------------------------------------

const cache = new Map();
const once = (key, work) => {
  if (!cache.has(key)) {
    if (cache.size > 400) cache.clear();
    cache.set(key, work());
  }
  return cache.get(key);
};

/** The signed map of one method, target and layer, in the method's units; null where there is none. */
function single(method, target, layer) {
  return once(`s${method},${target},${layer}`, () => {
    const number = index.get([method, target, layer].join());
    if (number === undefined) return null;
    const [, , , start, rows, columns, high, low] = page.maps[number];
    const values = new Float32Array(rows * columns);
    for (let i = 0; i < values.length; i++) {
      const level = (packed[start + i] << 24) >> 24;
      values[i] = (level / LEVELS) * (level > 0 ? high : low);
    }
    return { rows, columns, values };
  });
}

/** What a panel shows: a map, or the difference of two. */
function mapOf({ method, target, versus, layer }) {
  const one = single(method, target, layer);
  if (one === null || versus < 0 || versus === target) return one;
  return once(`d${method},${target},${versus},${layer}`, () => {
    const other = single(method, versus, layer);
    return other && { ...one, values: one.values.map((value, i) => value - other.values[i]) };
  });
}

/** For each of `pixels` over [0, length]: the cells before and after it in a row that covers [start, end], and the share of
 * the second. Pixels whose centre lies outside are left out: `first` to `last` are inside. */
function axis(cells, pixels, length, start, end, smooth) {
  const before = new Int32Array(pixels), after = new Int32Array(pixels), share = new Float32Array(pixels);
  const edge = (value) => Math.min(Math.max(Math.ceil((value * pixels) / length - 0.5), 0), pixels);
  for (let i = 0; i < pixels; i++) {
    const at = (((i + 0.5) * length) / pixels - start) / (end - start) * cells - (smooth ? 0.5 : 0);
    const low = Math.floor(at);
    before[i] = Math.min(Math.max(low, 0), cells - 1);
    after[i] = smooth ? Math.min(Math.max(low + 1, 0), cells - 1) : before[i];
    share[i] = smooth ? at - low : 0;
  }
  return { before, after, share, first: edge(start), last: edge(end) };
}

/** The largest positive value of a map at the size of the network's input, which heat is divided by. */
function top(panel) {
  const { method, target, versus, layer } = panel;
  return once(`t${method},${target},${versus},${layer}`, () => {
    const map = mapOf(panel);
    if (map === null) return 0;
    const [height, width] = page.view.inputs;
    const x = axis(map.columns, width, width, 0, width, true), y = axis(map.rows, height, height, 0, height, true);
    const lines = spread(map, x);
    let most = 0;
    for (let row = 0; row < height; row++) {
      const above = y.before[row] * width, below = y.after[row] * width, down = y.share[row];
      for (let column = 0; column < width; column++) {
        const value = lines[above + column] * (1 - down) + lines[below + column] * down;
        if (value > most) most = value;
      }
    }
    return most;
  });
}

/** The positive part of a map, read along each of its rows at the pixels of a line. */
function spread({ rows, columns, values }, x) {
  const width = x.before.length, out = new Float32Array(rows * width);
  for (let row = 0; row < rows; row++) {
    for (let column = x.first; column < x.last; column++) {
      const a = Math.max(values[row * columns + x.before[column]], 0), b = Math.max(values[row * columns + x.after[column]], 0);
      out[row * width + column] = a + (b - a) * x.share[column];
    }
  }
  return out;
}

/** What a panel's heat is divided by, as the scale says. */
function divisor(panel) {
  if (state.scale === "own") return top(panel);
  const layers = state.scale === "layer" ? [panel.layer] : page.layers.map((_, number) => number);
  let most = 0;
  for (const layer of layers) {
    page.targets.forEach((_, target) => {
      const asked = panel.versus < 0 ? [-1] : [-1, panel.versus];
      for (const versus of asked) most = Math.max(most, top({ ...panel, target, versus, layer }));
    });
  }
  return most;
}

/** Draw a panel's map over the photo into a canvas of any size. */
function paint(canvas, panel) {
  const { width, height } = canvas, context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(photo, 0, 0, width, height);
  const map = mapOf(panel), most = map && divisor(panel);
  if (!most) return;
  const [photoHeight, photoWidth] = page.view.photo, [left, upper, right, lower] = page.view.box;
  const x = axis(map.columns, width, photoWidth, left, right, state.smooth);
  const y = axis(map.rows, height, photoHeight, upper, lower, state.smooth);
  const picture = context.getImageData(0, 0, width, height), out = picture.data, table = colors[state.colors];
  const alpha = Uint8Array.from({ length: 256 }, (_, level) =>
    level < state.threshold * 255 ? 0 : Math.round(255 * state.opacity * (state.fade ? Math.min(1, (1.6 * level) / 255) : 1)));
  const lines = spread(map, x), scale = 255 / most;
  for (let row = y.first; row < y.last; row++) {
    const above = y.before[row] * width, below = y.after[row] * width, down = y.share[row];
    for (let column = x.first; column < x.last; column++) {
      const value = lines[above + column] * (1 - down) + lines[below + column] * down;
      const level = Math.min((value * scale + 0.5) | 0, 255), a = alpha[level] / 255;
      if (a === 0) continue;
      const at = (row * width + column) * 4, from = level * 3;
      out[at] += (table[from] - out[at]) * a;  // clamped arrays round
      out[at + 1] += (table[from + 1] - out[at + 1]) * a;
      out[at + 2] += (table[from + 2] - out[at + 2]) * a;
    }
  }
  context.putImageData(picture, 0, 0);
}

// --- State, kept in the link ------------------------------------------------------------------------------------------

const first = { method: 0, target: 0, versus: -1, layer: Math.max(0, page.layers.findIndex((layer) => layer.suggested)) };
const state = {
  panels: [first], active: 0, colors: page.look.colors, opacity: page.look.opacity, threshold: 0, fade: page.look.fade,
  smooth: true, scale: "own",
};
const KEYS = ["colors", "opacity", "threshold", "fade", "smooth", "scale", "active"];

function toLink() {
  const part = (panel) => [page.methods[panel.method].key, page.targets[panel.target].key,
    panel.versus < 0 ? "" : page.targets[panel.versus].key, page.layers[panel.layer].name].map(encodeURIComponent).join(",");
  return `#panels=${state.panels.map(part).join(";")}&${KEYS.map((key) => `${key}=${state[key]}`).join("&")}`;
}

function fromLink(link) {
  const given = Object.fromEntries(link.slice(1).split("&").map((part) => part.split("=")));
  const find = (list, field, text) => list.findIndex((one) => one[field] === decodeURIComponent(text));
  try {
    if (given.panels) {
      const panels = given.panels.split(";").slice(0, 4).map((text) => {
        const [method, target, versus, layer] = text.split(",");
        return { method: find(page.methods, "key", method), target: find(page.targets, "key", target),
          versus: versus ? find(page.targets, "key", versus) : -1, layer: find(page.layers, "name", layer) };
      });
      if (panels.every((panel) => panel.method >= 0 && panel.target >= 0 && panel.layer >= 0)) state.panels = panels;
    }
  } catch { /* a link that was cut off: what is left of it */ }
  const number = (key, least, most) => {
    if (given[key] !== undefined && Number.isFinite(+given[key])) state[key] = Math.min(Math.max(+given[key], least), most);
  };
  number("opacity", 0, 1);
  number("threshold", 0, 1);
  number("active", 0, state.panels.length - 1);
  state.active = Math.floor(state.active);
  for (const key of ["fade", "smooth"]) if (given[key] !== undefined) state[key] = given[key] === "true";
  if (Object.hasOwn(colors, given.colors ?? "")) state.colors = given.colors;
  if (["own", "layer", "all"].includes(given.scale)) state.scale = given.scale;
}

const current = () => state.panels[state.active];

function change(parts, panel = false) {
  Object.assign(panel ? current() : state, parts);
  const own = current();
  if (!page.methods[own.method].linear) own.versus = -1;
  if (!layersOf(own.method).includes(own.layer)) own.layer = layersOf(own.method).at(-1);
  render();
}

const layersOf = (method) => once(`l${method}`, () =>
  page.layers.map((_, number) => number).filter((layer) => page.maps.some((one) => one[0] === method && one[2] === layer)));

function step(by) {
  const layers = layersOf(current().method), at = layers.indexOf(current().layer) + by;
  change({ layer: layers[Math.min(Math.max(at, 0), layers.length - 1)] }, true);
}

// --- Drawing the page -------------------------------------------------------------------------------------------------

let waiting = 0, clock = 0;
function render() {
  if (waiting) return;
  waiting = requestAnimationFrame(() => {
    waiting = 0;
    const begun = performance.now();
    state.panels.forEach((panel, number) => paint(figures[number].canvas, panel));
    window.seewhy.redraw = performance.now() - begun;
    words();
    clearTimeout(clock);
    clock = setTimeout(() => { thumbnails(); link(); }, 120);
  });
}

function link() {
  try { history.replaceState(null, "", toLink()); } catch { /* inside a notebook there is no address */ }
}

const figures = [];
function layout() {
  $("panels").replaceChildren();
  figures.length = 0;
  state.panels.forEach((panel, number) => {
    const canvas = make("canvas", { width: photo.naturalWidth, height: photo.naturalHeight, tabIndex: 0 });
    canvas.setAttribute("role", "img");
    const mark = make("div", { className: "cell", hidden: true });
    const caption = make("figcaption");
    const close = make("button", { className: "close", textContent: "\u00d7", title: "Close this panel" });
    close.setAttribute("aria-label", "Close this panel");
    close.onclick = () => {
      state.panels.splice(number, 1);
      state.active = Math.min(state.active, state.panels.length - 1);
      layout();
    };
    close.hidden = state.panels.length < 2;
    const figure = make("figure", {}, make("div", { className: "stage" }, canvas, mark), caption, close);
    figure.onpointerdown = figure.onfocusin = () => { if (state.active !== number) change({ active: number }); };
    canvas.onpointermove = (event) => point(event, number);
    canvas.onpointerleave = () => point(null);
    canvas.onwheel = (event) => {
      if (event.ctrlKey) return;
      event.preventDefault();
      if (state.active !== number) state.active = number;
      step(Math.sign(event.deltaY));
    };
    $("panels").append(figure);
    figures.push({ figure, canvas, caption, mark });
  });
  $("panels").dataset.count = state.panels.length;
  $("add").disabled = state.panels.length > 3;
  render();
}

const short = (value) => (value === null || !Number.isFinite(value) ? "\u2013" : Math.abs(value) >= 0.01 && Math.abs(value) < 1000
  ? value.toPrecision(3) : value.toExponential(1));
const percent = (value) => (value === null ? "" : `${(100 * value).toFixed(1)} %`);

function question(panel) {
  const name = page.targets[panel.target].name;
  return panel.versus < 0 ? name : `${name} rather than ${page.targets[panel.versus].name}`;
}

function entry(panel) {
  return page.maps[index.get([panel.method, panel.target, panel.layer].join())];
}

function words() {
  state.panels.forEach((panel, number) => {
    const { figure, canvas, caption } = figures[number], layer = page.layers[panel.layer];
    figure.classList.toggle("active", number === state.active && state.panels.length > 1);
    const text = `${question(panel)} \u00b7 ${page.methods[panel.method].key} \u00b7 ${layer.name}`;
    caption.textContent = text;
    canvas.setAttribute("aria-label", `Heat map: ${text}`);
  });
  const panel = current(), layer = page.layers[panel.layer], layers = layersOf(panel.method), own = entry(panel);
  $("layer").max = layers.length - 1;
  $("layer").value = layers.indexOf(panel.layer);
  $("layer").setAttribute("aria-valuetext", layer.name);
  $("layer-name").textContent = layer.name;
  $("layer-about").textContent = [`${layers.indexOf(panel.layer) + 1} of ${layers.length}`, layer.kind, layer.grid.join("\u00d7"),
    layer.channels ? `${layer.channels} channels` : "", layer.suggested ? "suggested" : ""].filter(Boolean).join(" \u00b7 ");
  $("flags").replaceChildren(...[...(own ? own[9].map((flag) => page.flags[flag]) : ["no map here"]), layer.note].filter(Boolean)
    .map((text) => make("li", { textContent: text })));
  $("method").value = panel.method;
  $("versus").value = panel.versus;
  $("versus").disabled = !page.methods[panel.method].linear || page.targets.length < 2;
  document.querySelectorAll("#targets input").forEach((input, number) => { input.checked = number === panel.target; });
  for (const key of ["colors", "scale"]) $(key).value = state[key];
  for (const key of ["opacity", "threshold"]) {
    $(key).value = state[key];
    $(`${key}-value`).textContent = percent(state[key]);
  }
  for (const key of ["fade", "smooth"]) $(key).checked = state[key];
  document.querySelectorAll("#strip button").forEach((button) => {
    const here = +button.dataset.layer === panel.layer;
    button.setAttribute("aria-current", here);
    if (here && button !== document.activeElement) {
      const strip = $("strip"), at = button.offsetLeft - strip.clientWidth / 2 + button.clientWidth / 2;
      strip.scrollTo({ left: at });
    }
  });
  chart();
}

/** For each layer the share of positive evidence, as a bar; a mark under those with flags. */
function chart() {
  const panel = current(), layers = layersOf(panel.method), width = 100 / layers.length;
  const svg = (tag, props) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(props)) node.setAttribute(key, value);
    return node;
  };
  $("chart").replaceChildren(...layers.flatMap((layer, place) => {
    const own = entry({ ...panel, layer }), share = own ? own[8] ?? 0 : 0, x = place * width;
    const bar = svg("rect", { x: x + width * 0.12, width: width * 0.76, y: 30 - 30 * share, height: 30 * share,
      class: layer === panel.layer ? "bar here" : "bar" });
    const all = svg("rect", { x, width, y: 0, height: 36, class: "hit" });
    all.append(svg("title", {}));
    all.firstChild.textContent = `${page.layers[layer].name}: ${percent(share)} positive`;
    all.onclick = () => change({ layer }, true);
    const flagged = own && own[9].length ? [svg("rect", { x: x + width * 0.3, width: width * 0.4, y: 33, height: 2.5, class: "flag" })] : [];
    return [bar, ...flagged, all];
  }));
}

/** The linked cursor: the cell under the pointer in every panel, and its value. */
function point(event, number) {
  $("reading").textContent = "";
  for (const { mark } of figures) mark.hidden = true;
  if (event === null) return;
  const canvas = figures[number].canvas, frame = canvas.getBoundingClientRect();
  const [height, width] = page.view.photo, [left, upper, right, lower] = page.view.box;
  const x = ((event.clientX - frame.left) / frame.width) * width, y = ((event.clientY - frame.top) / frame.height) * height;
  const across = (x - left) / (right - left), down = (y - upper) / (lower - upper);
  if (across < 0 || across >= 1 || down < 0 || down >= 1) {
    $("reading").textContent = "The network did not see this place.";
    return;
  }
  const said = state.panels.map((panel, at) => {
    const map = mapOf(panel);
    if (map === null) return "no map";
    const row = Math.floor(down * map.rows), column = Math.floor(across * map.columns);
    const value = map.values[row * map.columns + column], most = divisor(panel);
    const place = (size, from, to, cell, cells) => 100 * (from + ((to - from) * cell) / cells) / size;
    Object.assign(figures[at].mark.style, {
      left: `${place(width, left, right, column, map.columns)}%`, top: `${place(height, upper, lower, row, map.rows)}%`,
      width: `${(100 * (right - left)) / map.columns / width}%`, height: `${(100 * (lower - upper)) / map.rows / height}%`,
    });
    figures[at].mark.hidden = false;
    const share = value < 0 ? "speaks against" : most ? `${Math.round((100 * value) / most)} % of the maximum` : "";
    return `cell ${row},${column}: ${short(value)}${share ? ` (${share})` : ""}`;
  });
  $("reading").textContent = said.join("   |   ");
}

// --- The film strip, drawn as it comes into view -----------------------------------------------------------------------

const shown = new Set();
const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) shown.add(target);
    else shown.delete(target);
  }
  thumbnails();
}, { root: $("strip"), rootMargin: "0px 200px" });

function strip() {
  const ratio = photo.naturalHeight / photo.naturalWidth;
  $("strip").replaceChildren(...page.layers.map((layer, number) => {
    const canvas = make("canvas", { width: ratio > 1 ? Math.round(84 / ratio) : 84, height: ratio > 1 ? 84 : Math.round(84 * ratio) });
    const button = make("button", { title: layer.name }, canvas, make("span", { textContent: layer.name.split(".").slice(-2).join(".") }));
    button.setAttribute("aria-label", `Layer ${layer.name}`);
    button.dataset.layer = number;
    button.onclick = () => change({ layer: number }, true);
    watcher.observe(button);
    return button;
  }));
}

function thumbnails() {
  for (const button of shown) paint(button.firstChild, { ...current(), layer: +button.dataset.layer });
}

// --- Downloads ---------------------------------------------------------------------------------------------------------

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

// --- Controls ----------------------------------------------------------------------------------------------------------

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
  $("others").parentElement.hidden = page.top.length === 0;
  $("others").replaceChildren(...page.top.map(({ name, probability }) =>
    make("li", {}, make("bdi", { textContent: name }), make("b", { textContent: percent(probability) }))));
  $("layer").oninput = (event) => change({ layer: layersOf(current().method)[+event.target.value] }, true);
  for (const key of ["method", "versus"]) $(key).onchange = (event) => change({ [key]: +event.target.value }, true);
  for (const key of ["colors", "scale"]) $(key).onchange = (event) => change({ [key]: event.target.value });
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

async function start() {
  const stream = new Blob([bytes($("maps").textContent)]).stream().pipeThrough(new DecompressionStream("deflate"));
  packed = new Uint8Array(await new Response(stream).arrayBuffer());
  photo = new Image();
  photo.src = $("photo").textContent;
  await photo.decode();
  try { if (location.hash) fromLink(location.hash); } catch { /* no address */ }
  controls();
  strip();
  layout();
}

window.seewhy = { page, state, change, mapOf, paint, divisor, toLink, fromLink, ready: start() };
