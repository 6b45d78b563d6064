// The explorable page, part 1 of 4: packed maps, and how they are painted. The parts are one module, joined in this order when
// a page is built. Data comes as JSON and packed bytes in the document; nothing is fetched.
const $ = (id) => document.getElementById(id);
const make = (tag, props = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children);
  return node;
};
const page = JSON.parse($("data").textContent);
function bytes(text) {
  const raw = atob(text), found = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) found[i] = raw.charCodeAt(i);  // Uint8Array.from is slow
  return found;
}
const LEVELS = 127;
const colors = Object.fromEntries(Object.entries(page.colors).map(([name, text]) => [name, bytes(text)]));
const index = new Map(page.maps.map((entry, number) => [entry.slice(0, 3).join(), number]));
let packed, photo;

const cache = new Map();
const once = (key, work) => {
  if (!cache.has(key)) {
    if (cache.size > 8000) cache.clear();
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
