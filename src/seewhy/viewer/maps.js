// The report page, part 1 of 8: decoding and painting maps. The parts are joined into one module in the order of
// REPORT_SCRIPTS (pages.py). All data is inside the document; nothing is fetched.
const $ = (id) => document.getElementById(id);
const make = (tag, props = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children);
  return node;
};
const page = JSON.parse($("data").textContent);
function decodeBase64(text) {
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);  // Uint8Array.from is slow
  return bytes;
}
const LEVELS = 127;
const colors = Object.fromEntries(Object.entries(page.colors).map(([name, text]) => [name, decodeBase64(text)]));
const mapNumbers = new Map(page.maps.map((entry, number) => [entry.slice(0, 3).join(), number]));
const MEASURED = page.layers.findIndex((layer) => layer.measured);  // the map that covering gave, or -1; it has no method
const findMapNumber = (method, target, layer) => mapNumbers.get([layer === MEASURED ? -1 : method, target, layer].join());
let levels, photo;

const cache = new Map();
const cached = (key, compute) => {
  if (!cache.has(key)) {
    if (cache.size > 8000) cache.clear();
    cache.set(key, compute());
  }
  return cache.get(key);
};

/** Return the signed map of one method, target and layer in the units of the method, or null if there is none. */
function decodeMap(method, target, layer) {
  return cached(`s${method},${target},${layer}`, () => {
    const number = findMapNumber(method, target, layer);
    if (number === undefined) return null;
    const [, , , start, rows, columns, high, low] = page.maps[number];
    const values = new Float32Array(rows * columns);
    for (let i = 0; i < values.length; i++) {
      const level = (levels[start + i] << 24) >> 24;
      values[i] = (level / LEVELS) * (level > 0 ? high : low);
    }
    return { rows, columns, values };
  });
}

/** Return the map of a panel: one map, or the difference of two if the panel compares two classes. */
function getMap({ method, target, versus, layer }) {
  const map = decodeMap(method, target, layer);
  if (map === null || versus < 0 || versus === target) return map;
  return cached(`d${method},${target},${versus},${layer}`, () => {
    const other = decodeMap(method, versus, layer);
    return other && { ...map, values: map.values.map((value, i) => value - other.values[i]) };
  });
}

/** Compute, for each of `pixels` over [0, length], the cells before and after it on an axis that covers [start, end], and the
 * weight of the cell after it. Only pixels `first` to `last` have their center inside [start, end]. The axis consists of
 * `tiles` equal parts, and no pixel of one depends on cells of another. */
function sampleAxis(cells, pixels, length, start, end, smooth, tiles = 1) {
  const before = new Int32Array(pixels), after = new Int32Array(pixels), weight = new Float32Array(pixels);
  const toPixel = (value) => Math.min(Math.max(Math.ceil((value * pixels) / length - 0.5), 0), pixels);
  for (let i = 0; i < pixels; i++) {
    const place = (((i + 0.5) * length) / pixels - start) / (end - start) * cells, position = place - (smooth ? 0.5 : 0);
    const lower = Math.floor(position), tile = Math.min(Math.max(Math.floor((place * tiles) / cells), 0), tiles - 1);
    const low = (tile * cells) / tiles, high = low + cells / tiles - 1;
    before[i] = Math.min(Math.max(lower, low), high);
    after[i] = smooth ? Math.min(Math.max(lower + 1, low), high) : before[i];
    weight[i] = smooth ? position - lower : 0;
  }
  return { before, after, weight, first: toPixel(start), last: toPixel(end) };
}

/** Return the largest positive value of a panel's map at the size of the model's input. */
function computeMaximum(panel) {
  const { method, target, versus, layer } = panel;
  return cached(`t${method},${target},${versus},${layer}`, () => {
    const map = getMap(panel);
    if (map === null) return 0;
    const [height, width] = page.view.input_size;
    const x = sampleAxis(map.columns, width, width, 0, width, true, page.tiles[1]);
    const y = sampleAxis(map.rows, height, height, 0, height, true, page.tiles[0]);
    const lines = resizeRows(map, x);
    let maximum = 0;
    for (let row = 0; row < height; row++) {
      const above = y.before[row] * width, below = y.after[row] * width, weight = y.weight[row];
      for (let column = 0; column < width; column++) {
        const value = lines[above + column] * (1 - weight) + lines[below + column] * weight;
        if (value > maximum) maximum = value;
      }
    }
    return maximum;
  });
}

/** Resize the positive part of a map along its rows. */
function resizeRows({ rows, columns, values }, x) {
  const width = x.before.length, resized = new Float32Array(rows * width);
  for (let row = 0; row < rows; row++) {
    for (let column = x.first; column < x.last; column++) {
      const a = Math.max(values[row * columns + x.before[column]], 0), b = Math.max(values[row * columns + x.after[column]], 0);
      resized[row * width + column] = a + (b - a) * x.weight[column];
    }
  }
  return resized;
}

/** Return the value that a panel's map is divided by, according to the selected scale. */
function getScaleMaximum(panel) {
  if (state.scale === "own" || state.scale === "minmax") return computeMaximum(panel);
  const isShared = state.scale === "all" && panel.layer !== MEASURED;  // the measured map has another unit
  const layers = isShared ? page.layers.flatMap((layer, number) => (layer.measured ? [] : [number])) : [panel.layer];
  let maximum = 0;
  for (const layer of layers) {
    page.targets.forEach((_, target) => {
      const others = panel.versus < 0 ? [-1] : [-1, panel.versus];
      for (const versus of others) maximum = Math.max(maximum, computeMaximum({ ...panel, target, versus, layer }));
    });
  }
  return maximum;
}

/** Return the values that are drawn in the first and the last color. With "minmax", as in
 * tutorials, they are the smallest and largest cell after negative values became 0: a map of equal values is drawn as 0. */
function getScaleRange(panel, map) {
  if (state.scale !== "minmax") return { low: 0, high: getScaleMaximum(panel) };
  const cells = map.values.map((value) => Math.max(value, 0));
  return { low: cells.reduce((a, b) => Math.min(a, b)), high: cells.reduce((a, b) => Math.max(a, b)) };
}

/** Draw a panel's map over the photo on a canvas of any size. If the opacity follows the map, the photo is blended with its gray
 * version to the same degree (desaturate in overlays.py), so that it does not change the hue of the colors. */
function paintOverlay(canvas, panel) {
  const { width, height } = canvas, context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(photo, 0, 0, width, height);
  const map = getMap(panel), isMinMax = state.scale === "minmax";
  if (map === null) return;
  const { low, high } = getScaleRange(panel, map);
  if (!high && !isMinMax) return;
  const [photoHeight, photoWidth] = page.view.photo_size, [left, upper, right, lower] = page.view.box;
  const x = sampleAxis(map.columns, width, photoWidth, left, right, state.smooth, page.tiles[1]);
  const y = sampleAxis(map.rows, height, photoHeight, upper, lower, state.smooth, page.tiles[0]);
  const image = context.getImageData(0, 0, width, height), out = image.data, table = colors[state.colors];
  const alphas = Uint8Array.from({ length: 256 }, (_, level) =>
    level < state.threshold * 255 ? 0 : Math.round(255 * state.opacity * (state.fade ? Math.min(1, (1.6 * level) / 255) : 1)));
  const lines = resizeRows(map, x), scale = high > low ? 255 / (high - low) : 0, rounding = isMinMax ? 0 : 0.5;
  for (let row = y.first; row < y.last; row++) {
    const above = y.before[row] * width, below = y.after[row] * width, weight = y.weight[row];
    for (let column = x.first; column < x.last; column++) {
      const value = lines[above + column] * (1 - weight) + lines[below + column] * weight;
      const level = Math.min(((value - low) * scale + rounding) | 0, 255), alpha = alphas[level] / 255;
      if (alpha === 0) continue;
      const at = (row * width + column) * 4, from = level * 3;
      const gray = (out[at] * 19595 + out[at + 1] * 38470 + out[at + 2] * 7471 + 32768) >> 16, fading = state.fade ? alpha : 0;
      for (let channel = 0; channel < 3; channel++) {
        const own = out[at + channel] + (gray - out[at + channel]) * fading;
        out[at + channel] = own + (table[from + channel] - own) * alpha;  // a clamped array rounds
      }
    }
  }
  context.putImageData(image, 0, 0);
}
