// Elements are made one by one: text of a file never becomes markup.

const SVG = "http://www.w3.org/2000/svg";
const MATH = "http://www.w3.org/1998/Math/MathML";
const MATH_TAGS = new Set(
  "math mrow mi mn mo mtext mfrac msup msub msubsup msqrt mroot mfenced mtable mtr mtd mover munder mstyle mspace".split(" "),
);

function swallow(event) {
  event.preventDefault();
  event.stopImmediatePropagation();
}

// A button or link that is disabled says so, and does nothing, but may keep the focus: a user of the keyboard stays where they are while a
// step is being made. Browsers take the focus from those with the attribute `disabled`.
export function disable(node, value) {
  if (value) {
    node.setAttribute("aria-disabled", "true");
    node.addEventListener("click", swallow, true);
  } else {
    node.removeAttribute("aria-disabled");
    node.removeEventListener("click", swallow, true);
  }
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "disabled" && ["BUTTON", "A"].includes(node.tagName)) disable(node, value);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// Replace the content of a panel. The focus stays on the element with the same data-key, or the summary of such details; where there is no
// such any more it stays in the panel, so that the next Tab does not begin at the top of the page.
export function redraw(root, ...children) {
  const focus = root.contains(document.activeElement) ? document.activeElement : null;
  const summary = focus?.tagName === "SUMMARY";
  const key = (summary ? focus.parentElement : focus)?.dataset.key;
  const open = new Set([...root.querySelectorAll("details[open][data-key]")].map((one) => one.dataset.key));
  const scrolled = [...root.querySelectorAll("[data-scroll]")].map((one) => [one.dataset.scroll, one.scrollTop]);
  root.replaceChildren(...children.flat(Infinity).filter(Boolean));
  for (const one of root.querySelectorAll("details[data-key]")) if (open.has(one.dataset.key)) one.open = true;
  for (const [name, top] of scrolled) {
    const found = root.querySelector(`[data-scroll="${name}"]`);
    if (found) found.scrollTop = top;
  }
  if (!focus) return;
  const again = key && [...root.querySelectorAll("[data-key]")].find((one) => one.dataset.key === key);
  if (again) (summary ? again.querySelector("summary") : again).focus({ preventScroll: true });
  if (root.contains(document.activeElement)) return;
  root.tabIndex = -1;
  root.focus({ preventScroll: true });
}

// MathML from lists [tag, text or children].
export function math(tree) {
  const [tag, content] = tree;
  const node = document.createElementNS(MATH, MATH_TAGS.has(tag) ? tag : "mrow");
  if (Array.isArray(content)) node.append(...content.map(math));
  else node.textContent = content;
  return node;
}

export function formula(...trees) {
  const node = document.createElementNS(MATH, "math");
  node.setAttribute("display", "block");
  node.append(...trees.map(math));
  return node;
}

// A number in few digits.
export function digits(value, count = 4) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 1e5 || size < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(count)));
  return text.replace(".0e", "e").replace("e+", "e").replaceAll("-", "−");
}

export function percent(share) {
  if (share === null || share === undefined) return "–";
  return share !== 0 && share < 1e-4 ? digits(share) : `${Number((100 * share).toPrecision(2))} %`;
}

export const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

export function heading(id, number, text, ...more) {
  return h("div", { class: "heading" }, h("h2", { id }, number && h("span", { class: "number", "aria-hidden": "true" }, number), text), ...more);
}

export function dropzone({ label, hint, accept, key, take }) {
  const input = h("input", { type: "file", accept, class: "hidden", "aria-label": label, "data-key": key });
  input.addEventListener("change", () => input.files[0] && take(input.files[0]));
  const zone = h("label", { class: "drop" }, input, h("strong", {}, label), h("span", { class: "muted" }, hint));
  zone.addEventListener("dragover", (event) => {
    event.preventDefault();
    zone.classList.add("over");
  });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  });
  return zone;
}
