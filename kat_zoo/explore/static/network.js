// 3. The network: nodes, and edges drawn as little plots in their transparency.

import { digits, h, heading, percent, plural, redraw, svg } from "./dom.js";
import { density, path, plot, range, wide } from "./plots.js";

const FEW = 14; // edges of a layer in one row
const LEAST = 0.08; // opacity of the weakest edge that is still seen
let threshold = 0.03;
let marked = new Set(); // edges that the preview of pruning marks

export const name = (edge) => edge.join(",");
export const nodeName = (network, layer, node) =>
  layer === 0 ? network.names[node] : layer === network.nodes.length - 1 ? network.target : `node ${layer}.${node + 1}`;

// The node that a sub-node belongs to: factors of a product share one.
function owner(network, layer, j) {
  const sums = network.nodes[layer + 1] - network.products[layer + 1];
  return j < sums ? j : sums + Math.floor((j - sums) / network.arity);
}

export function edgeTitle(network, [layer, i, j]) {
  return `${nodeName(network, layer, i)} → ${nodeName(network, layer + 1, owner(network, layer, j))}`;
}

export function network(root, context) {
  const { view, selected, actions, busy } = context;
  const found = view?.network;
  if (!found) {
    redraw(root, heading("h-network", "3", "Network"), h("div", { class: "empty" }, sketch(), h("p", { class: "muted" }, view?.data?.target ? "Find a formula, or train a network by hand." : "The network appears here. Every edge is a function that you can look at, name, or remove.")));
    return;
  }
  marked = new Set();
  const total = found.edges.filter((edge) => edge.kind !== "pruned").length + found.left_out;
  redraw(
    root,
    heading("h-network", "3", "Network", h("span", { class: "muted" }, `${found.nodes.join(" – ")} · ${plural(total, "edge")} · error ${percent(found.error)}`)),
    h("div", { class: "canvas", "data-scroll": "network" }, drawing(found, context)),
    found.left_out > 0 && h("p", { class: "muted" }, `${plural(found.left_out, "weak edge")} not drawn.`),
    h("p", { class: "legend" }, h("span", { class: "key" }), "spline", h("span", { class: "key symbol" }), "symbol", h("span", { class: "key gone" }), "removed"),
    pruning(root, found, actions, busy),
    layers(found, actions, busy),
    selected?.node && nodeActions(found, selected.node, actions, busy),
  );
}

function sketch() {
  const wires = [];
  for (const x of [60, 140, 220]) for (const from of [90, 190]) wires.push(svg("path", { d: `M${from} 110L${x} 60L140 12` }));
  return svg("svg", { class: "sketch", viewBox: "0 0 280 120", "aria-hidden": "true" }, wires, [[90, 110], [190, 110], [60, 60], [140, 60], [220, 60], [140, 12]].map(([cx, cy]) => svg("circle", { cx, cy, r: 4 })));
}

function drawing(found, { selected, actions }) {
  const groups = found.nodes.slice(1).map((_, layer) => found.edges.filter((edge) => edge.edge[0] === layer));
  const rows = groups.map((edges) => Math.min(4, Math.max(1, Math.ceil(edges.length / FEW))));
  const columns = Math.max(...groups.map((edges, layer) => Math.ceil(edges.length / rows[layer])), ...found.nodes);
  const width = Math.max(320, columns * 46 + 24);
  const side = 34;
  const height = 46 + rows.reduce((sum, count) => sum + 64 + count * (side + 16), 0);
  const at = (count, n) => ((n + 0.5) / count) * width;
  let floor = height - 26;
  const floors = [floor];
  for (const count of rows) floors.push((floor -= 64 + count * (side + 16)));
  const parts = { wires: [], boxes: [], nodes: [] };
  const order = [];
  groups.forEach((edges, layer) => {
    const sorted = [...edges].sort((a, b) => a.edge[2] - b.edge[2] || a.edge[1] - b.edge[1]);
    sorted.sort((a, b) => place(a) - place(b));
    function place({ edge: [, i, j] }) {
      return at(found.nodes[layer], i) + at(found.nodes[layer + 1], owner(found, layer, j)) + j * 1e-3;
    }
    const across = Math.ceil(sorted.length / rows[layer]);
    sorted.forEach((edge, n) => {
      const x = at(across, Math.floor(n / rows[layer])) + (rows[layer] > 1 ? ((n % rows[layer]) - (rows[layer] - 1) / 2) * 6 : 0);
      const y = floors[layer] - 34 - side / 2 - (n % rows[layer]) * (side + 16);
      const [, i, j] = edge.edge;
      const below = [at(found.nodes[layer], i), floors[layer]];
      const above = [at(found.nodes[layer + 1], owner(found, layer, j)), floors[layer + 1]];
      const opacity = edge.kind === "pruned" ? 0.35 : Math.max(LEAST, edge.opacity);
      parts.wires.push(svg("path", { class: `wire ${edge.kind === "pruned" ? "gone" : ""}`, d: `M${below}L${x} ${y + side / 2}M${x} ${y - side / 2}L${above}`, opacity, "data-wire": name(edge.edge) }));
      parts.boxes.push(box(found, edge, x, y, side, selected, actions));
      order.push(edge);
    });
  });
  floors.forEach((y, layer) => {
    for (let n = 0; n < found.nodes[layer]; n += 1) parts.nodes.push(node(found, layer, n, at(found.nodes[layer], n), y, width / found.nodes[layer], selected, actions));
  });
  const picture = svg("svg", { class: "network", viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `Network of ${plural(order.length, "edge")}. Arrow keys move from edge to edge, Enter selects one.` }, parts.wires, parts.nodes, parts.boxes);
  picture.style.minWidth = `${Math.min(width, 340)}px`;
  picture.style.maxWidth = `${Math.max(width, 420) * 1.15}px`;
  if (columns > FEW) picture.style.minWidth = `${width * 0.8}px`;
  const boxes = parts.boxes;
  const current = Math.max(0, order.findIndex((edge) => selected?.edge && name(edge.edge) === name(selected.edge)));
  boxes[current]?.setAttribute("tabindex", "0");
  picture.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    const here = boxes.indexOf(document.activeElement);
    if (!step || here < 0) return;
    event.preventDefault();
    boxes[here].setAttribute("tabindex", "-1");
    const next = boxes[(here + step + boxes.length) % boxes.length];
    next.setAttribute("tabindex", "0");
    next.focus();
  });
  return picture;
}

// A thousandth of the largest edge of the layer: below it a curve is drawn flat.
function leastSpan(found, [layer]) {
  const spans = found.edges.filter((edge) => edge.edge[0] === layer).map((edge) => Math.max(...edge.curve) - Math.min(...edge.curve));
  return 1e-3 * Math.max(...spans, 1e-12);
}

function box(found, edge, x, y, side, selected, actions) {
  const chosen = selected?.edge && name(selected.edge) === name(edge.edge);
  const [low, high] = wide(range(edge.curve, 0), leastSpan(found, edge.edge));
  const inner = side - 8;
  const px = (n) => x - inner / 2 + (n / (edge.curve.length - 1)) * inner;
  const py = (value) => y + inner / 2 - ((value - low) / (high - low)) * inner;
  const kind = edge.kind === "numeric" ? "spline" : edge.kind;
  const pick = () => actions.select({ edge: edge.edge });
  const symbol = !["numeric", "pruned"].includes(edge.kind);
  return svg(
    "g",
    {
      class: `edge ${edge.kind === "pruned" ? "gone" : symbol ? "symbol" : ""} ${chosen ? "chosen" : ""}`,
      role: "button",
      tabindex: -1,
      "aria-pressed": chosen ? "true" : "false",
      "aria-label": `Edge ${edgeTitle(found, edge.edge)}: ${kind === "pruned" ? "removed" : kind}, score ${digits(edge.score)}`,
      "data-key": `edge ${name(edge.edge)}`,
      "data-edge": name(edge.edge),
      onclick: pick,
      onkeydown: (event) => {
        if (event.key === "Enter" || event.key === " ") {
          event.preventDefault();
          pick();
        }
      },
      onpointerenter: (event) => event.pointerType === "mouse" && actions.peek(edge.edge, event),
      onpointerleave: () => actions.peek(null),
    },
    svg("rect", { x: x - side / 2, y: y - side / 2, width: side, height: side, rx: 5 }),
    edge.kind !== "pruned" && svg("path", { class: "curve", opacity: Math.max(LEAST, edge.opacity), d: path([...edge.curve.keys()], edge.curve, px, py) }),
    symbol && svg("text", { x, y: y + side / 2 + 10, "text-anchor": "middle", class: "function" }, edge.kind),
  );
}

function node(found, layer, n, x, y, room, selected, actions) {
  const outer = layer === 0 || layer === found.nodes.length - 1;
  const text = nodeName(found, layer, n);
  const fits = Math.max(3, Math.floor(room / 7));
  const short = text.length > fits ? `${text.slice(0, fits - 1)}…` : text;
  if (outer) {
    return svg("g", {}, svg("circle", { class: "node", cx: x, cy: y, r: 4 }), svg("text", { class: "node-name", x, y: layer === 0 ? y + 18 : y - 10, "text-anchor": "middle" }, svg("title", {}, text), short));
  }
  const product = n >= found.nodes[layer] - found.products[layer];
  const gone = found.removed[layer].includes(n);
  const chosen = selected?.node && selected.node[0] === layer && selected.node[1] === n;
  const pick = () => actions.select({ node: [layer, n] });
  return svg(
    "g",
    {
      class: `hidden-node ${gone ? "gone" : ""} ${chosen ? "chosen" : ""}`,
      role: "button",
      tabindex: 0,
      "aria-label": `${text}${product ? ", a product" : ""}${gone ? ", removed" : ""}, score ${digits(found.node_scores[layer][n])}`,
      "aria-pressed": chosen ? "true" : "false",
      "data-key": `node ${layer},${n}`,
      onclick: pick,
      onkeydown: (event) => (event.key === "Enter" || event.key === " ") && (event.preventDefault(), pick()),
    },
    svg("circle", { cx: x, cy: y, r: 14, class: "target" }),
    svg("circle", { class: "node", cx: x, cy: y, r: 5 }),
    product && svg("text", { x: x + 9, y: y + 4 }, "×"),
  );
}

function pruning(root, found, actions, busy) {
  const said = h("p", { class: "muted", "aria-live": "polite", id: "prune-preview" }, "Move the slider: what would go is marked, with the error that is left.");
  const button = h("button", { "data-key": "prune", disabled: busy, onclick: () => actions.step("prune", { threshold }) }, "Prune");
  const out = h("output", {}, digits(threshold));
  const input = h("input", { type: "range", min: -3, max: 0, step: 0.05, value: Math.log10(threshold), "data-key": "prune slider", "aria-label": "Prune below this score", "aria-valuetext": digits(threshold) });
  const preview = actions.late(async () => {
    const answer = await actions.prune(threshold);
    if (!answer) return;
    marked = new Set(answer.gone.map(name));
    for (const one of root.querySelectorAll("[data-edge]")) one.classList.toggle("going", marked.has(one.dataset.edge));
    for (const one of root.querySelectorAll("[data-wire]")) one.classList.toggle("going", marked.has(one.dataset.wire));
    said.textContent = answer.gone.length ? `${plural(answer.gone.length, "edge")} would go; ${answer.nodes.join(" – ")} left. The error: ${percent(answer.before)} → ${percent(answer.after)}, before training on.` : "Nothing would go.";
  });
  input.addEventListener("input", () => {
    threshold = Number((10 ** Number(input.value)).toPrecision(2));
    out.textContent = digits(threshold);
    input.setAttribute("aria-valuetext", digits(threshold));
    preview();
  });
  return h("div", { class: "tool" }, h("div", { class: "row" }, h("label", { class: "slider grow" }, h("span", {}, "Prune scores below"), out, input), button), said);
}

function layers(found, actions, busy) {
  const rows = found.nodes.slice(1).map((_, layer) => {
    const numeric = found.edges.filter((edge) => edge.edge[0] === layer && edge.kind === "numeric").map((edge) => edge.edge);
    return h(
      "span",
      { class: "row" },
      h("span", { class: "muted" }, `Layer ${layer + 1}`),
      h("button", { class: "small", "data-key": `auto ${layer}`, disabled: busy || !numeric.length, onclick: () => actions.step("auto", { edges: numeric }) }, "Auto symbols"),
      layer < found.nodes.length - 2 && h("button", { class: "small", "data-key": `add ${layer}`, disabled: busy, onclick: () => actions.step("add_node", { layer: layer + 1 }) }, "Add a node"),
    );
  });
  return h("div", { class: "row wrap-row" }, rows);
}

function nodeActions(found, [layer, n], actions, busy) {
  if (layer >= found.nodes.length - 1 || n >= found.nodes[layer]) return null;
  return h(
    "div",
    { class: "row tool" },
    h("strong", {}, nodeName(found, layer, n)),
    h("span", { class: "muted grow" }, `score ${digits(found.node_scores[layer][n])}`),
    found.removed[layer].includes(n)
      ? h("button", { "data-key": "restore node", disabled: busy, onclick: () => actions.step("restore_node", { layer, node: n }) }, "Restore node")
      : h("button", { "data-key": "remove node", disabled: busy || found.removed[layer].length >= found.nodes[layer] - 1, onclick: () => actions.step("remove_node", { layer, node: n }) }, "Remove node"),
  );
}

export function edgePlot(found, shown, fits = [], label = "") {
  return plot({
    xs: shown.x,
    ys: [...shown.y, ...fits.flatMap((fit) => fit.fit)],
    label: label || `Function of the edge ${edgeTitle(found, shown.edge)} with the data's density`,
    x: nodeName(found, shown.edge[0], shown.edge[1]),
    height: 210,
    least: leastSpan(found, shown.edge),
    below: density(shown.density),
    draw: (x, y) => [
      shown.points[0].map((value, n) => value !== null && shown.points[1][n] !== null && svg("circle", { class: "point", cx: x(value), cy: y(shown.points[1][n]), r: 1.6 })),
      svg("path", { class: `line ${["numeric", "pruned"].includes(shown.kind) ? "" : "symbol"}`, d: path(shown.x, shown.y, x, y) }),
      fits.map((fit) => svg("path", { class: "line fit", d: path(shown.x, fit.fit, x, y) })),
    ],
  });
}
