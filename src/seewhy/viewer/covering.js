// Part 6 of 8: the windows of the check, each with what covering did to the score.

const COVERING = page.covering ?? null, WINDOW_STEPS = 3;

/** Return one window per mask: its mode and its place in fractions of the model's input. */
const windows = (COVERING?.modes ?? []).flatMap((mode, number) => Array.from({ length: WINDOW_STEPS ** 2 }, (_, at) => {
  const start = (step) => (step * (1 - mode.side)) / (WINDOW_STEPS - 1);
  return { ...mode, number, top: start(Math.floor(at / WINDOW_STEPS)), left: start(at % WINDOW_STEPS) };
}));
const windowButtons = [];
let shownWindow = -1;
const formatShort = (value) => (Math.abs(value) < 100 ? String(+value.toPrecision(2)) : formatNumber(value));

function buildCovering() {
  if (COVERING === null) return;
  const groups = COVERING.modes.map((mode, number) => {
    const buttons = windows.map((window, index) => [window, index]).filter(([window]) => window.number === number)
      .map(([window, index]) => makeWindowButton(window, index));
    const text = `${mode.keeps ? "Only this window visible" : "This window covered"} (${mode.name} of the side)`;
    const grid = make("div", { className: "window-grid" }, ...buttons);
    grid.setAttribute("role", "group");
    grid.setAttribute("aria-label", text);
    return make("div", {}, make("p", { className: "legend", textContent: text }), grid, make("p", { className: "muted legend window-range" }));
  });
  const reading = "Gray or dashed: covered. Strong color: the window matters. Visible alone, it keeps the score; covered, it lowers the score.";
  const details = make("details", { id: "covering" }, make("summary", { textContent: "Covered windows" }),
    make("p", { id: "window-text" }), make("div", { id: "window-groups" }, ...groups), make("p", { className: "muted legend", textContent: reading }));
  details.ontoggle = () => { if (!details.open) showWindow(-1); };
  $("cursor-values").after(details);
}

function makeWindowButton(window, index) {
  const button = make("button", { className: window.keeps ? "keep" : "hide", tabIndex: index % WINDOW_STEPS ** 2 ? -1 : 0 }, make("i"));
  const toPercent = (fraction) => `${100 * fraction}%`;
  Object.assign(button.firstChild.style, { left: toPercent(window.left), top: toPercent(window.top),
    width: toPercent(window.side), height: toPercent(window.side) });
  const [left, upper, right, lower] = COVERING.box;
  button.style.aspectRatio = `${right - left} / ${lower - upper}`;
  button.onpointerenter = button.onfocus = button.onclick = () => showWindow(index);
  button.onpointerleave = button.onblur = () => showWindow(-1);
  button.onkeydown = (event) => moveFocus(event, index);
  windowButtons.push(button);
  return button;
}

/** Move the focus between the nine windows of a mode: they are one tab stop, as the layers are. */
function moveFocus(event, index) {
  const count = WINDOW_STEPS ** 2, at = index % count, row = Math.floor(at / WINDOW_STEPS), column = at % WINDOW_STEPS;
  const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [0, 0];
  if (!down && !right) return;
  event.preventDefault();
  event.stopPropagation();  // otherwise the key selects another layer
  const limit = (step) => Math.min(Math.max(step, 0), WINDOW_STEPS - 1);
  const next = windowButtons[index - at + limit(row + down) * WINDOW_STEPS + limit(column + right)];
  windowButtons[index].tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

function describeDrop(drop, { unit }) {
  const name = page.targets[getActivePanel().target].name;
  return `the ${unit} of "${name}" ${drop < 0 ? "rise" : "drop"}${unit === "score" ? "s" : ""} by ${formatNumber(Math.abs(drop))}`;
}

function describeWindow(index, drops) {
  return `${windows[index].keeps ? "Only this window visible" : "This window covered"}: ${describeDrop(drops.values[index], drops)}.`;
}

/** Color the windows by the drops of the active panel's target: from the weakest to the strongest effect of each mode. */
function updateCovering() {
  if (COVERING === null) return;
  const drops = COVERING.targets[getActivePanel().target], values = drops?.values ?? [];
  $("covering").hidden = drops === null;
  $("window-groups").hidden = !values.length;
  if (drops === null) return;
  COVERING.modes.forEach((mode, number) => {
    const own = windows.flatMap((window, index) => (window.number === number && values.length ? [values[index]] : []));
    const low = Math.min(...own), high = Math.max(...own);
    document.querySelectorAll(".window-range")[number].textContent = `drop ${formatShort(low)} to ${formatShort(high)}`;
    windows.forEach((window, index) => {
      if (window.number !== number || !values.length) return;
      const part = (values[index] - low) / (high - low || 1), strength = mode.keeps ? 1 - part : part;
      windowButtons[index].style.setProperty("--strength", `${Math.round(100 * strength)}%`);
      windowButtons[index].setAttribute("aria-label", describeWindow(index, drops));
    });
  });
  showWindow(shownWindow);
}

/** Outline a window on all panels and describe its effect; -1: none. */
function showWindow(index) {
  if (COVERING === null) return;
  shownWindow = index;
  const drops = COVERING.targets[getActivePanel().target], window = windows[index];
  const [height, width] = page.view.photo_size, [left, upper, right, lower] = COVERING.box;
  for (const { marker } of figures) {
    marker.parentElement.querySelector(".window-layer")?.remove();
    if (!window) continue;
    const outline = make("div", { className: `window-marker ${window.keeps ? "keep" : "hide"}` });
    marker.parentElement.append(make("div", { className: "window-layer" }, outline));
    Object.assign(outline.style, {
      left: `${(100 * (left + window.left * (right - left))) / width}%`, width: `${(100 * window.side * (right - left)) / width}%`,
      top: `${(100 * (upper + window.top * (lower - upper))) / height}%`, height: `${(100 * window.side * (lower - upper)) / height}%`,
    });
  }
  if (drops) $("window-text").textContent = window ? describeWindow(index, drops) : describeAll(drops);
}

function describeAll(drops) {
  if (drops.reason) return `Nothing to compare: ${drops.reason}.`;
  const all = drops.all === null ? "" : `Everything covered: ${describeDrop(drops.all, drops)}. `;
  return `${all}Point at a window, or at the image.`;
}

/** Mark the windows that contain a point of the photo, and describe the covered window whose center is closest to it. */
function markWindowsAt(x, y) {
  if (COVERING === null || !$("covering").open) return;
  const [left, upper, right, lower] = COVERING.box, across = (x - left) / (right - left), down = (y - upper) / (lower - upper);
  const contains = (start, side, place) => place >= start && place < start + side;
  const distance = (window) => Math.hypot(window.left + window.side / 2 - across, window.top + window.side / 2 - down);
  let closest = -1;
  windows.forEach((window, index) => {
    const isInside = contains(window.left, window.side, across) && contains(window.top, window.side, down);
    windowButtons[index].classList.toggle("at-pointer", isInside);
    if (isInside && !window.keeps && (closest < 0 || distance(window) < distance(windows[closest]))) closest = index;
  });
  const drops = COVERING.targets[getActivePanel().target];
  if (!drops?.values.length) return;
  if (closest >= 0) $("window-text").textContent = describeWindow(closest, drops).replace("This window", "The window around the pointer");
  else if (shownWindow < 0) $("window-text").textContent = describeAll(drops);
}
