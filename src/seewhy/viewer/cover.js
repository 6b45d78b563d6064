// Cover parts of the photo of the shown report: the server fills them and returns the new probabilities.
const SVG = "http://www.w3.org/2000/svg";
const STEP = 0.02, SMALLEST = 0.01;  // of the photo, for arrow keys
const DRAG_PIXELS = 4;  // a shorter drag is a click
const BURST = 30;  // milliseconds to wait for further shapes
const HELP = { rectangle: "Drag over the image, or press arrow keys and Enter.", brush: "Paint over the image." };
const cover = {
  states: [[]],  // the covered shapes after each step, for Undo; shapes are as the server reads them
  answer: null,  // {photo, visible, changes} of the last response
  request: null,
  draft: null,  // the rectangle that is being drawn, in fractions of the photo
  stroke: null,  // the stroke that is being painted
  pending: null,  // the shape that the server has not yet filled
};

const getShapes = () => cover.states.at(-1);
const getTool = () => document.querySelector("input[name=tool]:checked").value;
const getFiller = () => ($("filler").value === "color" ? $("fill-color").value : $("filler").value);
const round = (fraction) => Math.round(1e4 * Math.min(1, Math.max(0, fraction))) / 1e4;
const formatPercent = (value) => (value === null ? "not finite" : `${(100 * value).toFixed(1)}%`);

/** Format a change in percentage points, with a minus sign, and without a sign where it rounds to 0. */
function formatPoints(before, after) {
  if (before === null || after === null) return "";
  const text = Math.abs(100 * (after - before)).toFixed(1);
  return text === "0.0" ? text : `${after < before ? "\u2212" : "+"}${text}`;
}

function showCoverProblem(text) {
  $("cover-problem").hidden = !text;
  $("cover-problem").textContent = text;
}

function setCoverOpen(isOpen) {
  $("cover").hidden = !isOpen;
  $("main").classList.toggle("covering", isOpen);
  $("cover-button").setAttribute("aria-expanded", isOpen);
  if (isOpen && cover.answer === null) sendShapes();
  if (!isOpen) cover.request?.abort();
}

/** Start again with the photo of another report. */
function resetCover() {
  cover.request?.abort();
  Object.assign(cover, { states: [[]], answer: null, draft: null, stroke: null, pending: null });
  $("cover-work").hidden = true;
  showCoverProblem("");
  if (!$("cover").hidden) sendShapes();
}

/** Send the photo with the covered shapes, and show the answer. A newer request replaces one that is still running. */
async function sendShapes() {
  const { source, model, fit } = getReport(), current = new AbortController();
  cover.request?.abort();
  cover.request = current;
  $("cover").setAttribute("aria-busy", true);
  showCoverProblem("");
  $("undo").disabled = cover.states.length < 2;
  $("cover-reset").disabled = !getShapes().length;
  await new Promise((resolve) => setTimeout(resolve, BURST));  // of several shapes at once, only the last state is sent
  if (cover.request !== current || current.signal.aborted) return;
  try {
    const body = new Blob([JSON.stringify(getShapes()), "\n", ...(source.sample ? [] : [source])]);
    const { cover: answer } = await fetchResult(buildUrl("/cover", source, { model, fit, filler: getFiller() }), body, current.signal,
      ({ waiting }) => { if (waiting) $("cover-summary").textContent = "waiting for an earlier request"; });
    if (cover.request !== current) return;
    cover.answer = answer;
    cover.pending = null;
    showAnswer();
  } catch (error) {
    if (error.name === "AbortError" || cover.request !== current) return;
    const reason = await describeError(error, source);
    showCoverProblem(cover.answer === null ? `Parts of this image cannot be covered: ${reason}` : reason);
  }
  cover.request = null;
  $("cover").removeAttribute("aria-busy");
}

function showAnswer() {
  const { photo, changes, visible } = cover.answer, count = getShapes().length;
  $("cover-work").hidden = false;
  $("cover-photo").src = photo;
  $("cover-photo").alt = `The photo with ${count} covered part${count === 1 ? "" : "s"}`;
  const isCropped = visible.some((edge, at) => Math.abs(edge - (at < 2 ? 0 : 1)) > 0.005);
  $("cover-help").textContent = `${HELP[getTool()]}${isCropped ? " The model does not receive the dimmed part." : ""}`;
  const before = changes.reduce((best, one) => ((one.before ?? -1) > (best.before ?? -1) ? one : best));
  const now = changes.reduce((best, one) => ((one.after ?? -1) > (best.after ?? -1) ? one : best));
  $("cover-summary").textContent = !count ? `Predicted: ${before.name}, ${formatPercent(before.before)}.`
    : `${before.name}: ${formatPercent(before.before)} \u2192 ${formatPercent(before.after)}.${now === before ? "" : ` Now predicted: ${now.name}, ${formatPercent(now.after)}.`}`;
  $("changes").tBodies[0].replaceChildren(...changes.map((one) => makeRow(one, one === now)));
  drawMarks();
}

function makeRow({ name, before, after, is_new: isNew }, isPredicted) {
  const points = formatPoints(before, after);
  const makeBar = (className, value) => {
    const bar = make("i", { className });
    bar.style.width = `${100 * (value ?? 0)}%`;
    return bar;
  };
  const bars = make("span", { className: "bars" }, makeBar("before", before), makeBar("after", after));
  bars.setAttribute("aria-hidden", true);
  const heading = make("th", { scope: "row" }, make("bdi", { textContent: name }), isNew ? make("small", { textContent: " new in the top 5" }) : "", bars);
  const change = make("td", { textContent: points, className: /^\u2212/.test(points) ? "down" : /^\+/.test(points) ? "up" : "muted" });
  return make("tr", { className: isPredicted ? "predicted" : "" }, heading, make("td", { textContent: formatPercent(before) }),
    make("td", { textContent: formatPercent(after), className: "now" }), change);
}

/** Draw what is not in the photo itself: the part outside the model's input, the draft, and a shape that is not filled yet. */
function drawMarks() {
  const { naturalWidth: width, naturalHeight: height } = $("cover-photo"), marks = [];
  const add = (kind, attributes) => {
    const node = document.createElementNS(SVG, kind);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    marks.push(node);
  };
  if (!width) return;
  const [left, top, right, bottom] = cover.answer.visible.map((edge, at) => edge * (at % 2 ? height : width));
  add("path", { class: "outside", "fill-rule": "evenodd", d: `M0 0H${width}V${height}H0ZM${left} ${top}H${right}V${bottom}H${left}Z` });
  const rectangle = cover.draft ?? (cover.pending?.type === "rectangle" ? cover.pending : null);
  if (rectangle) {
    const place = { x: rectangle.left * width, y: rectangle.top * height,
      width: (rectangle.right - rectangle.left) * width, height: (rectangle.bottom - rectangle.top) * height };
    add("rect", { class: "contrast", ...place });
    add("rect", { class: "draft", ...place });
  }
  const stroke = cover.stroke ?? (cover.pending?.type === "stroke" ? cover.pending : null);
  if (stroke) {
    const points = stroke.points.map(([x, y]) => [x * width, y * height]);
    add("polyline", { class: "painted", "stroke-width": 2 * stroke.radius * Math.max(width, height),
      points: [...points, points.at(-1)].map(([x, y]) => `${x},${y}`).join(" ") });
  }
  $("cover-marks").setAttribute("viewBox", `0 0 ${width} ${height}`);
  $("cover-marks").replaceChildren(...marks);
  showNumbers();
}

const countPoints = (shapes) => shapes.reduce((sum, { points = [] }) => sum + points.length, 0);

/** Cover one more shape. */
function addShape(shape) {
  const shapes = [...getShapes(), shape], { limits } = choices;
  Object.assign(cover, { draft: null, stroke: null });
  if (shapes.length > limits.shapes || countPoints(shapes) > limits.points) {
    drawMarks();
    return showCoverProblem(`More than ${limits.shapes} parts or ${limits.points.toLocaleString("en")} points of strokes. Undo some, or reset.`);
  }
  cover.pending = shape;
  cover.states.push(shapes);
  drawMarks();
  sendShapes();
}

function coverDraft() {
  const { left, top, right, bottom } = cover.draft;
  addShape({ type: "rectangle", left, top, right, bottom });
}

function undoShape() {
  if (cover.states.length < 2) return;
  cover.states.pop();
  cover.pending = cover.draft = null;
  sendShapes();
}

function uncoverAll() {
  if (!getShapes().length) return;
  cover.states.push([]);  // so that Undo restores the shapes
  cover.pending = cover.draft = null;
  sendShapes();
}

/** Return where a pointer is, in fractions of the photo. */
function locate(event) {
  const box = $("cover-photo").getBoundingClientRect();
  return [round((event.clientX - box.left) / box.width), round((event.clientY - box.top) / box.height)];
}

function connectPointer() {
  const stage = $("cover-stage");
  let start = null;  // of the drag: {x, y, clientX, clientY}
  const draw = (event) => {
    const [x, y] = locate(event), { naturalWidth, naturalHeight } = $("cover-photo");
    if (cover.stroke) {
      const [lastX, lastY] = cover.stroke.points.at(-1), longer = Math.max(naturalWidth, naturalHeight);
      const distance = Math.hypot((x - lastX) * naturalWidth, (y - lastY) * naturalHeight) / longer;
      if (distance > cover.stroke.radius / 4) cover.stroke.points.push([x, y]);
    } else {
      cover.draft = { left: Math.min(x, start.x), top: Math.min(y, start.y), right: Math.max(x, start.x), bottom: Math.max(y, start.y) };
    }
    drawMarks();
  };
  const cancel = () => {
    start = cover.draft = cover.stroke = null;
    drawMarks();
  };
  stage.onpointerdown = (event) => {
    if (event.button !== 0 || !event.isPrimary) return;
    const [x, y] = locate(event);
    start = { x, y, clientX: event.clientX, clientY: event.clientY };
    cover.draft = null;
    if (getTool() === "brush") cover.stroke = { type: "stroke", points: [[x, y]], radius: $("brush-size").value / 200 };
    stage.setPointerCapture(event.pointerId);
    drawMarks();
  };
  stage.onpointermove = (event) => { if (start) draw(event); };
  stage.onpointerup = (event) => {
    if (!start) return;
    draw(event);
    const isDrag = Math.abs(event.clientX - start.clientX) >= DRAG_PIXELS && Math.abs(event.clientY - start.clientY) >= DRAG_PIXELS;
    start = null;
    if (cover.stroke) addShape(cover.stroke);
    else if (isDrag && cover.draft.left < cover.draft.right && cover.draft.top < cover.draft.bottom) coverDraft();
    else cancel();
  };
  stage.onpointercancel = cancel;
}

/** Move the rectangle by arrow keys; with Shift, move its right and bottom edges. */
function moveDraft(across, down, resizes) {
  cover.draft ??= { left: 0.4, top: 0.4, right: 0.6, bottom: 0.6 };
  const { left, top, right, bottom } = cover.draft, width = right - left, height = bottom - top;
  if (resizes) {
    Object.assign(cover.draft, { right: round(Math.max(left + SMALLEST, right + across)), bottom: round(Math.max(top + SMALLEST, bottom + down)) });
  } else {
    const x = Math.min(1 - width, Math.max(0, left + across)), y = Math.min(1 - height, Math.max(0, top + down));
    cover.draft = { left: round(x), top: round(y), right: round(x + width), bottom: round(y + height) };
  }
  drawMarks();
}

function connectKeys() {
  const moves = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
  $("cover-stage").onkeydown = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (moves[event.key]) moveDraft(...moves[event.key], event.shiftKey);
    else if (event.key === "Enter" && cover.draft) coverDraft();
    else if (event.key === "Escape" && cover.draft) { cover.draft = null; drawMarks(); }
    else return;
    event.preventDefault();
  };
  document.addEventListener("keydown", (event) => {
    const isText = event.target.matches("input:not([type=radio], [type=range], [type=color])");
    if (event.key !== "z" || !(event.ctrlKey || event.metaKey) || event.shiftKey || isText || $("cover").hidden) return;
    event.preventDefault();
    undoShape();
  });
}

/** Show the rectangle in the number fields, unless the user is typing there. */
function showNumbers() {
  const form = $("rectangle");
  if (!cover.draft || form.contains(document.activeElement)) return;
  const { left, top, right, bottom } = cover.draft;
  for (const [name, value] of Object.entries({ left, top, width: right - left, height: bottom - top })) form.elements[name].value = (100 * value).toFixed(1);
}

function readNumbers() {
  const [left, top, width, height] = ["left", "top", "width", "height"].map((name) => $("rectangle").elements[name].valueAsNumber / 100);
  const right = round(left + width), bottom = round(top + height);
  cover.draft = $("rectangle").checkValidity() && left < right && top < bottom ? { left: round(left), top: round(top), right, bottom } : null;
  drawMarks();
}

function connectCover() {
  $("cover-button").onclick = () => setCoverOpen($("cover").hidden);
  $("cover-close").onclick = () => { setCoverOpen(false); $("cover-button").focus(); };
  $("undo").onclick = undoShape;
  $("cover-reset").onclick = uncoverAll;
  $("cover-photo").onload = drawMarks;
  $("filler").onchange = () => { $("fill-color").hidden = $("filler").value !== "color"; sendShapes(); };
  $("fill-color").onchange = sendShapes;
  for (const input of document.querySelectorAll("input[name=tool]")) {
    input.onchange = () => { $("brush-label").classList.toggle("unused", getTool() !== "brush"); showAnswer(); };
  }
  $("rectangle").oninput = readNumbers;
  $("rectangle").onsubmit = (event) => {
    event.preventDefault();
    readNumbers();
    if (cover.draft) coverDraft();
  };
  connectPointer();
  connectKeys();
}
