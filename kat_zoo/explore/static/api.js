// Requests to the server. The token is a part of the page's own address, so every relative address carries it.

export class Failure extends Error {}

async function request(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Failure("The server does not answer. Is kat-zoo explore still running?");
  }
  if (answer.ok) return answer;
  let text = `The server refused (${answer.status}).`;
  let body = "";
  try {
    body = await answer.text();
    text = JSON.parse(body).error ?? text;
  } catch {
    if (answer.status === 413 && body) text = body;
  }
  const failure = new Failure(text);
  failure.status = answer.status;
  throw failure;
}

const STILL = 60_000; // milliseconds between two words of a hidden page
const KEY = `session ${location.pathname}`;

export class Session {
  // The session of this tab, which a reload keeps. One that the server cannot show any more is left, for the page must open; `told` says so.
  static async open() {
    const known = sessionStorage.getItem(KEY);
    let told = "";
    if (known) {
      const session = new Session(known);
      try {
        return { session, shown: await session.show() };
      } catch (error) {
        if (!error.status) throw error; // no answer at all: the session may still be there
        told = error.status === 404 ? "The session of this page has ended; this is a new one." : `The session of this page cannot be shown, so this is a new one. ${error.message}`;
      }
    }
    const { session: name } = await (await request("api/sessions", { method: "POST" })).json();
    sessionStorage.setItem(KEY, name);
    const session = new Session(name);
    return { session, shown: await session.show(), told };
  }

  constructor(name) {
    this.path = `api/sessions/${encodeURIComponent(name)}`;
  }

  async get(path) {
    return (await request(`${this.path}${path}`)).json();
  }

  async post(path, body) {
    return (await request(`${this.path}${path}`, { method: "POST", body })).json();
  }

  show = () => this.get("");
  step = (name, options) => this.post("/steps", JSON.stringify({ name, options }));
  table = (file) => this.post(`/table?name=${encodeURIComponent(file.name)}`, file);
  repeat = (file) => this.post("/repeat", file);
  go = (position) => this.post("/position", JSON.stringify({ position }));
  stop = () => this.post("/stop");
  edge = (edge) => this.get(`/edge?edge=${edge.join(",")}`);
  prune = (threshold) => this.get(`/prune?threshold=${threshold}`);
  vision = (file, sample) => this.post(sample === undefined ? "/vision" : `/vision?sample=${sample}`, file);

  async sheet() {
    const answer = await request(`${this.path}/vision/sheet`);
    return { ...JSON.parse(answer.headers.get("x-samples")), picture: await createImageBitmap(await answer.blob()) };
  }

  download(kind) {
    return `${this.path}/download/${kind}`;
  }

  // News, while the page is seen; `catchUp` is called whenever there may have been some that the page did not hear. Browsers keep six
  // connections to a server for all tabs, and a stream holds one: a page in a hidden tab gives its own back, and says that it is still there.
  listen(hear, catchUp) {
    let stream = null;
    let timer = 0;
    let over = false; // the session has ended, or the page is being left
    const still = () => request(`${this.path}/unseen`, { method: "POST" }).catch(() => {}); // the page finds out when it is seen again
    const look = () => {
      clearInterval(timer);
      if (over || document.hidden) {
        stream?.close();
        stream = null;
        if (over) return;
        still();
        timer = setInterval(still, STILL);
      } else if (!stream) {
        const mine = new EventSource(`${this.path}/events`);
        stream = mine;
        mine.addEventListener("open", catchUp);
        mine.addEventListener("error", () => mine.readyState === EventSource.CLOSED && mine === stream && catchUp());
        mine.addEventListener("message", (event) => {
          const news = JSON.parse(event.data);
          if (news.closed) turn(true);
          hear(news);
        });
      }
    };
    const turn = (value) => {
      over = value;
      look();
    };
    document.addEventListener("visibilitychange", look);
    window.addEventListener("pagehide", () => turn(true)); // a closed tab is hidden, too, but not still there
    window.addEventListener("pageshow", (event) => event.persisted && turn(false));
    look();
  }
}
