// Many pictures of one run: a table that sorts.
const rows = JSON.parse(document.getElementById("data").textContent);
const body = document.querySelector("tbody");
const cell = (...children) => {
  const node = document.createElement("td");
  node.append(...children);
  return node;
};
const text = (tag, value) => Object.assign(document.createElement(tag), { textContent: value });
const link = (row, child) => {
  const node = Object.assign(document.createElement("a"), { href: row.page });
  node.append(child);
  return node;
};

const lines = rows.map((row) => {
  const line = document.createElement("tr"), name = text("bdi", row.name);
  const thumbnail = Object.assign(new Image(), { src: row.thumbnail, alt: "", loading: "lazy" });
  const chance = row.probability === null ? "" : `${(100 * row.probability).toFixed(1)} %`;
  line.append(
    cell(row.page && row.thumbnail ? link(row, thumbnail) : ""), cell(row.page ? link(row, name) : name),
    cell(text("bdi", row.class)), cell(chance), cell(text("bdi", row.flags.join("; "))),
  );
  return { row, line };
});

const key = { flags: (row) => row.flags.join("; "), probability: (row) => row.probability ?? -1 };
function sort(button) {
  const head = button.closest("th"), down = head.ariaSort === "ascending", name = button.dataset.key;
  document.querySelectorAll("th").forEach((one) => { one.ariaSort = null; });
  head.ariaSort = down ? "descending" : "ascending";
  const of = key[name] ?? ((row) => row[name]);
  const order = (a, b) => (typeof of(a) === "number" ? of(a) - of(b) : of(a).localeCompare(of(b)));
  lines.sort((a, b) => (down ? -1 : 1) * order(a.row, b.row));
  body.replaceChildren(...lines.map(({ line }) => line));
}

body.replaceChildren(...lines.map(({ line }) => line));
document.querySelectorAll("th button").forEach((button) => { button.onclick = () => sort(button); });
