// Part 5 of 8: the bar chart of all layers and the filmstrip.

const makeSvg = (tag, props) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(props)) node.setAttribute(key, value);
  return node;
};

/** Draw one bar per layer for the selected statistic, and a red mark under each layer with flags. Peaks span several orders of
 * magnitude, so their bars are logarithmic, from a tenth of the smallest peak to the largest. */
function drawChart() {
  const panel = getActivePanel(), layers = getChoices(panel), statistic = state.chart;
  const gap = layers.includes(MEASURED) ? 0.4 : 0, width = 100 / (layers.length + gap);  // between the layers and the measured map
  const values = layers.map((layer) => computeStatistics({ ...panel, layer })[statistic]);
  const logs = values.filter((value) => value > 0).map(Math.log10), low = Math.min(...logs) - 1, high = Math.max(...logs);
  const toHeight = (value) => (value === null ? 0 : 30 * Math.max(0, statistic === "peak" ? (Math.log10(value) - low) / (high - low || 1) : value));
  let hasFlags = false;
  $("chart").replaceChildren(...layers.flatMap((layer, place) => {
    const entry = findEntry({ ...panel, layer }), value = values[place], height = toHeight(value);
    const x = (place + (layer === MEASURED ? gap : 0)) * width, isCurrent = layer === panel.layer;
    const bar = makeSvg("rect", { x: x + width * 0.12, width: width * 0.76, y: 30 - height, height,
      class: `bar${layer === MEASURED ? " measured" : ""}${isCurrent ? " current" : ""}` });
    const area = makeSvg("rect", { x, width, y: 0, height: 36, class: "click-area" });
    area.append(makeSvg("title", {}));
    area.firstChild.textContent = `${page.layers[layer].name}: ${value === null ? (layer === MEASURED ? "not defined" : "no evidence") : STATISTIC_TEXTS[statistic](value)}`;
    area.onclick = () => updatePanel({ layer });
    if (!entry?.[9].length) return [bar, area];
    hasFlags = true;
    return [bar, makeSvg("rect", { x: x + width * 0.3, width: width * 0.4, y: 33, height: 2.5, class: "red-mark" }), area];
  }));
  $("red-mark").hidden = !hasFlags;
  showCorrelatedLayers(panel);
  const own = computeStatistics(panel);
  $("layer-statistics").textContent = Object.entries(STATISTIC_TEXTS).filter(([name]) => own[name] !== null)
    .map(([name, format]) => format(own[name])).join(" \u00b7 ");
}

function showCorrelatedLayers(panel) {
  const correlated = findCorrelatedLayers(panel);
  $("first-correlated").hidden = correlated === null;
  if (correlated === null) return;
  const makeButton = (layer) => make("button", { textContent: page.layers[layer].name, onclick: () => updatePanel({ layer }) });
  const { first, lasting, reference } = correlated, { name, suggested } = page.layers[reference];
  const start = `Correlation with ${name} (the ${suggested ? "suggested" : "last"} layer)`;
  $("first-correlated").replaceChildren(...(first === lasting
    ? [`${start} is at least ${CORRELATED} from `, makeButton(first), " on."]
    : [`${start} first reaches ${CORRELATED} at `, makeButton(first), " and stays above it from ", makeButton(lasting), " on."]));
}

// Thumbnails are painted only while they are visible.
const visibleButtons = new Set();
const observer = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) visibleButtons.add(target);
    else visibleButtons.delete(target);
  }
  paintThumbnails();
}, { root: $("filmstrip"), rootMargin: "0px 200px" });

function buildFilmstrip() {
  const ratio = photo.naturalHeight / photo.naturalWidth;
  $("filmstrip").replaceChildren(...page.layers.map((layer, number) => {
    const canvas = make("canvas", { width: ratio > 1 ? Math.round(84 / ratio) : 84, height: ratio > 1 ? 84 : Math.round(84 * ratio) });
    const button = make("button", { title: layer.name }, canvas, make("span", { textContent: layer.measured ? "measured" : layer.name.split(".").slice(-3).join(".") }));
    button.setAttribute("aria-label", layer.measured ? "Measured map" : `Layer ${layer.name}`);
    button.classList.toggle("measured", Boolean(layer.measured));
    button.dataset.layer = number;
    button.onclick = () => updatePanel({ layer: number });
    observer.observe(button);
    return button;
  }));
}

function paintThumbnails() {
  for (const button of visibleButtons) paintOverlay(button.firstChild, { ...getActivePanel(), layer: +button.dataset.layer });
}
