// The local app around the page: it sends a picture, and shows the page that comes back in a frame of its own.
const $ = (id) => document.getElementById(id);
const make = (tag, props = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children);
  return node;
};
const TOKEN = location.hash.slice(1);  // browsers keep what stands behind the "#" to themselves
const KEPT = 12;
const ask = (path, options = {}) => fetch(path, { ...options, headers: { Authorization: `Bearer ${TOKEN}` } });
const named = [];  // classes asked for by name
const earlier = [];  // {title, text, link}, the latest first; the link is what was chosen on that page
let offered, picture = null, shown = null, running = null, frame = null;  // the picture of the last question, and of the page

function problem(text) {
  $("problem").hidden = !text;
  $("problem-text").textContent = text;
}

const model = () => offered.models[+$("model").value];
const methods = () => [...document.querySelectorAll("#methods input:checked")].map((input) => input.value);

/** The address of a question. Only words from the server's own lists; the name is for people. */
function question(given) {
  const words = new URLSearchParams({ model: $("model").value, methods: methods().join(), top: $("top").value,
    classes: named.join("\n"), layers: $("layers").value, fit: $("fit").value });
  if (given.sample) words.set("sample", given.sample);
  else words.set("name", given.name);
  return `/explain?${words}`;
}

const clock = (seconds) => (seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.round(seconds / 60)} min`);

/** One line of news. Gives the page once it is there. */
function heard(news, begun) {
  if (news.error) throw Object.assign(new Error(news.error), { picture: news.picture });
  if (news.waiting) $("status").textContent = `waiting: ${news.waiting} before this one`;
  $("status").setAttribute("aria-live", news.total ? "off" : "polite");  // not every number is to be read aloud
  if (news.begun) {
    $("status").textContent = "explaining";
    begun.at = performance.now();
  }
  if (news.total && news.done) {
    const left = ((performance.now() - begun.at) / 1000 / news.done) * (news.total - news.done);
    Object.assign($("progress"), { hidden: false, max: news.total, value: news.done });
    $("status").textContent = `${news.done.toLocaleString("en")} of ${news.total.toLocaleString("en")} forwards, ${clock(left)} left`;
  }
  return news.page;
}

/** Explain a picture; it takes the place of the one before only once it could be explained. */
async function explain(given = picture) {
  if (given === null) return problem("give a picture first");
  running?.abort();
  picture = given;
  const mine = new AbortController(), sent = performance.now(), begun = { at: sent }, asked = $("asks").textContent, which = model().name;
  running = mine;
  problem("");
  if (given.size > offered.most.bytes) {
    picture = shown;
    return finish(mine, `${given.name}: more than ${offered.most.bytes / 2 ** 20} MB; give a smaller file`);
  }
  $("stop").hidden = false;
  $("status").textContent = "sending";
  try {
    const answer = await ask(question(given), { method: "POST", body: given.sample ? null : given, signal: mine.signal });
    if (!answer.ok) {
      const { error } = await answer.json().catch(() => ({ error: `the server refuses (status ${answer.status}); ask again` }));
      throw Object.assign(new Error(error), { picture: [413, 415].includes(answer.status) });
    }
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let page, parts = [];
    while (page === undefined) {
      const { value, done } = await reader.read();
      if (done) throw new Error("the server ended before it had answered");
      parts.push(value);
      if (!value.includes("\n")) continue;  // a page is one long line
      const lines = parts.join("").split("\n");
      parts = [lines.pop()];
      for (const line of lines) page ??= heard(JSON.parse(line), begun);
    }
    if (running !== mine) return;
    shown = given;
    show(`${given.name} \u00b7 ${which} \u00b7 ${asked}`, page);
    finish(mine, "", `${((performance.now() - sent) / 1000).toFixed(1)} s`);
  } catch (error) {
    if (error.name === "AbortError") return finish(mine, "", "stopped");
    if (error.picture && running === mine) picture = shown;  // what cannot be read is not asked again
    const gone = error instanceof TypeError && given.slice && await given.slice(0, 1).arrayBuffer().then(() => false, () => true);
    finish(mine, gone ? `${given.name}: cannot be read any more; choose it again`
      : error instanceof TypeError ? "the server does not answer: does it still run in its terminal?" : error.message);
  }
}

function finish(mine, text, status = "") {
  if (running !== mine) return;  // a newer question has the word
  running = null;
  $("stop").hidden = $("progress").hidden = true;
  $("status").textContent = status;
  problem(text);
}

/** A page in a frame that may run its script and save files, and nothing else. Its name carries what was chosen before. */
function show(title, text) {
  earlier.unshift({ title, text, link: current()?.link ?? "" });
  earlier.length = Math.min(earlier.length, KEPT);
  $("earlier").replaceChildren(...earlier.map((one, number) => new Option(one.title, number)));
  $("earlier-label").hidden = earlier.length < 2;
  display();
}

const current = () => earlier[$("earlier").selectedIndex];

function display() {
  const { title, text, link } = current();
  frame?.remove();
  frame = make("iframe", { title, name: `seewhy-app${link}`, srcdoc: text });
  frame.setAttribute("sandbox", "allow-scripts allow-downloads");
  $("start").hidden = true;
  $("save").hidden = false;
  $("main").prepend(frame);
}

function take(file) {
  if (file) explain(file);
}

function words() {
  const count = +$("top").value, classes = [count ? `${count} likeliest` : "", ...named].filter(Boolean);
  $("asks").textContent = `${methods().join(", ") || "no method"} \u00b7 ${classes.join(", ") || "no class"} \u00b7 ${$("layers").selectedOptions[0].text}`;
  $("chosen").replaceChildren(...named.map((name, number) => {
    const button = make("button", { type: "button", textContent: `${name} \u00d7`, title: "Leave it out" });
    button.setAttribute("aria-label", `Leave out ${name}`);
    button.onclick = () => { named.splice(number, 1); words(); };
    return button;
  }));
  const full = methods().length >= offered.most.methods;
  for (const input of document.querySelectorAll("#methods input")) input.disabled = full && !input.checked;
}

/** Whether the model has a class of this name or index; a model without names is asked. */
function known(name) {
  const classes = model().classes, wanted = name.toLowerCase();
  if (!classes.length) return /^\d+$/.test(name);
  return /^\d+$/.test(name) ? +name < classes.length
    : classes.some((label) => label.toLowerCase() === wanted || label.toLowerCase().split(",").some((part) => part.trim() === wanted));
}

/** Take what stands in the field; false where there is no such class. */
function addClass() {
  const field = $("class"), name = field.value.trim();
  field.setCustomValidity(!name || known(name) ? "" : `The model has no class "${name}"; choose from the list that opens as you type.`);
  if (!field.reportValidity()) return false;
  if (name && !named.includes(name) && named.length < offered.most.classes) named.push(name);
  field.value = "";
  words();
  return true;
}

function listClasses() {
  named.length = 0;
  const short = model().classes.map((label) => label.split(",")[0]), count = new Map();
  for (const name of short) count.set(name, (count.get(name) ?? 0) + 1);
  $("classes").replaceChildren(...short.map((name, number) => new Option(count.get(name) > 1 ? model().classes[number] : name)));
  words();
}

function method({ name, slow, about }) {
  const input = make("input", { type: "checkbox", value: name, checked: name === "gradcam", onchange: words });
  const label = make("label", { title: about }, input, name, slow ? make("span", { className: "faint", textContent: "slow" }) : "");
  label.onpointerenter = input.onfocus = () => { $("about").textContent = `${name}: ${about}${slow ? " It asks the network again; choose few layers." : ""}`; };
  return label;
}

function controls() {
  $("model").replaceChildren(...offered.models.map(({ name }, number) => new Option(name, number)));
  const groups = Map.groupBy(offered.methods, ({ family }) => family);
  $("methods").replaceChildren(...[...groups].map(([family, list]) => make("div", {}, make("b", { textContent: family }), ...list.map(method))));
  $("samples").replaceChildren(...offered.samples.map(({ name, picture: src }) => {
    const button = make("button", { title: name }, make("img", { src, alt: `The picture ${name}` }));
    button.onclick = () => explain({ sample: name, name });
    return button;
  }));
  const open = (shown) => { $("question").hidden = !shown; $("asks").setAttribute("aria-expanded", shown); };
  $("asks").onclick = () => open($("question").hidden);
  $("question").onsubmit = (event) => {
    event.preventDefault();
    if (!addClass()) return;
    open(false);
    explain();
  };
  $("class").onchange = addClass;
  $("class").oninput = () => $("class").setCustomValidity("");
  $("class").onkeydown = (event) => { if (event.key === "Enter") { event.preventDefault(); addClass(); } };
  for (const id of ["top", "layers", "fit"]) $(id).onchange = words;
  $("model").onchange = () => { listClasses(); if (picture !== null) explain(); };
  $("problem-close").onclick = () => problem("");
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") problem(""); });
  $("choose").onclick = () => $("file").click();
  $("file").onchange = () => { take($("file").files[0]); $("file").value = ""; };
  $("stop").onclick = () => running?.abort();
  $("earlier").onchange = display;
  $("save").onclick = () => {
    const { title, text } = current(), address = URL.createObjectURL(new Blob([text], { type: "text/html" }));
    make("a", { href: address, download: `${title.replace(/[^\p{L}\p{N}._-]+/gu, "-")}.html` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  };
  document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("over"); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("over");
    take(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => take(event.clipboardData.files[0]));
  window.addEventListener("message", (event) => {
    if (event.source !== frame?.contentWindow) return;
    if (event.data?.file instanceof File) take(event.data.file);
    if (typeof event.data?.link === "string") current().link = event.data.link;
  });
  listClasses();
}

async function start() {
  const answer = TOKEN ? await ask("/choices") : { ok: false, status: 401 };
  if (!answer.ok && answer.status !== 401) return problem(`the server refuses (status ${answer.status}); load this page again`);
  if (!answer.ok) {
    $("start").hidden = $("choose").hidden = $("asks").hidden = true;
    return problem("This address lacks its token: take the one that seewhy printed in the terminal, with all that stands behind the #.");
  }
  offered = await answer.json();
  controls();
}

window.addEventListener("hashchange", () => location.reload());  // another token

window.app = { ready: start().catch((error) => problem(`the server does not answer (${error.message})`)) };
