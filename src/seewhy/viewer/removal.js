// Part 7 of 8: the removal curves of the selected map.

const CURVES = [["most", "most important first"], ["least", "least important first"], ["random", "random order"]];
const CHART = { width: 360, height: 170, left: 44, right: 8, top: 8, bottom: 30 };
let filler = "";  // the selected one, kept while the map changes

const getCurves = (panel) => (panel.versus < 0 && panel.layer !== MEASURED && findEntry(panel)?.[11]) || null;

function buildRemoval() {
  if (!page.maps.some((entry) => entry[11])) return;
  const select = make("select", { id: "filler", onchange: (event) => { filler = event.target.value; updateRemoval(); } });
  const key = CURVES.map(([name, text]) => make("span", {}, make("i", { className: `curve-key ${name}` }), text));
  const details = make("details", { id: "removal", open: true }, make("summary", { textContent: "Removal curves" }),
    make("p", { className: "legend", id: "filler-row" }, make("label", { htmlFor: "filler", textContent: "Covered parts show: " }), select),
    make("p", { className: "legend curve-keys" }, ...key), make("div", { id: "removal-chart" }), make("p", { id: "removal-area" }),
    make("p", { className: "muted legend", textContent: "Area between the curves (symmetric relevance gain): higher is better, 0 is that of a random order." }));
  $("flags").parentElement.after(details);
}

/** Show the curves of the active panel's map; a difference of classes and the measured map have none. */
function updateRemoval() {
  if (!$("removal")) return;
  const panel = getActivePanel(), curves = getCurves(panel);
  $("removal").hidden = curves === null;
  if (curves === null) return;
  const names = Object.keys(curves), name = names.includes(filler) ? filler : names[0], own = curves[name];
  $("filler").replaceChildren(...names.map((text) => new Option(text, text)));
  $("filler").value = name;
  $("filler-row").hidden = names.length < 2;
  const others = page.random_curves?.[panel.target] ?? {}, random = Object.hasOwn(others, name) ? others[name] : [];
  document.querySelector(".curve-keys").lastChild.hidden = !random.length;
  const text = `Area between the curves: ${own.area === null ? "\u2013" : own.area.toFixed(3)}`;
  $("removal-area").replaceChildren(make("b", { textContent: text }));
  $("removal-chart").replaceChildren(drawCurves({ ...own, random }, text));
}

/** Return the chart: the score over the fraction of the image that is covered, and the area between both orders. */
function drawCurves(curves, description) {
  const { width, height, left, right, top, bottom } = CHART, scores = CURVES.flatMap(([name]) => curves[name].map(([, score]) => score));
  const low = Math.min(0, ...scores), high = Math.max(...scores, low + 1e-9);
  const toX = (fraction) => left + fraction * (width - left - right);
  const toY = (score) => top + ((high - score) / (high - low)) * (height - top - bottom);
  const toPath = (points) => points.map(([fraction, score]) => `${toX(fraction).toFixed(1)},${toY(score).toFixed(1)}`);
  const svg = makeSvg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Removal curves. ${description}` });
  const add = (tag, props, text) => {
    const node = svg.appendChild(makeSvg(tag, props));
    if (text !== undefined) node.textContent = text;
    return node;
  };
  add("polygon", { class: "curve-area", points: [...toPath(curves.most), ...toPath(curves.least).reverse()].join(" ") });
  for (const score of new Set([low, high])) {
    add("line", { class: "axis", x1: left, x2: width - right, y1: toY(score), y2: toY(score) });
    add("text", { x: left - 5, y: toY(score) + 4, "text-anchor": "end" }, formatTick(score));
  }
  for (const fraction of [0, 0.5, 1]) {
    const anchor = { 0: "start", 0.5: "middle", 1: "end" }[fraction];
    add("text", { x: toX(fraction), y: height - bottom + 14, "text-anchor": anchor }, `${100 * fraction}%`);
  }
  add("text", { x: toX(0.5), y: height - 3, "text-anchor": "middle" }, "fraction covered");
  add("text", { x: 10, y: toY((low + high) / 2), "text-anchor": "middle", transform: `rotate(-90 10 ${toY((low + high) / 2)})` }, "score");
  for (const [name, text] of [...CURVES].reverse()) {
    add("polyline", { class: `curve ${name}`, points: toPath(curves[name]).join(" ") });
    for (const [fraction, score] of curves[name]) {
      const point = add("circle", { class: `curve-point ${name}`, cx: toX(fraction), cy: toY(score), r: 5 });
      point.append(makeSvg("title", {}));
      point.firstChild.textContent = `${text}, ${Math.round(100 * fraction)}% covered: ${formatNumber(score)}`;
    }
  }
  return svg;
}

const formatTick = (score) => (score === 0 ? "0" : formatNumber(score));
