// 4. The selected edge: its plot, functions that fit it, and what can be done with it.

import { h, heading, redraw } from "./dom.js";
import { edgePlot, edgeTitle, name } from "./network.js";

let asked = null; // edge and version that are shown or on their way

export function symbols(root, context) {
  const { view, selected, version, session, busy } = context;
  const found = view?.network;
  const edge = selected?.edge;
  const known = edge && found?.edges.some((one) => name(one.edge) === name(edge));
  if (!known) {
    asked = null;
    redraw(root, heading("h-symbols", "4", "Symbols"), h("p", { class: "muted" }, found ? "Select an edge of the network to see functions that may take its place." : "Functions for the edges of the network."), found && all(context));
    return;
  }
  const key = `${name(edge)} ${version}`;
  if (asked?.key === key && asked.shown) return draw(root, context, asked.shown);
  if (asked?.key !== key) {
    asked = { key };
    if (!busy) {
      session.edge(edge).then(
        (shown) => {
          if (asked?.key !== key) return;
          if (!shown) return void (asked = null); // a step is being made: the page asks again after it
          asked.shown = shown;
          draw(root, context, shown);
        },
        (error) => {
          if (asked?.key !== key) return;
          asked = null;
          redraw(root, heading("h-symbols", "4", "Symbols"), h("p", { class: "muted" }, error.message));
        },
      );
    } else asked = null;
  }
  redraw(root, heading("h-symbols", "4", "Symbols", h("span", { class: "muted wrap" }, edgeTitle(found, edge))), h("div", { class: "skeleton", "aria-label": "Loading" }));
}

function draw(root, context, shown) {
  const { view, actions, busy } = context;
  const found = view.network;
  const place = h("div", {}, edgePlot(found, shown));
  const look = (fit) => place.replaceChildren(edgePlot(found, shown, fit ? [fit] : []));
  const numeric = shown.kind === "numeric";
  const kind = numeric ? "spline" : shown.kind === "pruned" ? "removed" : shown.kind;
  redraw(
    root,
    heading("h-symbols", "4", "Symbols", h("span", { class: `badge ${numeric ? "" : "symbol"}` }, kind)),
    h("p", { class: "wrap" }, edgeTitle(found, shown.edge)),
    place,
    shown.affine && h("p", { class: "muted" }, `${format(shown.affine)}`),
    numeric && candidates(shown, look, actions, busy),
    numeric && other(shown, actions, busy),
    h(
      "div",
      { class: "row" },
      numeric && h("button", { "data-key": "auto edge", disabled: busy, onclick: () => actions.step("auto", { edges: [shown.edge] }) }, "Auto"),
      !numeric && shown.kind !== "pruned" && h("button", { "data-key": "unfix", disabled: busy, onclick: () => actions.step("unfix", { edge: shown.edge }) }, "Unfix"),
      shown.kind === "pruned"
        ? h("button", { "data-key": "restore", disabled: busy, onclick: () => actions.step("restore_edge", { edge: shown.edge }) }, "Restore")
        : h("button", { "data-key": "remove", disabled: busy, onclick: () => actions.step("remove_edge", { edge: shown.edge }) }, "Remove"),
    ),
    all(context),
  );
}

function format([a, b, c, d]) {
  const show = (value) => (value === null ? "–" : String(Number(value.toPrecision(4))).replace("-", "−"));
  return `c·f(a·x + b) + d with a = ${show(a)}, b = ${show(b)}, c = ${show(c)}, d = ${show(d)}`;
}

const squared = ({ r2 }) => r2?.toFixed(5) ?? "–";

function candidates(shown, look, actions, busy) {
  if (!shown.candidates.length) return h("p", { class: "muted" }, "No function of the library fits this edge well.");
  return h(
    "ol",
    { class: "candidates", "aria-label": "Functions that fit, the best first" },
    shown.candidates.map((one) =>
      h(
        "li",
        {},
        h(
          "button",
          {
            "data-key": `fix ${one.name}`,
            disabled: busy,
            "aria-label": `Fix as ${one.name}, R squared ${squared(one)}`,
            onclick: () => actions.step("fix", { edge: shown.edge, function: one.name }),
            onpointerenter: () => look(one),
            onpointerleave: () => look(null),
            onfocus: () => look(one),
            onblur: () => look(null),
          },
          h("span", { class: "function" }, one.name),
          h("span", { class: "muted" }, `R² ${squared(one)}`),
        ),
      ),
    ),
  );
}

function other(shown, actions, busy) {
  const list = h("select", { "aria-label": "Another function", "data-key": "function" }, shown.functions.map((one) => h("option", {}, one)));
  return h("div", { class: "row" }, list, h("button", { "data-key": "fix other", disabled: busy, onclick: () => actions.step("fix", { edge: shown.edge, function: list.value }) }, "Fix as this"));
}

function all({ view, actions, busy }) {
  const left = view.network.numeric;
  return h("div", { class: "tool" }, h("button", { class: "wide", "data-key": "auto all", disabled: busy || !left, onclick: () => actions.step("auto", {}) }, left ? `Auto symbols for all ${left} splines` : "Every edge has a symbol"));
}
