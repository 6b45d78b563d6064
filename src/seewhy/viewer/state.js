// Part 2 of 8: the state of the page, saved in the URL fragment.

const defaultPanel = { method: 0, target: 0, versus: -1, layer: page.layers.findIndex((layer) => layer.suggested) };
if (defaultPanel.layer < 0) defaultPanel.layer = page.layers.findLastIndex((layer) => !layer.measured);  // without a suggested layer: the deepest
const state = {
  panels: [defaultPanel], active: 0, colors: page.style.colors, opacity: page.style.opacity, threshold: 0, fade: page.style.fade,
  smooth: true, scale: page.style.scale, chart: "correlation",
};
// The local app shows this page in a frame whose name is APP_NAME followed by the fragment of the previous image's page.
const APP_NAME = "seewhy-app", IN_APP = parent !== window && window.name.startsWith(APP_NAME);
const STATE_KEYS = ["colors", "opacity", "threshold", "fade", "smooth", "scale", "chart", "active"];

function encodeState() {
  const encodePanel = (panel) => [page.methods[panel.method].key, page.targets[panel.target].key,
    panel.versus < 0 ? "" : page.targets[panel.versus].key, page.layers[panel.layer].name].map(encodeURIComponent).join(",");
  return `#panels=${state.panels.map(encodePanel).join(";")}&${STATE_KEYS.map((key) => `${key}=${state[key]}`).join("&")}`;
}

function restoreState(fragment) {
  const fields = Object.fromEntries(fragment.slice(1).split("&").map((part) => part.split("=")));
  const find = (list, key, text) => list.findIndex((entry) => entry[key] === decodeURIComponent(text));
  try {
    if (fields.panels) {
      const panels = fields.panels.split(";").slice(0, 4).map((text) => {
        const [method, target, versus, layer] = text.split(",");
        return { method: find(page.methods, "key", method), target: find(page.targets, "key", target),
          versus: versus ? find(page.targets, "key", versus) : -1, layer: find(page.layers, "name", layer) };
      });
      if (panels.every((panel) => panel.method >= 0 && panel.target >= 0 && panel.layer >= 0)) state.panels = panels;
      else {  // from the page of another image: keep the method and layer if they exist here
        const { method, layer } = panels[0];
        state.panels = [{ ...defaultPanel, method: Math.max(method, 0), layer: layer < 0 ? defaultPanel.layer : layer }];
      }
    }
  } catch { /* a truncated link: restore the remaining fields */ }
  const restoreNumber = (key, least, most) => {
    if (fields[key] !== undefined && Number.isFinite(+fields[key])) state[key] = Math.min(Math.max(+fields[key], least), most);
  };
  restoreNumber("opacity", 0, 1);
  restoreNumber("threshold", 0, 1);
  restoreNumber("active", 0, state.panels.length - 1);
  state.active = Math.floor(state.active);
  for (const key of ["fade", "smooth"]) if (fields[key] !== undefined) state[key] = fields[key] === "true";
  if (Object.hasOwn(colors, fields.colors ?? "")) state.colors = fields.colors;
  if (["own", "layer", "all", "minmax"].includes(fields.scale)) state.scale = fields.scale;
  if (Object.hasOwn(STATISTIC_TEXTS, fields.chart ?? "")) state.chart = fields.chart;
}

const getActivePanel = () => state.panels[state.active];

/** Make a panel valid: compare classes only for linear methods, and select a layer where the method has a map. */
function makeValid(panel) {
  if (!page.methods[panel.method].linear) panel.versus = -1;
  const layers = getLayers(panel.method);
  if (!getChoices(panel).includes(panel.layer)) panel.layer = layers.find((layer) => page.layers[layer].suggested) ?? layers.at(-1);
}

function updateState(changes) {
  Object.assign(state, changes);
  makeValid(getActivePanel());
  scheduleRender();
}

function updatePanel(changes) {
  Object.assign(getActivePanel(), changes);
  updateState({});
}

const getLayers = (method) => cached(`l${method}`, () =>
  page.layers.map((_, number) => number).filter((layer) => page.maps.some((entry) => entry[0] === method && entry[2] === layer)));

/** Return the layers of a panel's method, and the measured map of its target; a difference of classes was not measured. */
function getChoices({ method, target, versus }) {
  const isMeasured = versus < 0 && findMapNumber(method, target, MEASURED) !== undefined;
  return isMeasured ? [...getLayers(method), MEASURED] : getLayers(method);
}

function stepLayer(count) {
  const layers = getChoices(getActivePanel()), place = layers.indexOf(getActivePanel().layer) + count;
  updatePanel({ layer: layers[Math.min(Math.max(place, 0), layers.length - 1)] });
}
