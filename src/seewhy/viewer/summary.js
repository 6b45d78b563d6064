// A whole data set on one page: findings, distributions with their extremes, tables. Everything is in the document; nothing is fetched.
const page = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const make = (tag, props = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children);
  return node;
};
const draw = (tag, attributes, ...children) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};
const SHOWN = 40;  // rows of a table before one asks for more

function enlarge(picture) {
  const dialog = $("large"), image = dialog.querySelector("img");
  image.src = picture.thumbnail;
  image.alt = picture.id;
  dialog.querySelector("div").replaceChildren(make("bdi", { textContent: picture.id }), ...picture.lines.map((line) => make("p", { textContent: line })));
  dialog.showModal();
}
$("large").querySelector("button").onclick = () => $("large").close();
$("large").onclick = (event) => { if (event.target === $("large")) $("large").close(); };

function thumbs(numbers, more = 0) {
  const box = make("div", { className: "thumbs" });
  for (const number of numbers) {
    const picture = page.pictures[number];
    const image = make("img", { src: picture.thumbnail, alt: "", loading: "lazy" });
    const button = make("button", { title: [picture.id, ...picture.lines].join("\n"), onclick: () => enlarge(picture) }, image);
    button.setAttribute("aria-label", `${picture.id}, larger`);
    box.append(button);
  }
  if (more > 0) box.append(make("span", { textContent: `and ${more.toLocaleString("en")} more` }));
  return box;
}
const mean = (address, alt) => make("img", { className: "mean", src: address, alt });

// What stands out
for (const finding of page.findings) {
  const box = make("div", { className: "finding" }, make("p", { textContent: finding.text }));
  if (finding.words) box.append(make("p", { className: "faint", textContent: finding.words }));
  const strip = thumbs(finding.pictures, finding.more);
  if (finding.mean) strip.prepend(mean(finding.mean, "mean map"));
  box.append(strip);
  $("findings").append(box);
}
if (page.unshown) $("findings").append(make("p", { className: "faint", textContent: page.unshown }));
if (!page.findings.length) $("findings").append(make("p", { className: "calm", textContent: page.quiet }));
for (const [name, text] of page.facts) $("facts").append(make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: text })));

// Distributions, and the pictures at their ends
function chart(statistic) {
  const counts = statistic.counts, bins = counts.length;
  const top = Math.max(1, ...counts, ...(statistic.counts2 ?? []));
  const svg = draw("svg", { viewBox: `0 0 ${bins} 20`, preserveAspectRatio: "none", "aria-hidden": "true" });
  const bars = (some, name) => some.forEach((count, at) => {
    const height = (20 * count) / top;
    if (count) svg.append(draw("rect", { x: at + 0.08, width: 0.84, y: 20 - height, height, class: name }));
  });
  bars(counts, "");
  if (statistic.counts2) bars(statistic.counts2, "second");
  const mark = (value, name) => svg.append(draw("line", { x1: value * bins, x2: value * bins, y1: 0, y2: 20, class: name }));
  if (statistic.uniform !== null) mark(statistic.uniform, "uniform");
  if (statistic.median !== null) mark(statistic.median, "");
  const digits = (number) => (typeof number === "number" ? number.toFixed(2) : "?");
  const value = statistic.counts2 ? `${digits(statistic.median)} \u2192 ${digits(statistic.median2)}` : `median ${digits(statistic.median)}`;
  const button = make("button", { className: "chart", ariaPressed: "false" },
    make("b", { textContent: statistic.title }), make("span", { className: "value", textContent: value }), svg);
  button.title = statistic.words;
  button.onclick = () => choose(statistic, button);
  return button;
}
function choose(statistic, button) {
  document.querySelectorAll(".chart").forEach((one) => { one.ariaPressed = String(one === button); });
  const box = $("extremes");
  box.replaceChildren(make("p", { className: "faint", textContent: statistic.words }));
  for (const [title, numbers] of [[statistic.highTitle, statistic.high], [statistic.lowTitle, statistic.low]]) {
    if (numbers?.length) box.append(make("h3", { textContent: title }), thumbs(numbers));
  }
}
const charts = page.statistics.map(chart);
$("charts").append(...charts);
$("spread-words").textContent = page.spread;
const start = Math.max(0, page.statistics.findIndex((one) => one.name === page.first));
if (charts.length) choose(page.statistics[start], charts[start]);
else $("spread").hidden = true;

// Tables
const plain = (value) => (value !== null && typeof value === "object" ? value.sort ?? "" : value ?? "");
function cell(value, column) {
  const node = make("td", { className: column.number ? "number" : "" });
  if (value !== null && typeof value === "object") {
    if (value.mean) node.append(mean(value.mean, value.alt ?? "map"));
    if (value.pictures) node.append(thumbs(value.pictures, value.more));
    if (value.text) node.append(make("bdi", { textContent: value.text }));
  } else if (column.percent && value !== null) node.append(`${(100 * value).toFixed(0)} %`);
  else node.append(typeof value === "number" ? (column.ratio ? value.toFixed(2) : value.toLocaleString("en")) : make("bdi", { textContent: value ?? "" }));
  return node;
}
function table(data) {
  const head = make("tr"), body = make("tbody"), more = make("button", { className: "more" });
  let rows = data.rows, all = false;
  const fill = () => {
    const shown = all ? rows : rows.slice(0, SHOWN);
    body.replaceChildren(...shown.map((row) => make("tr", {}, ...row.map((value, at) => cell(value, data.columns[at])))));
    more.hidden = all || rows.length <= SHOWN;
    more.textContent = `Show all ${rows.length.toLocaleString("en")}`;
  };
  more.onclick = () => { all = true; fill(); };
  data.columns.forEach((column, at) => {
    const th = make("th", { scope: "col", className: column.number ? "number" : "" });
    if (column.sorts === false) th.textContent = column.title;
    else {
      const button = make("button", { textContent: column.title });
      button.onclick = () => {
        const down = th.ariaSort !== "descending";
        head.querySelectorAll("th").forEach((one) => { one.ariaSort = null; });
        th.ariaSort = down ? "descending" : "ascending";
        const order = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
        rows = [...data.rows].sort((a, b) => (down ? -1 : 1) * order(plain(a[at]), plain(b[at])));
        fill();
      };
      th.append(button);
    }
    if (column.words) th.title = column.words;
    head.append(th);
  });
  fill();
  const title = make("h2", { id: `${data.id}-title`, textContent: data.title });
  const wide = make("div", { className: "wide", tabIndex: 0 }, make("table", {}, make("thead", {}, head), body));  // keys scroll what has the focus
  wide.setAttribute("role", "region");
  wide.setAttribute("aria-label", `${data.title}, table`);
  const section = make("section", { id: data.id }, title, make("p", { className: "faint", textContent: data.words }),
    wide, more);
  section.setAttribute("aria-labelledby", title.id);
  return section;
}
$("tables").append(...page.tables.map(table));
if (page.notes.length) {
  $("notes").hidden = false;
  $("notes").querySelector("ul").append(...page.notes.map((text) => make("li", { textContent: text })));
}
