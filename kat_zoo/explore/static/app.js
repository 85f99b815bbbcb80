// The page: one session, its state, and the panels that show it.

import { Session } from "./api.js";
import { data } from "./data.js";
import { digits, h, redraw } from "./dom.js";
import { formula } from "./formula.js";
import { edgePlot, network } from "./network.js";
import { symbols } from "./symbols.js";
import { live, train } from "./train.js";
import { retry, vision } from "./vision.js";

const at = (id) => document.getElementById(id);
const NAMES = { train: "Training", search: "Searching a formula", auto: "Finding symbols", open_file: "Reading the file", open_example: "Reading the example", repeat: "Repeating the session" };

const store = { view: null, examples: [], busy: "", news: {}, selected: null, version: 0, losses: [] };
let session;
let known = {};
let pending = ""; // the step that this page asks for, of which the server may not know yet
let asked = 0; // requests for the session's state, and the newest of them that was answered
let answered = 0;

const actions = {
  step: (name, options) => attempt(() => session.step(name, options), name),
  table: (file) => attempt(() => (file.name.endsWith(".json") ? session.repeat(file) : session.table(file)), "open_file"),
  go: (position) => attempt(() => session.go(position), "history"),
  select(selected) {
    store.selected = selected;
    draw();
  },
  async prune(threshold) {
    if (store.busy) return null;
    try {
      return await session.prune(threshold);
    } catch (error) {
      complain(error.message);
      return null;
    }
  },
  late(work, wait = 120) {
    let timer = 0;
    return () => {
      clearTimeout(timer);
      timer = setTimeout(work, wait);
    };
  },
  peek,
  units() {
    train(at("train"), context());
    if (store.busy === "train") live(store.losses);
  },
  async copy(text, what) {
    try {
      await navigator.clipboard.writeText(text);
      announce(`${what} copied.`);
    } catch {
      complain(`The browser refused the clipboard. ${what}: ${text}`);
    }
  },
};

async function attempt(work, name) {
  if (store.busy) return;
  complain("");
  pending = store.busy = name;
  store.news = {};
  store.losses = name === "train" ? [] : store.losses;
  draw();
  try {
    await work();
  } catch (error) {
    complain(error.message);
  }
  pending = "";
  await refresh();
}

async function refresh() {
  asked += 1;
  const turn = asked;
  try {
    const shown = await session.show();
    if (turn < answered) return; // answers may overtake each other
    answered = turn;
    take(shown);
  } catch (error) {
    complain(error.message);
    store.busy = pending;
    draw();
  }
}

function take(shown) {
  Object.assign(store, { view: shown.view, examples: shown.examples, busy: shown.busy || pending });
  if (shown.busy || !pending) store.news = shown.news;
  if (shown.busy) {
    const { loss } = shown.news;
    if (!loss || store.losses.at(-1)?.[0] > loss[0]) store.losses = [];
    follow(loss);
  }
  store.version += 1;
  known = {};
  const edges = store.view?.network?.edges ?? [];
  if (store.selected?.edge && !edges.some((one) => one.edge.join() === store.selected.edge.join())) store.selected = null;
  draw();
  if (!store.busy && !at("vision-view").hidden) retry(at("vision-view"), session);
}

// The error after a part of a training, once.
function follow(loss) {
  if (loss && store.losses.at(-1)?.[0] !== loss[0]) store.losses.push(loss);
}

function hear(news) {
  if (news.changed) return refresh();
  if (news.closed) return complain(news.closed);
  if (news.busy) {
    store.busy = news.busy;
    store.news = {};
    store.losses = [];
    return draw();
  }
  if (!news.news || !store.busy) return;
  Object.assign(store.news, news.news);
  if (news.news.loss) {
    follow(news.news.loss);
    live(store.losses);
  }
  status();
}

function announce(text) {
  redraw(at("status"), h("p", { class: "said" }, text));
}

function complain(text) {
  redraw(at("alert"), text && h("div", { class: "alert" }, h("p", { class: "wrap" }, text), h("button", { class: "plain", "aria-label": "Close the message", onclick: () => complain("") }, "Close")));
}

function status() {
  const { busy, news } = store;
  if (!busy || busy === "history") return redraw(at("status"));
  const share = news.progress;
  const text = news.loss ? `step ${news.loss[0]}, error ${digits(news.loss[2], 2)}` : (news.text ?? "").replace("formula search: ", "");
  redraw(
    at("status"),
    h(
      "div",
      { class: "busy" },
      h("span", {}, `${NAMES[busy] ?? "Working"} …`),
      h("progress", { max: 1, value: share ?? null, "aria-label": "Progress" }),
      h("span", { class: "muted grow" }, text),
      h("button", { "data-key": "stop", onclick: () => session.stop().catch((error) => complain(error.message)) }, "Stop"),
    ),
  );
}

function past() {
  const found = store.view?.history ?? { steps: [], position: 0 };
  redraw(
    at("history"),
    h("button", { class: "small", "data-key": "undo", disabled: store.busy || !found.position, title: "Ctrl-Z", onclick: () => actions.go(found.position - 1) }, "Undo"),
    h("button", { class: "small", "data-key": "redo", disabled: store.busy || found.position >= found.steps.length, title: "Ctrl-Shift-Z", onclick: () => actions.go(found.position + 1) }, "Redo"),
    h(
      "details",
      { class: "menu", "data-key": "history" },
      h("summary", {}, "History"),
      h(
        "ol",
        {},
        !found.steps.length && h("li", { class: "muted" }, "Nothing has been done yet."),
        found.steps.map((text, n) =>
          h("li", {}, h("button", { class: `plain ${n >= found.position ? "undone" : ""}`, "data-key": `step ${n}`, "aria-current": n === found.position - 1 ? "step" : null, disabled: Boolean(store.busy), onclick: () => actions.go(n + 1) }, text)),
        ),
      ),
    ),
  );
}

const context = () => ({ ...store, busy: Boolean(store.busy), session, actions });

function draw() {
  peek(null);
  document.body.classList.toggle("working", Boolean(store.busy));
  for (const [id, panel] of Object.entries({ data, train, network, symbols, formula })) panel(at(id), context());
  if (store.busy === "train") live(store.losses);
  past();
  status();
}

// A large plot beside the pointer, while it rests on an edge.
let shown = null;
async function peek(edge, event) {
  clearTimeout(peek.timer);
  peek.current = null;
  shown?.remove();
  shown = null;
  if (!edge || store.busy) return;
  const { clientX, clientY } = event;
  peek.timer = setTimeout(async () => {
    const key = edge.join();
    const place = known;
    try {
      place[key] ??= await session.edge(edge);
    } catch {
      return;
    }
    if (peek.current !== key || place !== known || !place[key] || !store.view?.network) return;
    shown = h("div", { class: "peek card", "aria-hidden": "true" }, edgePlot(store.view.network, place[key]));
    shown.style.left = `${Math.max(8, Math.min(clientX + 24, window.innerWidth - 348))}px`;
    shown.style.top = `${Math.max(8, Math.min(clientY - 120, window.innerHeight - 260))}px`;
    document.body.append(shown);
  }, 200);
  peek.current = edge.join();
}

function tabs() {
  const all = ["formula", "vision"];
  const choose = (name) => {
    for (const one of all) {
      at(`tab-${one}`).setAttribute("aria-selected", String(one === name));
      at(`tab-${one}`).tabIndex = one === name ? 0 : -1;
      at(`${one}-view`).hidden = one !== name;
    }
    if (name === "vision" && session) vision(at("vision-view"), session);
  };
  for (const [n, name] of all.entries()) {
    at(`tab-${name}`).addEventListener("click", () => choose(name));
    at(`tab-${name}`).addEventListener("keydown", (event) => {
      if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
      const next = all[1 - n];
      choose(next);
      at(`tab-${next}`).focus();
    });
  }
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") document.querySelector("details.menu[open]")?.removeAttribute("open");
  if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z" || event.target.matches("input[type=text], input[type=search]")) return;
  event.preventDefault();
  const { position, steps } = store.view?.history ?? { position: 0, steps: [] };
  const next = position + (event.shiftKey ? 1 : -1);
  if (next >= 0 && next <= steps.length) actions.go(next);
});

tabs(); // before the session is there, which takes seconds: a click is not lost
try {
  const opened = await Session.open();
  session = opened.session;
  if (!at("vision-view").hidden) vision(at("vision-view"), session);
  take(opened.shown);
  complain(opened.told);
  session.listen(hear, refresh);
} catch (error) {
  complain(error.message);
}
