// Part 3 of 8: statistics of each layer's map.

const formatNumber = (value) => (value === null || !Number.isFinite(value) ? "\u2013" : Math.abs(value) >= 0.01 && Math.abs(value) < 1000
  ? value.toPrecision(3) : value.toExponential(1));
const formatPercent = (value) => (value === null ? "" : `${(100 * value).toFixed(1)}%`);

const STATISTIC_TEXTS = {
  evidence: (value) => `positive evidence ${formatPercent(value)}`,
  peak: (value) => `peak ${formatNumber(value)}`,
  area: (value) => `area above half of the peak ${formatPercent(value)}`,
  correlation: (value) => `correlation ${value.toFixed(2)}`,
  check: (value) => `correlation with the effect of covering ${value.toFixed(2)}`,
};

function findEntry(panel) {
  return page.maps[findMapNumber(panel.method, panel.target, panel.layer)];
}

/** Return the check {verdict, r, text} of a panel's map, or null if it was not checked. A difference of classes has none. */
const findCheck = (panel) => (panel.versus < 0 && findEntry(panel)?.[10]) || null;

/** Compute the statistics of a panel's map. Each is null if undefined; `peak` is in the units of the map. */
function computeStatistics(panel) {
  return cached(`n${panel.method},${panel.target},${panel.versus},${panel.layer}`, () => {
    const map = getMap(panel), entry = findEntry(panel);
    if (map === null) return { evidence: null, peak: null, area: null, correlation: null, check: null };
    let positive = 0, absolute = 0, peak = 0, cells = 0;
    for (const value of map.values) {
      positive += Math.max(value, 0);
      absolute += Math.abs(value);
      peak = Math.max(peak, value);
    }
    for (const value of map.values) if (peak > 0 && value >= peak / 2) cells++;
    const evidence = panel.versus < 0 ? entry[8] : absolute ? positive / absolute : null;
    const correlation = correlate(panel, { ...panel, layer: getReferenceLayer(panel.method) });
    const check = findCheck(panel)?.r ?? null;
    if (panel.layer === MEASURED) peak = 0;  // it has another unit
    return { evidence, peak: peak || null, area: peak > 0 ? cells / map.values.length : null, correlation, check };
  });
}

/** Return the correlation of the positive parts of two maps on a common grid, in [-1, 1], or null if one is constant. The cosine
 * is no alternative: a nearly constant map has a cosine of 0.8 with any other map. */
const GRID = 28;
function correlate(panel, other) {
  const [a, b] = [panel, other].map(centerValues);
  if (a === null || b === null) return null;
  const dot = (u, v) => u.reduce((sum, value, i) => sum + value * v[i], 0), scale = Math.sqrt(dot(a, a) * dot(b, b));
  return scale > 0 ? dot(a, b) / scale : null;
}

/** Return the positive part of a panel's map on the common grid minus its mean, or null if there is no map. */
function centerValues(panel) {
  return cached(`h${panel.method},${panel.target},${panel.versus},${panel.layer}`, () => {
    const map = getMap(panel);
    if (map === null) return null;
    const x = sampleAxis(map.columns, GRID, GRID, 0, GRID, true), y = sampleAxis(map.rows, GRID, GRID, 0, GRID, true);
    const lines = resizeRows(map, x), values = new Float64Array(GRID * GRID);
    let sum = 0;
    for (let row = 0; row < GRID; row++) {
      const above = y.before[row] * GRID, below = y.after[row] * GRID, weight = y.weight[row];
      for (let column = 0; column < GRID; column++) {
        const value = lines[above + column] * (1 - weight) + lines[below + column] * weight;
        values[row * GRID + column] = value;
        sum += value;
      }
    }
    return values.map((value) => value - sum / values.length);
  });
}

/** Return the layer that all others are correlated with: the suggested layer, or the last layer with a map. */
const getReferenceLayer = (method) => getLayers(method).find((layer) => page.layers[layer].suggested) ?? getLayers(method).at(-1);

/** Find the first layer whose correlation with the reference layer is at least 0.5, and the first after which it stays there. */
const CORRELATED = 0.5;
function findCorrelatedLayers(panel) {
  const reference = getReferenceLayer(panel.method), layers = getLayers(panel.method).filter((layer) => layer <= reference);
  const correlated = layers.map((layer) => computeStatistics({ ...panel, layer }).correlation >= CORRELATED);
  if (layers.length < 3 || !correlated.at(-1)) return null;
  return { first: layers[correlated.indexOf(true)], lasting: layers[correlated.lastIndexOf(false) + 1], reference };
}
