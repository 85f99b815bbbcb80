// The second tab: one image through the shipped models.

import { dropzone, h, heading, redraw, svg } from "./dom.js";
import { density, path, plot } from "./plots.js";

const SAMPLES = 24;
let sheet = null; // undefined while it is on its way
let missing = ""; // why it is not there
let answers = null;
let state = "";

export async function vision(root, session) {
  draw(root, session);
  await retry(root, session);
}

// Asks for the samples where they are not there: while a step is being made they are refused.
export async function retry(root, session) {
  if (sheet !== null) return;
  sheet = undefined;
  try {
    sheet = await session.sheet();
    missing = "";
  } catch (error) {
    sheet = null;
    missing = error.message;
  }
  draw(root, session);
}

function draw(root, session) {
  const take = async (file, sample) => {
    state = "loading";
    answers = null;
    draw(root, session);
    try {
      answers = await session.vision(file, sample);
      state = "";
    } catch (error) {
      state = error.message;
    }
    draw(root, session);
  };
  redraw(
    root,
    h(
      "section",
      { class: "card", "aria-labelledby": "h-image" },
      heading("h-image", null, "An image"),
      h("p", { class: "muted" }, "The shipped models tell ten kinds of clothes apart, in gray images of 28 × 28 pixels. Any image is brought to that form."),
      h("div", { class: "pick" }, dropzone({ label: "Drop an image, or choose one", hint: "It stays on this machine.", accept: "image/*", key: "image", take: (file) => take(file) }), sheet ? gallery(take) : h("div", { class: "skeleton" })),
      missing && h("p", { role: "alert", class: "warn" }, missing),
      state && state !== "loading" && h("p", { role: "alert", class: "warn" }, state),
    ),
    state === "loading" && h("div", { class: "card skeleton tall", "aria-label": "The models answer" }),
    answers && h("div", { class: "models" }, answers.models.map((model) => card(model, answers.classes))),
    answers && answers.models.filter((model) => model.activations.length).map(activations),
  );
}

function gallery(take) {
  const side = sheet.picture.width / sheet.size;
  return h(
    "div",
    { class: "gallery", role: "group", "aria-label": "Sample images" },
    Array.from({ length: SAMPLES }, (_, n) => {
      const canvas = h("canvas", { width: sheet.size, height: sheet.size });
      canvas.getContext("2d").drawImage(sheet.picture, (n % side) * sheet.size, Math.floor(n / side) * sheet.size, sheet.size, sheet.size, 0, 0, sheet.size, sheet.size);
      return h("button", { class: "sample", "data-key": `sample ${n}`, "aria-label": `Sample ${n + 1}: ${sheet.classes[sheet.labels[n]]}`, title: sheet.classes[sheet.labels[n]], onclick: () => take(undefined, n) }, canvas);
    }),
  );
}

function card(model, classes) {
  const order = model.probabilities.map((share, n) => [share, classes[n]]).sort((a, b) => b[0] - a[0]);
  return h(
    "article",
    { class: "card model", "aria-label": model.name },
    h("h2", { class: "wrap" }, model.name.split(".")[0]),
    h("p", { class: "muted" }, `${model.parameters.toLocaleString("en")} parameters`),
    h("div", { class: "row" }, h("img", { src: model.input, alt: "The image as the model sees it", class: "seen" }), h("p", { class: "answer" }, order[0][1], h("span", { class: "muted" }, ` ${(100 * order[0][0]).toFixed(1)} %`))),
    h("ul", { class: "shares" }, order.slice(0, 4).map(([share, label]) => h("li", {}, h("span", {}, label), meter(share), h("span", { class: "muted" }, `${(100 * share).toFixed(1)} %`)))),
    model.attention.map((layer, n) => h("figure", {}, h("figcaption", { class: "muted" }, `Where the ${n ? "last" : "first"} layer looks, by head`), h("div", { class: "maps" }, layer.heads.map((source, head) => h("img", { src: source, alt: `Attention of head ${head + 1}` }))))),
  );
}

function meter(share) {
  return svg("svg", { class: "meter", viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" }, svg("rect", { class: "track", width: 100, height: 6, rx: 3 }), svg("rect", { width: Math.max(100 * share, 0.5), height: 6, rx: 3 }));
}

function activations(model) {
  return h(
    "section",
    { class: "card", "aria-label": `Learned functions of ${model.name}` },
    heading(null, null, `Learned functions of ${model.name.split(".")[0]}`, h("span", { class: "muted" }, "in blue, this image's own inputs")),
    h(
      "div",
      { class: "activations" },
      model.activations.map((one) => {
        const xs = one.curves[0].map((_, n) => one.range[0] + ((one.range[1] - one.range[0]) * n) / (one.curves[0].length - 1));
        return h("figure", {}, plot({ xs, ys: one.curves.flat(), width: 220, height: 150, label: `${one.name}: ${one.text}, over the inputs of this image`, below: density(one.bars), draw: (x, y) => one.curves.map((curve) => svg("path", { class: "line thin", d: path(xs, curve, x, y) })) }), h("figcaption", { class: "muted" }, h("span", { class: "name" }, one.name), one.text));
      }),
    ),
  );
}
