// 2. A search, or a training by hand.

import { h, heading, redraw } from "./dom.js";
import { losses } from "./plots.js";
import { units } from "./data.js";

const SPARSITY = [0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3];
const settings = { nodes: 5, layers: 1, grid: 5, sparsity: 4, chunks: 10, seed: 1, agree: false };

function slider(name, label, { min, max, step = 1, text = (value) => value }) {
  const out = h("output", {}, text(settings[name]));
  const input = h("input", { type: "range", min, max, step, value: settings[name], "data-key": `slider ${name}`, "aria-label": label, "aria-valuetext": text(settings[name]) });
  input.addEventListener("input", () => {
    settings[name] = Number(input.value);
    out.textContent = text(settings[name]);
    input.setAttribute("aria-valuetext", text(settings[name]));
  });
  return h("label", { class: "slider" }, h("span", {}, label), out, input);
}

export function train(root, { view, busy, actions }) {
  const ready = Boolean(view?.data?.target);
  if (!ready) {
    redraw(root, heading("h-train", "2", "Train"), h("p", { class: "muted" }, "Open a table first: then a formula is searched, or a network trained by hand."));
    return;
  }
  const network = view.network;
  const used = [...view.data.inputs, view.data.target];
  const known = used.every((name) => units.get(name));
  const options = () => ({ grid_size: settings.grid, sparsity: SPARSITY[settings.sparsity], chunks: settings.chunks });
  redraw(
    root,
    heading("h-train", "2", "Train"),
    h("button", { class: "primary big", "data-key": "search", disabled: busy, onclick: () => actions.step("search", settings.agree && known ? { units: Object.fromEntries(view.data.inputs.map((name) => [name, units.get(name)])), target_units: units.get(view.data.target) } : {}) }, "Find a formula"),
    h(
      "label",
      { class: `check ${known ? "" : "muted"}` },
      h("input", { type: "checkbox", "data-key": "agree", checked: settings.agree && known, disabled: !known, onchange: (event) => (settings.agree = event.target.checked) }),
      known ? "Only formulas whose units agree" : "With a unit for each column, formulas can be kept to them.",
    ),
    h("h3", {}, "Or by hand"),
    slider("nodes", "Hidden nodes", { min: 1, max: 10 }),
    slider("layers", "Hidden layers", { min: 0, max: 2 }),
    slider("grid", "Grid", { min: 3, max: 20, text: (value) => `${value} intervals` }),
    slider("sparsity", "Sparsity", { min: 0, max: SPARSITY.length - 1, text: (value) => (value ? String(SPARSITY[value]) : "none") }),
    slider("chunks", "Steps", { min: 1, max: 50, text: (value) => String(10 * value) }),
    slider("seed", "Start", { min: 0, max: 9, text: (value) => `number ${value}` }),
    h(
      "div",
      { class: "three" },
      h("button", { "data-key": "train", disabled: busy, onclick: () => actions.step("train", { ...options(), seed: settings.seed, hidden: Array(settings.layers).fill(settings.nodes) }) }, network ? "New network" : "Train"),
      h("button", { "data-key": "train on", disabled: busy || !network, title: "Goes on with the present network", onclick: () => actions.step("train", { ...options(), grid_size: Math.max(settings.grid, network.grid_size) }) }, "Train on"),
      h("button", { "data-key": "polish", disabled: busy || !network, title: "Trains on without sparsity", onclick: () => actions.step("train", { ...options(), sparsity: 0, grid_size: Math.max(settings.grid, network.grid_size) }) }, "Polish"),
    ),
    h("div", { id: "losses" }, network?.losses.length > 0 && losses(network.losses)),
  );
}

// The curve of a training that goes on.
export function live(rows) {
  const place = document.getElementById("losses");
  if (place && rows.length) place.replaceChildren(losses(rows));
}
