// 5. The formula: typeset, judged, copied; the front of length against error.

import { digits, formula as typeset, h, heading, percent, redraw, svg } from "./dom.js";
import { large, plot } from "./plots.js";

const LANGUAGES = { latex: "LaTeX", sympy: "SymPy", numpy: "NumPy", c: "C" };

export function formula(root, context) {
  const found = context.view?.formula;
  if (!found) {
    redraw(root, heading("h-formula", "5", "Formula"), h("p", { class: "muted" }, "The formula appears here, with its error on held-out rows."));
    return;
  }
  redraw(
    root,
    heading("h-formula", "5", "Formula", found.math && verdict(found)),
    found.math && h("div", { class: "math", tabindex: 0, role: "group", "aria-label": "Formula" }, typeset(found.target, ["mo", "="], found.math)),
    found.too_long && h("p", { class: "muted" }, "Most edges are splines, so there is no formula to read yet: prune, and make edges symbolic."),
    found.math && facts(found),
    found.math && keep(found, context),
    h("div", { class: "plots" }, found.residuals && residuals(found), found.front.length > 0 && front(found, context)),
    found.front.length > 0 && rows(found, context),
  );
}

function verdict(found) {
  if (!found.symbolic) return h("span", { class: "badge" }, "some edges are splines");
  if (found.exact) return h("span", { class: "badge good" }, `✓ exact on ${found.held.toLocaleString("en")} held-out rows`);
  return h("span", { class: "badge" }, found.held ? "not exact" : "not verified: too few rows");
}

function facts(found) {
  const rows = found.held ? `${found.held.toLocaleString("en")} held-out rows` : "the rows of the fit";
  if (!found.symbolic) return h("p", { class: "muted" }, `The network is off by ${percent(found.network_error)} of the target's spread on ${rows}. Edges φ have no symbol yet.`);
  return h("p", { class: "muted" }, `Off by ${percent(found.error)} of the target's spread on ${rows}; as printed, by ${percent(found.printed_error)}; from the network by at most ${percent(found.from_network)}.`);
}

function keep(found, { session, actions, busy }) {
  const code = { latex: found.latex, ...found.code };
  return h(
    "div",
    { class: "row wrap-row" },
    Object.entries(LANGUAGES)
      .filter(([kind]) => code[kind])
      .map(([kind, text]) => h("button", { "data-key": `copy ${kind}`, onclick: () => actions.copy(code[kind], text) }, `Copy ${text}`)),
    h("span", { class: "divider" }),
    [["network", "Network"], ["session", "Session"], ["script", "Python script"]].map(([kind, text]) => h("a", { class: "button", "data-key": `save ${kind}`, href: session.download(kind), download: true, disabled: busy }, `Save ${text.toLowerCase().replace("python", "Python")}`)),
  );
}

function residuals({ residuals: [predicted, left] }) {
  return h(
    "figure",
    {},
    h("h3", {}, "What is left"),
    plot({
      xs: predicted,
      ys: [...left, 0],
      label: "Residuals against predictions on the held-out rows",
      x: "predicted",
      width: large(),
      height: 240,
      y: "target − predicted",
      draw: (x, y, box) => [
        svg("line", { class: "axis", x1: box.left, x2: box.right, y1: y(0), y2: y(0) }),
        predicted.map((value, n) => value !== null && left[n] !== null && svg("circle", { class: "point strong", cx: x(value), cy: y(left[n]), r: 1.8 })),
      ],
    }),
  );
}

function front(found, { actions, busy }) {
  const lengths = found.front.map((row) => row.length);
  const errors = found.front.map((row) => Math.max(row.error ?? 1, 1e-16));
  const pick = (n) => !busy && found.front[n].symbolic && actions.step("take", { row: n });
  return h(
    "figure",
    {},
    h("h3", {}, "Length against error"),
    plot({
      xs: lengths,
      ys: errors,
      logY: true,
      width: large(),
      height: 240,
      label: "Formulas of the search: length against error",
      x: "length (nodes)",
      y: "error",
      draw: (x, y) => [
        svg("path", { class: "line thin", d: lengths.map((length, n) => `${n ? `H${x(length)}V` : `M${x(length)} `}${y(errors[n])}`).join("") }),
        found.front.map((row, n) =>
          svg("circle", { class: `front ${n === found.chosen ? "chosen" : ""} ${row.symbolic ? "" : "off"}`, cx: x(row.length), cy: y(errors[n]), r: n === found.chosen ? 7 : 5, onclick: () => pick(n) }, svg("title", {}, `length ${row.length}, error ${digits(row.error)}`)),
        ),
      ],
    }),
  );
}

function rows(found, { actions, busy }) {
  return h(
    "details",
    { "data-key": "front", open: true },
    h("summary", {}, "Formulas that no shorter one beats"),
    h(
      "ul",
      { class: "front-rows" },
      found.front.map((row, n) =>
        h(
          "li",
          {},
          h(
            "button",
            { "data-key": `take ${n}`, "aria-pressed": n === found.chosen ? "true" : "false", disabled: busy || !row.symbolic, "aria-label": `Take formula ${n + 1}, length ${row.length}, error ${digits(row.error)}`, onclick: () => actions.step("take", { row: n }) },
            h("span", { class: "muted" }, String(row.length)),
            h("span", { class: "muted" }, percent(row.error)),
            h("span", { class: "math small" }, typeset(row.math)),
          ),
        ),
      ),
    ),
  );
}
