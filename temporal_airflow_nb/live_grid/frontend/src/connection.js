/** The connection to the kernel: ordered messages, requests with their answers, and the choices of the user. */

import { RunStore } from "./store.js";

/** Milliseconds to wait for an answer. */
const ANSWER_TIMEOUT = 60_000;
const KERNEL_GONE = "The kernel has stopped.";
const VIEWS = ["grid", "graph", "gantt"];
/** The groups of a DAG are collapsed at first if it has more nodes than this. */
const MAX_NODES_EXPANDED = 80;

/** The choices of the user. All places where the widget is mounted share them while the page is open. */
class Choices {
  constructor(view) {
    this.view = VIEWS.includes(view) ? view : "grid";
    /** @type {Set<string>} expanded groups */
    this.open = new Set();
    /** @type {Set<string>} mapped tasks whose instances are shown */
    this.expanded = new Set();
    this.filter = "";
    /** @type {Set<string>} only tasks in these states, if any */
    this.states = new Set();
    /** @type {{id: string, index: number, attempt: number | null} | null} the task in the panel */
    this.selected = null;
    /** The tab of the panel; null for the most informative one. */
    this.tab = null;
    this.version = 0;
  }
}

export class Link {
  /** @param {any} model the model of anywidget */
  constructor(model) {
    this.model = model;
    this.store = new RunStore();
    this.ui = new Choices(model.get("view"));
    this.live = true;
    this.pending = new Map();
    this.listeners = new Set();
    // Random, because several views of one model receive each other's answers.
    this.lastId = Math.floor(Math.random() * 2 ** 40);
    this.fullRequestedAt = 0;
    this.handlers = {
      "msg:custom": (message) => this.#receive(message),
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

  /** Call `listener` after each change. Returns a function that ends the calls. */
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

  /** Switch to another view and report it to the kernel. */
  show(view) {
    this.choose({ view });
    this.request("view", { view }).catch(() => {});
  }

  /** Report to the kernel that the widget is mounted, and load changes that happened before. */
  mounted() {
    this.request("mounted").then(
      ({ seq }) => seq > this.store.seq && this.#requestFullState(),
      () => {},
    );
  }

  /** Open a task in the panel; for a mapped task, its most important instance. */
  open(id, index = -1) {
    const one = this.store.instance(id, index) ?? this.store.mostImportant(id);
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
   * Send a request to the kernel.
   *
   * @returns {Promise<any>} the answer; rejected with an `Error` that may have a `hint`
   */
  request(op, body = {}) {
    const id = ++this.lastId;
    return new Promise((resolve, reject) => {
      if (!this.live) return reject(new Error(KERNEL_GONE));
      const timer = setTimeout(() => {
        this.pending.delete(id);
        reject(new Error("The kernel isn't answering. It may be busy running a cell."));
      }, ANSWER_TIMEOUT);
      this.pending.set(id, { resolve, reject, timer });
      this.model.send({ type: "request", id, op, ...body });
    });
  }

  #receive(message) {
    if (!this.live) this.#setLive(true);
    if (message.type === "delta") this.#delta(message);
    else if (message.type === "full") this.#load(message.state);
    else if (message.type === "connection") {
      this.store.connection = { ok: message.ok, text: message.text };
      this.changed();
    } else if (message.type === "answer") this.#answer(message);
  }

  #answer({ id, ok, data, error }) {
    const request = this.pending.get(id);
    if (!request) return;
    this.pending.delete(id);
    clearTimeout(request.timer);
    if (ok) request.resolve(data);
    else request.reject(Object.assign(new Error(error?.message || "The request failed."), { hint: error?.hint || "" }));
  }

  #delta(delta) {
    const { store } = this;
    if (delta.seq <= store.seq) return;
    if (delta.seq !== store.seq + 1) return this.#requestFullState();
    store.apply(delta);
    store.loaded = true;
    this.#expandSmallDag();
    this.changed();
  }

  /** Expand the groups of a small DAG once, as soon as its tasks are known. */
  #expandSmallDag() {
    const { store, ui } = this;
    if (this.isExpanded || store.nodes.size === 0) return;
    this.isExpanded = true;
    if (store.nodes.size > MAX_NODES_EXPANDED) return;
    for (const node of store.nodes.values()) if (node.group) ui.open.add(node.id);
    ui.version++;
  }

  #requestFullState() {
    // A pending answer will contain all changes, so a second request isn't needed.
    if (Date.now() - this.fullRequestedAt < 2000) return;
    this.fullRequestedAt = Date.now();
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
    this.fullRequestedAt = 0;
    this.focusing = null;
    this.#expandSmallDag();
    if (other && ui.selected) ui.selected = store.nodes.has(ui.selected.id) ? { ...ui.selected, attempt: null } : null;
    ui.version++;
    this.changed();
  }

  #setLive(live) {
    this.live = live;
    this.store.stopClock(!live);
    if (!live) {
      for (const { reject, timer } of this.pending.values()) {
        clearTimeout(timer);
        reject(new Error(KERNEL_GONE));
      }
      this.pending.clear();
    }
    this.changed();
  }
}
