// Part 2 of 4: what is shown, kept in the link.

const first = { method: 0, target: 0, versus: -1, layer: page.layers.findIndex((layer) => layer.suggested) };
if (first.layer < 0) first.layer = page.layers.length - 1;  // the deepest says most
const state = {
  panels: [first], active: 0, colors: page.look.colors, opacity: page.look.opacity, threshold: 0, fade: page.look.fade,
  smooth: true, scale: "own", chart: "like",
};
// The local app shows the page in a frame of this name, with the link of the picture before behind it.
const APP_NAME = "seewhy-app", APP = parent !== window && window.name.startsWith(APP_NAME);
const KEYS = ["colors", "opacity", "threshold", "fade", "smooth", "scale", "chart", "active"];

function toLink() {
  const part = (panel) => [page.methods[panel.method].key, page.targets[panel.target].key,
    panel.versus < 0 ? "" : page.targets[panel.versus].key, page.layers[panel.layer].name].map(encodeURIComponent).join(",");
  return `#panels=${state.panels.map(part).join(";")}&${KEYS.map((key) => `${key}=${state[key]}`).join("&")}`;
}

function fromLink(link) {
  const given = Object.fromEntries(link.slice(1).split("&").map((part) => part.split("=")));
  const find = (list, field, text) => list.findIndex((one) => one[field] === decodeURIComponent(text));
  try {
    if (given.panels) {
      const panels = given.panels.split(";").slice(0, 4).map((text) => {
        const [method, target, versus, layer] = text.split(",");
        return { method: find(page.methods, "key", method), target: find(page.targets, "key", target),
          versus: versus ? find(page.targets, "key", versus) : -1, layer: find(page.layers, "name", layer) };
      });
      if (panels.every((panel) => panel.method >= 0 && panel.target >= 0 && panel.layer >= 0)) state.panels = panels;
      else {  // from a page of another picture: what is known here too
        const { method, layer } = panels[0];
        state.panels = [{ ...first, method: Math.max(method, 0), layer: layer < 0 ? first.layer : layer }];
      }
    }
  } catch { /* a link that was cut off: what is left of it */ }
  const number = (key, least, most) => {
    if (given[key] !== undefined && Number.isFinite(+given[key])) state[key] = Math.min(Math.max(+given[key], least), most);
  };
  number("opacity", 0, 1);
  number("threshold", 0, 1);
  number("active", 0, state.panels.length - 1);
  state.active = Math.floor(state.active);
  for (const key of ["fade", "smooth"]) if (given[key] !== undefined) state[key] = given[key] === "true";
  if (Object.hasOwn(colors, given.colors ?? "")) state.colors = given.colors;
  if (["own", "layer", "all"].includes(given.scale)) state.scale = given.scale;
  if (Object.hasOwn(SAID, given.chart ?? "")) state.chart = given.chart;
}

const current = () => state.panels[state.active];

/** A panel made possible: contrasts only of methods that allow them, and a layer where the method has a map. */
function settle(panel) {
  if (!page.methods[panel.method].linear) panel.versus = -1;
  const layers = layersOf(panel.method);
  if (!layers.includes(panel.layer)) panel.layer = layers.find((layer) => page.layers[layer].suggested) ?? layers.at(-1);
}

function change(parts, panel = false) {
  Object.assign(panel ? current() : state, parts);
  settle(current());
  render();
}

const layersOf = (method) => once(`l${method}`, () =>
  page.layers.map((_, number) => number).filter((layer) => page.maps.some((one) => one[0] === method && one[2] === layer)));

function step(by) {
  const layers = layersOf(current().method), at = layers.indexOf(current().layer) + by;
  change({ layer: layers[Math.min(Math.max(at, 0), layers.length - 1)] }, true);
}
