// The index of many images: a sortable table.
const rows = JSON.parse(document.getElementById("data").textContent);
const body = document.querySelector("tbody");
const make = (tag, props = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children);
  return node;
};
const makeText = (textContent) => make("bdi", { textContent });
const makeLink = (row, child) => make("a", { href: row.page }, child);

const lines = rows.map((row) => {
  const name = makeText(row.name), thumbnail = make("img", { src: row.thumbnail, alt: "", loading: "lazy" });
  const probability = row.probability === null ? "" : `${(100 * row.probability).toFixed(1)}%`;
  const line = make("tr", {},
    make("td", {}, row.page && row.thumbnail ? makeLink(row, thumbnail) : ""), make("td", {}, row.page ? makeLink(row, name) : name),
    make("td", {}, makeText(row.class)), make("td", {}, probability), make("td", {}, makeText(row.flags.join("; "))));
  return { row, line };
});

const getters = { flags: (row) => row.flags.join("; "), probability: (row) => row.probability ?? -1 };
function sortBy(button) {
  const head = button.closest("th"), descending = head.ariaSort === "ascending", name = button.dataset.key;
  document.querySelectorAll("th").forEach((th) => { th.ariaSort = null; });
  head.ariaSort = descending ? "descending" : "ascending";
  const get = getters[name] ?? ((row) => row[name]);
  const compare = (a, b) => (typeof get(a) === "number" ? get(a) - get(b) : get(a).localeCompare(get(b)));
  lines.sort((a, b) => (descending ? -1 : 1) * compare(a.row, b.row));
  body.replaceChildren(...lines.map(({ line }) => line));
}

body.replaceChildren(...lines.map(({ line }) => line));
document.querySelectorAll("th button").forEach((button) => { button.onclick = () => sortBy(button); });
