// Part 3 of 4: panels, numbers and words, the chart, the film strip.

let waiting = 0, clock = 0;
function render() {
  if (waiting) return;
  waiting = requestAnimationFrame(() => {
    waiting = 0;
    const begun = performance.now();
    state.panels.forEach((panel, number) => paint(figures[number].canvas, panel));
    window.seewhy.redraw = performance.now() - begun;
    words();
    setTimeout(chart);  // the picture first: of a new question the chart looks at every layer
    clearTimeout(clock);
    clock = setTimeout(() => { thumbnails(); link(); }, 120);
  });
}

function link() {
  if (APP) parent.postMessage({ link: toLink() }, "*");
  try { history.replaceState(null, "", toLink()); } catch { /* inside a notebook there is no address */ }
}

const figures = [];
function layout() {
  state.panels.forEach(settle);
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
  document.body.classList.toggle("single", layers.length < 2);
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
  for (const option of $("versus").options) option.disabled = +option.value === panel.target;
  $("swap").disabled = panel.versus < 0;
  $("versus").disabled = !page.methods[panel.method].linear || page.targets.length < 2;
  document.querySelectorAll("#targets input").forEach((input, number) => { input.checked = number === panel.target; });
  for (const key of ["colors", "scale", "chart-of"]) $(key).value = state[key.replace("-of", "")];
  for (const key of ["opacity", "threshold"]) {
    $(key).value = state[key];
    $(`${key}-value`).textContent = percent(state[key]);
  }
  for (const key of ["fade", "smooth"]) $(key).checked = state[key];
  document.querySelectorAll("#strip button").forEach((button) => {
    const here = +button.dataset.layer === panel.layer;
    button.setAttribute("aria-current", here);
    button.hidden = !layers.includes(+button.dataset.layer);
    button.tabIndex = here ? 0 : -1;  // one stop of the Tab key; arrows move on
    if (here && button !== document.activeElement) {
      const strip = $("strip"), at = button.offsetLeft - strip.clientWidth / 2 + button.clientWidth / 2;
      strip.scrollTo({ left: at });
    }
  });
  const table = colors[state.colors], stops = [0, 32, 64, 96, 128, 160, 192, 224, 255].map((level) => `rgb(${table.slice(level * 3, level * 3 + 3)})`);
  $("ramp").style.background = `linear-gradient(90deg, ${stops})`;
  $("speaks").textContent = `speaks for ${question(panel)}`;
  point(...pointed);
}

/** Numbers of one map, each in [0, 1] or null; `peak` still in the map's units. */
function numbers(panel) {
  return once(`n${panel.method},${panel.target},${panel.versus},${panel.layer}`, () => {
    const map = mapOf(panel), own = entry(panel);
    if (map === null) return { share: null, peak: null, spread: null, like: null };
    let plus = 0, all = 0, peak = 0, wide = 0;
    for (const value of map.values) {
      plus += Math.max(value, 0);
      all += Math.abs(value);
      peak = Math.max(peak, value);
    }
    for (const value of map.values) if (peak > 0 && value >= peak / 2) wide++;
    const share = panel.versus < 0 ? own[8] : all ? plus / all : null;
    const like = likeness(panel, { ...panel, layer: reference(panel.method) });
    return { share, peak: peak || null, spread: peak > 0 ? wide / map.values.length : null, like };
  });
}

/** How like two maps are where they are positive: the correlation of their heat on one grid, in [-1, 1]; null where one is
 * blank or even. Not the cosine, which calls an even wash over everything 0.8 like anything. */
const GRID = 28;
function likeness(panel, other) {
  const [a, b] = [panel, other].map(centred);
  if (a === null || b === null) return null;
  const dot = (u, v) => u.reduce((sum, value, i) => sum + value * v[i], 0), scale = Math.sqrt(dot(a, a) * dot(b, b));
  return scale > 0 ? dot(a, b) / scale : null;
}

/** A panel's heat on the grid, less its mean; null where there is no map. */
function centred(panel) {
  return once(`h${panel.method},${panel.target},${panel.versus},${panel.layer}`, () => {
    const map = mapOf(panel);
    if (map === null) return null;
    const x = axis(map.columns, GRID, GRID, 0, GRID, true), y = axis(map.rows, GRID, GRID, 0, GRID, true), lines = spread(map, x);
    const heat = new Float64Array(GRID * GRID);
    let sum = 0;
    for (let row = 0; row < GRID; row++) {
      const above = y.before[row] * GRID, below = y.after[row] * GRID, down = y.share[row];
      for (let column = 0; column < GRID; column++) {
        const value = lines[above + column] * (1 - down) + lines[below + column] * down;
        heat[row * GRID + column] = value;
        sum += value;
      }
    }
    return heat.map((value) => value - sum / heat.length);
  });
}

/** The layer that the others are likened to: the suggested one, or the last with a map. */
const reference = (method) => layersOf(method).find((layer) => page.layers[layer].suggested) ?? layersOf(method).at(-1);

/** The first layer whose map is clearly like that of the suggested one, and the first from which on all are. */
const CLEARLY = 0.5;
function arrival(panel) {
  const end = reference(panel.method), layers = layersOf(panel.method).filter((layer) => layer <= end);
  const like = layers.map((layer) => numbers({ ...panel, layer }).like >= CLEARLY);
  if (layers.length < 3 || !like.at(-1)) return null;
  return { first: layers[like.indexOf(true)], lasting: layers[like.lastIndexOf(false) + 1], end };
}

const SAID = { share: (value) => `${percent(value)} positive`, peak: (value) => `peak ${short(value)}`,
  spread: (value) => `${percent(value)} of the cells above half of the peak`,
  like: (value) => `likeness ${value.toFixed(2)}` };

/** One bar a layer for what the chart shows, and a mark under layers with flags. Peaks span many orders: their bars are
 * logarithms, from a tenth of the smallest to the largest. */
function chart() {
  const panel = current(), layers = layersOf(panel.method), width = 100 / layers.length, kind = state.chart;
  const values = layers.map((layer) => numbers({ ...panel, layer })[kind]);
  const logs = values.filter((value) => value > 0).map(Math.log10), low = Math.min(...logs) - 1, high = Math.max(...logs);
  const height = (value) => (value === null ? 0 : 30 * Math.max(0, kind === "peak" ? (Math.log10(value) - low) / (high - low || 1) : value));
  const svg = (tag, props) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(props)) node.setAttribute(key, value);
    return node;
  };
  $("chart").replaceChildren(...layers.flatMap((layer, place) => {
    const own = entry({ ...panel, layer }), value = values[place], tall = height(value), x = place * width;
    const bar = svg("rect", { x: x + width * 0.12, width: width * 0.76, y: 30 - tall, height: tall,
      class: layer === panel.layer ? "bar here" : "bar" });
    const all = svg("rect", { x, width, y: 0, height: 36, class: "hit" });
    all.append(svg("title", {}));
    all.firstChild.textContent = `${page.layers[layer].name}: ${value === null ? "nothing" : SAID[kind](value)}`;
    all.onclick = () => change({ layer }, true);
    const flag = { x: x + width * 0.3, width: width * 0.4, y: 33, height: 2.5, class: "flag" };
    return own && own[9].length ? [bar, svg("rect", flag), all] : [bar, all];
  }));
  const here = numbers(panel);
  const found = arrival(panel);
  $("arrival").hidden = found === null;
  if (found) {
    const button = (layer) => make("button", { textContent: page.layers[layer].name, onclick: () => change({ layer }, true) });
    const { first, lasting, end } = found, name = `${page.layers[end].suggested ? "the suggested layer" : "the last layer"}, ${page.layers[end].name}`;
    $("arrival").replaceChildren(...(first === lasting ? [`Clearly like ${name}, from `, button(first), " on."]
      : [`First clearly like ${name}: `, button(first), ". All are from ", button(lasting), " on."]));
  }
  $("numbers").textContent = Object.entries(SAID).filter(([name]) => here[name] !== null).map(([name, say]) => say(here[name]))
    .join(" \u00b7 ");
}

/** The linked cursor: the cell under the pointer in every panel, and its value. */
let pointed = [null, 0];  // where the pointer is, for when what lies under it changes
function point(event, number) {
  pointed = [event && { clientX: event.clientX, clientY: event.clientY }, number];
  $("reading").textContent = "";
  for (const { mark } of figures) mark.hidden = true;
  if (event === null || !figures[number]) return;
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

// The film strip, drawn as it comes into view.
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
    const button = make("button", { title: layer.name }, canvas, make("span", { textContent: layer.name.split(".").slice(-3).join(".") }));
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
