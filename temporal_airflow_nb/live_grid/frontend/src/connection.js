/** The conversation with the kernel: messages in order, requests and their answers; and what the person has chosen. */

import { RunStore } from "./store.js";

const PATIENCE = 60_000;
const GONE = "The kernel is gone.";
const VIEWS = ["grid", "graph", "gantt"];
/** A DAG of more nodes than this starts with its groups folded. */
const LARGE = 80;

/** What the person has chosen; kept while the page is open, wherever the widget is mounted. */
class Choices {
  constructor(view) {
    this.view = VIEWS.includes(view) ? view : "grid";
    /** @type {Set<string>} groups that are unfolded */
    this.open = new Set();
    /** @type {Set<string>} mapped tasks whose instances are shown */
    this.expanded = new Set();
    this.filter = "";
    /** @type {Set<string>} only tasks in these states, if any */
    this.states = new Set();
    /** @type {{id: string, index: number, attempt: number | null} | null} the task in the panel */
    this.selected = null;
    /** The panel's page; null for the one that says most. */
    this.tab = null;
    this.version = 0;
  }
}

export class Link {
  /** @param {any} model anywidget's */
  constructor(model) {
    this.model = model;
    this.store = new RunStore();
    this.ui = new Choices(model.get("view"));
    this.live = true;
    this.pending = new Map();
    this.listeners = new Set();
    // Several views of one model hear each other's answers.
    this.lastId = Math.floor(Math.random() * 2 ** 40);
    this.askedForAll = 0;
    this.handlers = {
      "msg:custom": (message) => this.#hear(message),
      "change:state": () => this.#load(model.get("state")),
      "change:view": () => this.choose({ view: model.get("view") }),
      comm_live_update: () => this.#setLive(model.comm_live === true),
    };
    for (const [event, handler] of Object.entries(this.handlers)) model.on(event, handler);
    this.#load(model.get("state"));
  }

  close() {
    for (const [event, handler] of Object.entries(this.handlers)) this.model.off(event, handler);
    this.#setLive(false);
  }

  /** Be called after each change. Returns how to stop that. */
  subscribe(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  changed() {
    for (const listener of this.listeners) listener();
  }

  /** @param {Partial<Choices>} choices */
  choose(choices) {
    Object.assign(this.ui, choices);
    this.ui.version++;
    this.changed();
  }

  /** Open another view, here and for whoever asks the kernel. */
  show(view) {
    this.choose({ view });
    this.request("view", { view }).catch(() => {});
  }

  /** Say that the widget is seen. What changed before this page listened is asked for. */
  mounted() {
    this.request("mounted").then(
      ({ seq }) => seq > this.store.seq && this.#askForAll(),
      () => {},
    );
  }

  /** Open a task in the panel; a mapped one at the instance that matters most now. */
  open(id, index = -1) {
    const one = this.store.instance(id, index) ?? this.store.foremost(id);
    const selected = { id, index: one?.index ?? index, attempt: null };
    this.choose({ selected, tab: this.ui.tab === "error" ? null : this.ui.tab });
  }

  /** Follow another run of the DAG. */
  focus(runId) {
    if (runId === this.store.runId || this.focusing === runId) return;
    this.focusing = runId;
    this.changed();
    this.request("focus", { run_id: runId }).catch((error) => {
      this.focusing = null;
      this.notice = { text: error.message, hint: error.hint, bad: true };
      this.changed();
    });
  }

  /**
   * Ask the kernel.
   *
   * @returns {Promise<any>} its answer; rejected with an `Error` that may have a `hint`
   */
  request(op, body = {}) {
    const id = ++this.lastId;
    return new Promise((resolve, reject) => {
      if (!this.live) return reject(new Error(GONE));
      const timer = setTimeout(() => {
        this.pending.delete(id);
        reject(new Error("The kernel doesn't answer. It may be busy with a cell."));
      }, PATIENCE);
      this.pending.set(id, { resolve, reject, timer });
      this.model.send({ type: "request", id, op, ...body });
    });
  }

  #hear(message) {
    if (!this.live) this.#setLive(true);
    if (message.type === "delta") this.#delta(message);
    else if (message.type === "full") this.#load(message.state);
    else if (message.type === "connection") {
      this.store.connection = { ok: message.ok, text: message.text };
      this.changed();
    } else if (message.type === "answer") this.#answer(message);
  }

  #answer({ id, ok, data, error }) {
    const asked = this.pending.get(id);
    if (!asked) return;
    this.pending.delete(id);
    clearTimeout(asked.timer);
    if (ok) asked.resolve(data);
    else asked.reject(Object.assign(new Error(error?.message || "That didn't work."), { hint: error?.hint || "" }));
  }

  #delta(delta) {
    const { store } = this;
    if (delta.seq <= store.seq) return;
    if (delta.seq !== store.seq + 1) return this.#askForAll();
    store.apply(delta);
    store.loaded = true;
    this.#unfold();
    this.changed();
  }

  /** What a small DAG looks like at first, as soon as its tasks are known. */
  #unfold() {
    const { store, ui } = this;
    if (this.unfolded || store.nodes.size === 0) return;
    this.unfolded = true;
    if (store.nodes.size > LARGE) return;
    for (const node of store.nodes.values()) if (node.group) ui.open.add(node.id);
    ui.version++;
  }

  #askForAll() {
    // One answer heals the gap, whatever arrives meanwhile.
    if (Date.now() - this.askedForAll < 2000) return;
    this.askedForAll = Date.now();
    this.request("full").then(
      (state) => this.#load(state),
      () => {},
    );
  }

  #load(state) {
    if (!state || !state.dag_id) return;
    const { store, ui } = this;
    const other = store.runId !== state.run_id;
    store.load(state);
    this.askedForAll = 0;
    this.focusing = null;
    this.#unfold();
    if (other && ui.selected) ui.selected = store.nodes.has(ui.selected.id) ? { ...ui.selected, attempt: null } : null;
    ui.version++;
    this.changed();
  }

  #setLive(live) {
    this.live = live;
    this.store.stand(!live);
    if (!live) {
      for (const { reject, timer } of this.pending.values()) {
        clearTimeout(timer);
        reject(new Error(GONE));
      }
      this.pending.clear();
    }
    this.changed();
  }
}
