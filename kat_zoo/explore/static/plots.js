// Small plots as SVG. Colors come from the style sheet.

import { digits, h, svg } from "./dom.js";

export function range(values, pad = 0.05) {
  const known = values.filter((value) => value !== null && Number.isFinite(value));
  if (!known.length) return [0, 1];
  let low = Math.min(...known);
  let high = Math.max(...known);
  if (low === high) {
    low -= Math.abs(low) * 0.1 || 1;
    high += Math.abs(high) * 0.1 || 1;
  }
  return [low - pad * (high - low), high + pad * (high - low)];
}

const scale = ([low, high], from, to) => (value) => from + ((value - low) / (high - low)) * (to - from);

export function path(xs, ys, x, y) {
  let text = "";
  let pen = "M";
  for (let n = 0; n < ys.length; n += 1) {
    if (ys[n] === null || xs[n] === null) {
      pen = "M";
      continue;
    }
    text += `${pen}${x(xs[n]).toFixed(1)} ${y(ys[n]).toFixed(1)}`;
    pen = "L";
  }
  return text;
}

export function bars(counts, width = 72, height = 20) {
  const top = Math.max(...counts, 1);
  const step = width / counts.length;
  return svg(
    "svg",
    { class: "bars", viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" },
    counts.map((count, n) =>
      svg("rect", { x: n * step + 0.25, width: step - 0.5, y: height - (height * count) / top, height: (height * count) / top }),
    ),
  );
}

function nice([low, high], wanted) {
  const raw = (high - low) / wanted;
  const size = 10 ** Math.floor(Math.log10(raw));
  const step = size * ([1, 2, 5].find((one) => one * size >= raw) ?? 10);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step) found.push(Math.abs(value) < step * 1e-9 ? 0 : value);
  return found;
}

// Whole powers of ten; in a range of few decades their multiples by 2 and 5, too.
function decades([low, high]) {
  const every = Math.max(1, Math.ceil((high - low) / 5));
  const found = [];
  for (let power = Math.floor(low); power <= high; power += 1) {
    for (const times of high - low < 2 ? [1, 2, 5] : [1]) {
      const value = power + Math.log10(times);
      if (value >= low && value <= high && power % every === 0) found.push(value);
    }
  }
  return found;
}

// A range that is not so narrow that rounding errors look like a function.
export function wide([low, high], least) {
  if (high - low >= least) return [low, high];
  const middle = (low + high) / 2;
  return [middle - least / 2, middle + least / 2];
}

// Ticks and their texts; of two that read alike, as in a range of few digits, the first.
function apart(ticks, write) {
  const texts = ticks.map((value) => write(value));
  return ticks.map((value, n) => [value, texts[n]]).filter(([, text], n) => text !== texts[n - 1]);
}

// The width of a large plot: its text is not shrunk on a narrow screen.
export const large = () => (window.matchMedia("(max-width: 760px)").matches ? 330 : 480);

// A frame with axes; `draw` gets the scales and returns the marks.
export function plot({ xs, ys, label, x: xlabel, y: ylabel, logY = false, width = 320, height = 200, least = 0, draw, below }) {
  const box = { left: ylabel ? 66 : 46, right: width - 10, top: 10, bottom: height - 34 };
  const to = logY ? (value) => Math.log10(Math.max(value ?? 1e-17, 1e-17)) : (value) => value;
  const xr = range(xs);
  const yr = wide(range(ys.map((value) => (value === null ? null : to(value))), 0.08), least);
  const x = scale(xr, box.left, box.right);
  const yy = scale(yr, box.bottom, box.top);
  const y = (value) => yy(to(value));
  const xt = nice(xr, 4);
  let yt = nice(yr, 4);
  if (logY) yt = decades(yr);
  const tick = (value) => digits(logY ? Number((10 ** value).toPrecision(6)) : value);
  return svg(
    "svg",
    { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
    below?.(x, y, box),
    apart(xt, digits).map(([value, text]) => svg("text", { x: x(value), y: box.bottom + 14, "text-anchor": "middle" }, text)),
    yt.map((value) => svg("line", { class: "grid", x1: box.left, x2: box.right, y1: yy(value), y2: yy(value) })),
    apart(yt, tick).map(([value, text]) => svg("text", { x: box.left - 6, y: yy(value) + 3.5, "text-anchor": "end" }, text)),
    svg("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }),
    xlabel && svg("text", { class: "label", x: (box.left + box.right) / 2, y: height - 5, "text-anchor": "middle" }, xlabel),
    ylabel && svg("text", { class: "label", x: 12, y: (box.top + box.bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${(box.top + box.bottom) / 2})` }, ylabel),
    draw(x, y, box),
  );
}

export function density(counts) {
  return (x, y, box) => {
    if (!counts.length) return null;
    const top = Math.max(...counts);
    const step = (box.right - box.left) / 1.1 / counts.length;
    const left = box.left + (box.right - box.left) * (0.05 / 1.1);
    return counts.map((count, n) => {
      const size = (0.4 * (box.bottom - box.top) * count) / top;
      return svg("rect", { class: "density", x: left + n * step, width: step, y: box.bottom - size, height: size });
    });
  };
}

export function losses(rows) {
  const steps = rows.map((row) => row[0]);
  return h(
    "figure",
    {},
    plot({
      xs: steps.length > 1 ? steps : [0, ...steps],
      ys: rows.flatMap((row) => [row[1], row[2]]),
      label: `Error against steps; the last held-out error is ${digits(rows.at(-1)[2])} of the target's spread`,
      x: "step",
      logY: true,
      height: 150,
      width: 300,
      draw: (x, y) => [
        svg("path", { class: "line", d: path(steps, rows.map((row) => row[1]), x, y) }),
        svg("path", { class: "line held", d: path(steps, rows.map((row) => row[2]), x, y) }),
        rows.at(-1)[2] !== null && svg("circle", { class: "dot held", cx: x(steps.at(-1)), cy: y(rows.at(-1)[2]), r: 3 }),
      ],
    }),
    h("figcaption", { class: "legend" }, h("span", { class: "key" }), "training", h("span", { class: "key held" }), "held out"),
  );
}
