// The summary of a bulk run: findings, distributions and tables. All data is inside the document; nothing is fetched.
const page = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const make = (tag, props = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children);
  return node;
};
const makeSvg = (tag, attributes, ...children) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};
const makeMuted = (textContent) => make("p", { className: "muted", textContent });
const MAX_ROWS = 40;  // rows of a table before "Show all"

function enlarge({ id, thumbnail, lines }) {
  const dialog = $("enlarged");
  Object.assign(dialog.querySelector("img"), { src: thumbnail, alt: id });
  dialog.querySelector("div").replaceChildren(make("bdi", { textContent: id }), ...lines.map((textContent) => make("p", { textContent })));
  dialog.showModal();
}

function makeThumbnails(numbers, more = 0) {
  const box = make("div", { className: "thumbnails" });
  for (const number of numbers) {
    const image = page.images[number], title = [image.id, ...image.lines].join("\n");
    const button = make("button", { title, onclick: () => enlarge(image) }, make("img", { src: image.thumbnail, alt: "", loading: "lazy" }));
    button.setAttribute("aria-label", `Enlarge ${image.id}`);
    box.append(button);
  }
  if (more > 0) box.append(make("span", { textContent: `and ${more.toLocaleString("en")} more` }));
  return box;
}
const makeMean = (src, alt) => make("img", { className: "mean", src, alt });

function buildFindings() {
  for (const finding of page.findings) {
    const images = makeThumbnails(finding.images, finding.more);
    if (finding.mean) images.prepend(makeMean(finding.mean, "mean map"));
    $("findings").append(make("div", { className: "finding" }, make("p", { textContent: finding.text }), makeMuted(finding.hint), images));
  }
  if (page.more_findings) $("findings").append(makeMuted(page.more_findings));
  $("findings").hidden = !page.findings.length && !page.no_findings;
  if (!page.findings.length) $("findings").append(make("p", { className: "no-findings", textContent: page.no_findings }));
}

const formatRatio = (number) => (typeof number === "number" ? number.toFixed(2) : "?");

function makeHistogram({ counts, counts2, uniform, median }) {
  const bins = counts.length, maximum = Math.max(1, ...counts, ...(counts2 ?? []));
  const svg = makeSvg("svg", { viewBox: `0 0 ${bins} 20`, preserveAspectRatio: "none", "aria-hidden": "true" });
  const addBars = (values, name) => values.forEach((count, bin) => {
    const height = (20 * count) / maximum;
    if (count) svg.append(makeSvg("rect", { x: bin + 0.08, width: 0.84, y: 20 - height, height, class: name }));
  });
  addBars(counts, "");
  if (counts2) addBars(counts2, "second");
  const addLine = (value, name) => svg.append(makeSvg("line", { x1: value * bins, x2: value * bins, y1: 0, y2: 20, class: name }));
  if (uniform !== null) addLine(uniform, "uniform");
  if (median !== null) addLine(median, "");
  return svg;
}

/** A button with the distribution of a statistic. Pressing it shows the images at both ends. */
function makeChart(statistic) {
  const { title, description, median, median2, counts2 } = statistic;
  const textContent = counts2 ? `${formatRatio(median)} \u2192 ${formatRatio(median2)}` : `median ${formatRatio(median)}`;
  const button = make("button", { className: "chart", ariaPressed: "false", title: description },
    make("b", { textContent: title }), make("span", { className: "value", textContent }), makeHistogram(statistic));
  button.onclick = () => selectStatistic(statistic, button);
  return button;
}

function selectStatistic(statistic, button) {
  document.querySelectorAll(".chart").forEach((chart) => { chart.ariaPressed = String(chart === button); });
  $("extremes").replaceChildren(makeMuted(statistic.description));
  for (const [textContent, numbers] of [[statistic.high_title, statistic.high], [statistic.low_title, statistic.low]]) {
    if (numbers?.length) $("extremes").append(make("h3", { textContent }), makeThumbnails(numbers));
  }
}

function buildCharts() {
  const charts = page.statistics.map(makeChart);
  $("charts").append(...charts);
  $("statistics-note").textContent = page.statistics_note;
  const first = Math.max(0, page.statistics.findIndex(({ name }) => name === page.first_statistic));
  if (charts.length) selectStatistic(page.statistics[first], charts[first]);
  else $("statistics").hidden = true;
}

/** A bar with the number of maps that have each verdict. */
function makeVerdicts(counts) {
  const bar = make("div", { className: "verdicts", role: "img", ariaLabel: counts.map(([verdict, count]) => `${verdict} ${count}`).join(", ") });
  for (const [verdict, count] of counts) {
    const part = make("i", { title: `${verdict}: ${count.toLocaleString("en")}` });
    part.dataset.verdict = verdict;
    part.style.flexGrow = count;
    bar.append(part);
  }
  return bar;
}

function makeCell(value, column) {
  const node = make("td", { className: column.number ? "number" : "" });
  if (value !== null && typeof value === "object") {
    if (value.mean) node.append(makeMean(value.mean, value.alt));
    if (value.images) node.append(makeThumbnails(value.images, value.more));
    if (value.verdicts) node.append(makeVerdicts(value.verdicts));
  } else if (column.percent && value !== null) node.append(`${(100 * value).toFixed(0)}%`);
  else if (typeof value === "number") node.append(column.ratio ? value.toFixed(2) : value.toLocaleString("en"));
  else node.append(make("bdi", { textContent: value ?? "" }));
  return node;
}

/** Compare two cells. Only columns of texts and numbers are sortable; an unknown value counts as an empty text. */
const compareCells = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a ?? "").localeCompare(String(b ?? "")));

const makeMark = (verdict) => {
  const mark = make("i", { className: "mark" });
  mark.dataset.verdict = verdict;
  return mark;
};

function makeLegend(meanings) {
  const items = meanings.map(([verdict, text]) => make("li", {}, makeMark(verdict), make("b", { textContent: verdict }), `: ${text}`));
  return make("ul", { className: "meanings" }, ...items);
}

function makeTable({ id, title: heading, description, columns, rows: allRows, legend }) {
  const head = make("tr"), body = make("tbody"), more = make("button", { className: "more" });
  let rows = allRows, isExpanded = false;
  const fill = () => {
    const visible = isExpanded ? rows : rows.slice(0, MAX_ROWS);
    body.replaceChildren(...visible.map((row) => make("tr", {}, ...row.map((value, place) => makeCell(value, columns[place])))));
    more.hidden = isExpanded || rows.length <= MAX_ROWS;
    more.textContent = `Show all ${rows.length.toLocaleString("en")}`;
  };
  more.onclick = () => { isExpanded = true; fill(); };
  const sortBy = (place, th) => {
    const isDescending = th.ariaSort !== "descending";
    head.querySelectorAll("th").forEach((other) => { other.ariaSort = null; });
    th.ariaSort = isDescending ? "descending" : "ascending";
    rows = [...allRows].sort((a, b) => (isDescending ? -1 : 1) * compareCells(a[place], b[place]));
    fill();
  };
  columns.forEach((column, place) => {
    const th = make("th", { scope: "col", className: column.number ? "number" : "", title: column.description });
    th.append(column.sortable ? make("button", { textContent: column.title, onclick: () => sortBy(place, th) }) : column.title);
    if (column.verdict) (th.querySelector("button") ?? th).prepend(makeMark(column.verdict));
    head.append(th);
  });
  fill();
  const title = make("h2", { id: `${id}-title`, textContent: heading });
  const region = make("div", { className: "scrollable", tabIndex: 0 }, make("table", {}, make("thead", {}, head), body));  // focusable, so that arrow keys scroll it
  region.setAttribute("role", "region");
  region.setAttribute("aria-label", `${heading}, table`);
  const section = make("section", { id }, title, makeMuted(description), region, more, ...(legend ? [makeLegend(legend)] : []));
  section.setAttribute("aria-labelledby", title.id);
  return section;
}

buildFindings();
for (const [name, text] of page.facts) $("facts").append(make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: text })));
buildCharts();
$("tables").append(...page.tables.map(makeTable));
if (page.notes.length) {
  $("notes").hidden = false;
  $("notes").querySelector("ul").append(...page.notes.map((textContent) => make("li", { textContent })));
}
$("enlarged").querySelector("button").onclick = () => $("enlarged").close();
$("enlarged").onclick = (event) => { if (event.target === $("enlarged")) $("enlarged").close(); };
