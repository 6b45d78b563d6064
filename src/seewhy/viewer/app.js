// The local app: it sends an image to the server and shows the returned report in a sandboxed frame.
const $ = (id) => document.getElementById(id);
const make = (tag, props = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children);
  return node;
};
const TOKEN = location.hash.slice(1);  // browsers never send the fragment to a server
const HISTORY_LENGTH = 12;
const send = (path, options = {}) => fetch(path, { ...options, headers: { Authorization: `Bearer ${TOKEN}` } });
const addedClasses = [];
const reports = [];  // {title, text, fragment, source, model, fit}, newest first; the fragment is the state of the report page
let choices, image = null, shownImage = null, request = null, frame = null;  // the image of the last request, and of the last report

function showProblem(text) {
  $("problem").hidden = !text;
  $("problem-text").textContent = text;
}

const getModel = () => choices.models[+$("model").value];
const getMethods = () => [...document.querySelectorAll("#methods input:checked")].map((input) => input.value);

/** Build a request URL. All values are from the server's lists, except the file name, which is only displayed. */
function buildUrl(path, source, settings) {
  const query = new URLSearchParams(settings);
  if (source.sample) query.set("sample", source.sample);
  else query.set("name", source.name);
  return `${path}?${query}`;
}

const formatTime = (seconds) => (seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.round(seconds / 60)} min`);

/** Show one event of the response. */
function showProgress(event, timer) {
  if (event.waiting) $("status").textContent = `waiting for ${event.waiting} earlier request${event.waiting > 1 ? "s" : ""}`;
  $("status").setAttribute("aria-live", event.total ? "off" : "polite");  // screen readers must not read every progress update
  if (event.started) {
    $("status").textContent = "computing";
    timer.start = performance.now();
  }
  if (event.total && event.done) {
    const left = ((performance.now() - timer.start) / 1000 / event.done) * (event.total - event.done);
    Object.assign($("progress"), { hidden: false, max: event.total, value: event.done });
    $("status").textContent = `${event.done.toLocaleString("en")} of ${event.total.toLocaleString("en")} forward passes, ${formatTime(left)} left`;
  }
}

/** Send an image and read the response until the event with the result. The other events are passed to `onEvent`. */
async function fetchResult(url, body, signal, onEvent) {
  const response = await send(url, { method: "POST", body, signal });
  if (!response.ok) {
    const { error } = await response.json().catch(() => ({ error: `the server refused the request (status ${response.status}); try again` }));
    throw Object.assign(new Error(error), { isImageError: [413, 415].includes(response.status) });
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let parts = [];
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the server closed the connection before the result was complete");
    parts.push(value);
    if (!value.includes("\n")) continue;  // a report is one long line
    const lines = parts.join("").split("\n");
    parts = [lines.pop()];
    for (const event of lines.map((line) => JSON.parse(line))) {
      if (event.error) throw Object.assign(new Error(event.error), { isImageError: event.image_error });
      if (event.page !== undefined || event.cover !== undefined) return event;
      onEvent(event);
    }
  }
}

/** Explain an image. It replaces the previous image only after it was explained successfully. */
async function explain(source = image) {
  if (source === null) return showProblem("Choose an image first.");
  request?.abort();
  image = source;
  const current = new AbortController(), sent = performance.now(), timer = { start: sent };
  const settings = { model: $("model").value, methods: getMethods().join(), top: $("top").value,
    classes: addedClasses.join("\n"), layers: $("layers").value, fit: $("fit").value };
  const title = `${source.name} \u00b7 ${getModel().name} \u00b7 ${$("settings-button").textContent}`;
  request = current;
  showProblem("");
  if (source.size > choices.limits.bytes) {
    image = shownImage;
    return finish(current, `${source.name}: larger than ${choices.limits.bytes / 2 ** 20} MB. Choose a smaller file.`);
  }
  $("stop").hidden = false;
  $("status").textContent = "uploading";
  try {
    const url = buildUrl("/explain", source, settings);
    const { page } = await fetchResult(url, source.sample ? null : source, current.signal, (event) => showProgress(event, timer));
    if (request !== current) return;
    shownImage = source;
    addReport({ title, text: page, source, model: settings.model, fit: settings.fit });
    finish(current, "", `${((performance.now() - sent) / 1000).toFixed(1)} s`);
  } catch (error) {
    if (error.name === "AbortError") return finish(current, "", "stopped");
    if (error.isImageError && request === current) image = shownImage;  // do not send an unreadable image again
    finish(current, await describeError(error, source));
  }
}

async function describeError(error, source) {
  if (!(error instanceof TypeError)) return error.message;
  const isGone = source.slice && await source.slice(0, 1).arrayBuffer().then(() => false, () => true);
  return isGone ? `${source.name}: the file can no longer be read. Choose it again.`
    : "The server does not respond. Check that it is still running in its terminal.";
}

function finish(controller, text, status = "") {
  if (request !== controller) return;  // a newer request is running
  request = null;
  $("stop").hidden = $("progress").hidden = true;
  $("status").textContent = status;
  showProblem(text);
}

function addReport(report) {
  reports.unshift({ ...report, fragment: getReport()?.fragment ?? "" });
  reports.length = Math.min(reports.length, HISTORY_LENGTH);
  $("history").replaceChildren(...reports.map((report, number) => new Option(report.title, number)));
  $("history-label").hidden = reports.length < 2;
  showReport();
}

const getReport = () => reports[$("history").selectedIndex];

/** Show a report in a frame that may only run its script and save files. The frame's name carries the state of the page. */
function showReport() {
  const { title, text, fragment } = getReport();
  frame?.remove();
  frame = make("iframe", { title, name: `seewhy-app${fragment}`, srcdoc: text });
  frame.setAttribute("sandbox", "allow-scripts allow-downloads");
  $("start").hidden = true;
  $("save").hidden = $("cover-button").hidden = false;
  $("main").prepend(frame);
  resetCover();
}

function saveReport() {
  const { title, text } = getReport(), url = URL.createObjectURL(new Blob([text], { type: "text/html" }));
  make("a", { href: url, download: `${title.replace(/[^\p{L}\p{N}._-]+/gu, "-")}.html` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

function explainFile(file) {
  if (file) explain(file);
}

/** Show the settings on their button, the added classes, and which methods can still be selected. */
function updateSettings() {
  const count = +$("top").value, classes = [count ? `top ${count}` : "", ...addedClasses].filter(Boolean);
  $("settings-button").textContent = `${getMethods().join(", ") || "no method"} \u00b7 ${classes.join(", ") || "no class"} \u00b7 ${$("layers").selectedOptions[0].text}`;
  $("added-classes").replaceChildren(...addedClasses.map((name, number) => {
    const button = make("button", { type: "button", textContent: `${name} \u00d7`, title: "Remove" });
    button.setAttribute("aria-label", `Remove ${name}`);
    button.onclick = () => { addedClasses.splice(number, 1); updateSettings(); };
    return button;
  }));
  const isFull = getMethods().length >= choices.limits.methods;
  for (const input of document.querySelectorAll("#methods input")) input.disabled = isFull && !input.checked;
}

/** Check whether the model has a class of this name or index. A model without names accepts every index. */
function hasClass(name) {
  const { classes } = getModel(), isIndex = /^\d+$/.test(name), lower = name.toLowerCase();
  if (!classes.length || isIndex) return isIndex && (!classes.length || +name < classes.length);
  return classes.some((label) => [label, ...label.split(",")].some((part) => part.trim().toLowerCase() === lower));
}

/** Add the class in the text field. Return false if the model has no such class. */
function addClass() {
  const field = $("class"), name = field.value.trim();
  field.setCustomValidity(!name || hasClass(name) ? "" : `The model has no class "${name}". Choose one from the list that opens while you type.`);
  if (!field.reportValidity()) return false;
  if (name && !addedClasses.includes(name) && addedClasses.length < choices.limits.classes) addedClasses.push(name);
  field.value = "";
  updateSettings();
  return true;
}

function listClasses() {
  addedClasses.length = 0;
  const shortNames = getModel().classes.map((label) => label.split(",")[0]), counts = new Map();
  for (const name of shortNames) counts.set(name, (counts.get(name) ?? 0) + 1);
  $("classes").replaceChildren(...shortNames.map((name, number) => new Option(counts.get(name) > 1 ? getModel().classes[number] : name)));
  updateSettings();
}

function makeMethodOption({ name, slow, description }) {
  const input = make("input", { type: "checkbox", value: name, checked: name === "gradcam", onchange: updateSettings });
  const label = make("label", { title: description }, input, name, slow ? make("span", { className: "muted", textContent: "slow" }) : "");
  label.onpointerenter = input.onfocus = () => {
    $("method-description").textContent = `${name}: ${description}${slow ? " Slow: it runs additional forward passes, so select few layers." : ""}`;
  };
  return label;
}

function makeSample({ name, thumbnail }) {
  const button = make("button", { title: name }, make("img", { src: thumbnail, alt: `Sample image ${name}` }));
  button.onclick = () => explain({ sample: name, name });
  return button;
}

function buildControls() {
  $("model").replaceChildren(...choices.models.map(({ name }, number) => new Option(name, number)));
  const groups = Map.groupBy(choices.methods, ({ family }) => family);
  $("methods").replaceChildren(...[...groups].map(([family, methods]) =>
    make("div", {}, make("b", { textContent: family }), ...methods.map(makeMethodOption))));
  $("samples").replaceChildren(...choices.samples.map(makeSample));
  connectSettings();
  connectToolbar();
  connectDocument();
  connectCover();
  listClasses();
}

function connectSettings() {
  const setOpen = (isOpen) => { $("settings").hidden = !isOpen; $("settings-button").setAttribute("aria-expanded", isOpen); };
  $("settings-button").onclick = () => setOpen($("settings").hidden);
  $("settings").onsubmit = (event) => {
    event.preventDefault();
    if (!addClass()) return;
    setOpen(false);
    explain();
  };
  $("class").onchange = addClass;
  $("class").oninput = () => $("class").setCustomValidity("");
  $("class").onkeydown = (event) => { if (event.key === "Enter") { event.preventDefault(); addClass(); } };
  for (const id of ["top", "layers", "fit"]) $(id).onchange = updateSettings;
}

function connectToolbar() {
  $("model").onchange = () => { listClasses(); if (image !== null) explain(); };
  $("choose").onclick = () => $("file").click();
  $("file").onchange = () => { explainFile($("file").files[0]); $("file").value = ""; };
  $("stop").onclick = () => request?.abort();
  $("history").onchange = showReport;
  $("save").onclick = saveReport;
}

function connectDocument() {
  $("problem-close").onclick = () => showProblem("");
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") showProblem(""); });
  document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dragging"); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dragging"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    explainFile(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => explainFile(event.clipboardData.files[0]));
  window.addEventListener("message", (event) => {
    if (event.source !== frame?.contentWindow) return;
    if (event.data?.file instanceof File) explainFile(event.data.file);
    if (typeof event.data?.fragment === "string") getReport().fragment = event.data.fragment;
  });
}

async function start() {
  const response = TOKEN ? await send("/choices") : { ok: false, status: 401 };
  if (!response.ok && response.status !== 401) return showProblem(`The server refused the request (status ${response.status}). Reload this page.`);
  if (!response.ok) {
    $("start").hidden = $("choose").hidden = $("settings-button").hidden = true;
    return showProblem("The token is missing or wrong. Open the full address that seewhy printed in the terminal, including the part after #.");
  }
  choices = await response.json();
  buildControls();
}

window.addEventListener("hashchange", () => location.reload());  // the token has changed

window.app = { getReport, ready: start().catch((error) => showProblem(`The server does not respond (${error.message}).`)) };
