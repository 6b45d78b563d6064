// Part 4 of 8: the panels, their captions, and the linked cursor.

let frameRequest = 0, idleTimer = 0;
function scheduleRender() {
  if (frameRequest) return;
  frameRequest = requestAnimationFrame(() => {
    frameRequest = 0;
    const start = performance.now();
    state.panels.forEach((panel, number) => paintOverlay(figures[number].canvas, panel));
    window.seewhy.redraw = performance.now() - start;
    updateControls();
    setTimeout(drawChart);  // after the overlay: for a new target, the chart reads the maps of all layers
    clearTimeout(idleTimer);
    idleTimer = setTimeout(() => { paintThumbnails(); saveState(); }, 120);
  });
}

function saveState() {
  if (IN_APP) parent.postMessage({ fragment: encodeState() }, "*");
  try { history.replaceState(null, "", encodeState()); } catch { /* a notebook's srcdoc frame has no URL */ }
}

const figures = [];
function buildPanels() {
  state.panels.forEach(makeValid);
  $("panels").replaceChildren();
  figures.length = 0;
  state.panels.forEach((panel, number) => {
    const canvas = make("canvas", { width: photo.naturalWidth, height: photo.naturalHeight, tabIndex: 0 });
    canvas.setAttribute("role", "img");
    const marker = make("div", { className: "cell-marker", hidden: true });
    const caption = make("figcaption");
    const close = make("button", { className: "close", textContent: "\u00d7", title: "Close this panel" });
    close.setAttribute("aria-label", "Close this panel");
    close.onclick = () => {
      state.panels.splice(number, 1);
      state.active = Math.min(state.active, state.panels.length - 1);
      buildPanels();
    };
    close.hidden = state.panels.length < 2;
    const figure = make("figure", {}, make("div", { className: "stage" }, canvas, marker), caption, close);
    figure.onpointerdown = figure.onfocusin = () => { if (state.active !== number) updateState({ active: number }); };
    canvas.onpointermove = (event) => showCursorValues(event, number);
    canvas.onpointerleave = () => showCursorValues(null);
    canvas.onwheel = (event) => {
      if (event.ctrlKey) return;
      event.preventDefault();
      if (state.active !== number) state.active = number;
      stepLayer(Math.sign(event.deltaY));
    };
    $("panels").append(figure);
    figures.push({ figure, canvas, caption, marker });
  });
  $("panels").dataset.count = state.panels.length;
  $("add").disabled = state.panels.length > 3;
  scheduleRender();
}

function describeTarget(panel) {
  const name = page.targets[panel.target].name;
  return panel.versus < 0 ? name : `${name} vs. ${page.targets[panel.versus].name}`;
}

/** Return the method and the layer of a panel's map. */
const describeMap = ({ method, layer }) => [...(layer === MEASURED ? [] : [page.methods[method].key]), page.layers[layer].name];

function describeEvidence(panel) {
  const name = page.targets[panel.target].name;
  if (panel.layer === MEASURED) return `covering lowers "${name}" most`;
  return `evidence for "${name}"${panel.versus < 0 ? "" : ` minus evidence for "${page.targets[panel.versus].name}"`}`;
}

const MEASURED_TEXT = "Measured: where covering parts of the image lowers the score more than average. It depends on no method and no layer.";

/** Bring all captions and controls up to date with the state. */
function updateControls() {
  state.panels.forEach((panel, number) => {
    const { figure, canvas, caption } = figures[number], layer = page.layers[panel.layer];
    figure.classList.toggle("active", number === state.active && state.panels.length > 1);
    const text = [describeTarget(panel), ...describeMap(panel), ...(layer.measured ? [layer.kind] : [])].join(" \u00b7 ");
    caption.textContent = text;
    canvas.setAttribute("aria-label", `Heatmap: ${text}`);
  });
  const panel = getActivePanel(), layers = getChoices(panel), isMeasured = panel.layer === MEASURED;
  document.body.classList.toggle("single-layer", layers.length < 2);
  updateLayerControls(panel, layers);
  $("method").value = panel.method;
  $("versus").value = panel.versus;
  for (const option of $("versus").options) option.disabled = +option.value === panel.target;
  $("swap").disabled = panel.versus < 0;
  $("versus").disabled = !page.methods[panel.method].linear || page.targets.length < 2;
  document.querySelectorAll("#targets input").forEach((input, number) => { input.checked = number === panel.target; });
  for (const key of ["colors", "scale"]) $(key).value = state[key];
  $("chart-statistic").value = state.chart;
  for (const key of ["opacity", "threshold"]) {
    $(key).value = state[key];
    $(`${key}-value`).textContent = formatPercent(state[key]);
  }
  for (const key of ["fade", "smooth"]) $(key).checked = state[key];
  const table = colors[state.colors], stops = [0, 32, 64, 96, 128, 160, 192, 224, 255].map((level) => `rgb(${table.slice(level * 3, level * 3 + 3)})`);
  $("color-ramp").style.background = `linear-gradient(90deg, ${stops})`;
  $("least-label").textContent = isMeasured ? "average or less" : state.scale === "minmax" ? "least" : "none";
  $("evidence-label").textContent = describeEvidence(panel);
  const check = isMeasured ? { text: MEASURED_TEXT, verdict: "" } : findCheck(panel);
  $("verdict").hidden = check === null;
  $("verdict").textContent = check?.text ?? "";
  $("verdict").dataset.verdict = check?.verdict ?? "";
  $("play").hidden = getLayers(panel.method).length < 2;
  updateCovering();
  updateRemoval();
  showCursorValues(...cursor);
}

function updateLayerControls(panel, layers) {
  const layer = page.layers[panel.layer], entry = findEntry(panel), place = layers.indexOf(panel.layer);
  $("layer").max = layers.length - 1;
  $("layer").value = place;
  $("layer").setAttribute("aria-valuetext", layer.name);
  $("layer-name").textContent = layer.name;
  $("layer-details").textContent = [`${place + 1} of ${layers.length}`, layer.kind, layer.grid.join("\u00d7"),
    layer.channels ? `${layer.channels} channels` : "", layer.suggested ? "suggested" : ""].filter(Boolean).join(" \u00b7 ");
  const flags = entry ? entry[9].map((flag) => page.flags[flag]) : ["no map for this layer"];
  $("flags").replaceChildren(...[...flags, layer.note].filter(Boolean).map((textContent) => make("li", { textContent })));
  document.querySelectorAll("#filmstrip button").forEach((button) => {
    const isCurrent = +button.dataset.layer === panel.layer;
    button.setAttribute("aria-current", isCurrent);
    button.hidden = !layers.includes(+button.dataset.layer);
    button.tabIndex = isCurrent ? 0 : -1;  // one tab stop; the arrow keys move between layers
    if (isCurrent && button !== document.activeElement) {
      const strip = $("filmstrip");
      strip.scrollTo({ left: button.offsetLeft - strip.clientWidth / 2 + button.clientWidth / 2 });
    }
  });
}

/** Show the cell under the pointer and its value in every panel. */
let cursor = [null, 0];  // the pointer position and its panel, to refresh the values when the map changes under the pointer
function showCursorValues(event, number) {
  cursor = [event && { clientX: event.clientX, clientY: event.clientY }, number];
  $("cursor-values").textContent = "";
  for (const { marker } of figures) marker.hidden = true;
  markWindowsAt(-1, -1);
  if (event === null || !figures[number]) return;
  const canvas = figures[number].canvas, frame = canvas.getBoundingClientRect();
  const [height, width] = page.view.photo_size, [left, upper, right, lower] = page.view.box;
  const x = ((event.clientX - frame.left) / frame.width) * width, y = ((event.clientY - frame.top) / frame.height) * height;
  const across = (x - left) / (right - left), down = (y - upper) / (lower - upper);
  if (across < 0 || across >= 1 || down < 0 || down >= 1) {
    $("cursor-values").textContent = "Outside the model's input";
    return;
  }
  markWindowsAt(x, y);
  const texts = state.panels.map((panel, at) => {
    const map = getMap(panel);
    if (map === null) return "no map";
    const row = Math.floor(down * map.rows), column = Math.floor(across * map.columns);
    const value = map.values[row * map.columns + column], maximum = getScaleMaximum(panel);
    const toPercent = (size, from, to, cell, cells) => 100 * (from + ((to - from) * cell) / cells) / size;
    Object.assign(figures[at].marker.style, {
      left: `${toPercent(width, left, right, column, map.columns)}%`, top: `${toPercent(height, upper, lower, row, map.rows)}%`,
      width: `${(100 * (right - left)) / map.columns / width}%`, height: `${(100 * (lower - upper)) / map.rows / height}%`,
    });
    figures[at].marker.hidden = false;
    const remark = value < 0 ? (panel.layer === MEASURED ? "less than average" : "negative evidence") : maximum ? `${Math.round((100 * value) / maximum)}% of the maximum` : "";
    return `cell ${row},${column}: ${formatNumber(value)}${remark ? ` (${remark})` : ""}`;
  });
  $("cursor-values").textContent = texts.join("   |   ");
}
