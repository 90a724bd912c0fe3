/** The state that the kernel sent, as Maps: one run with its tasks, and the other runs, with sums computed from them. */

import { FINAL, StateStyles, NO_STATUS } from "./states.js";
import { moment } from "./times.js";

/**
 * @typedef {object} Instance one task instance
 * @property {string} id task id
 * @property {number} index map index, -1 for a task that isn't mapped
 * @property {string} state
 * @property {number} attempt
 * @property {number} maxTries
 * @property {string} operator
 * @property {string} label
 * @property {number | null} queued milliseconds since 1970, as are all times
 * @property {number | null} start
 * @property {number | null} end
 * @property {number | null} seconds
 * @property {{attempt: number, state: string, queued: number?, start: number?, end: number?}[]} tries former ones
 *
 * @typedef {object} Node a task or a group of the DAG
 * @property {string} id
 * @property {string} label
 * @property {boolean} group
 * @property {string | null} parent
 * @property {boolean} mapped
 * @property {string} operator
 * @property {Node[]} children
 *
 * @typedef {object} Summary of several instances
 * @property {Record<string, number>} counts by state
 * @property {number} total
 * @property {string} state
 * @property {number | null} queued
 * @property {number | null} start
 * @property {number | null} end the end of the last one, null while one runs
 */

const ROOT = "";
const UNCHANGEABLE = Object.fromEntries(
  ["cancel", "clear", "mark"].map((action) => [action, "Runs can't be changed from here."]),
);
/** Milliseconds. */
export const STEP = 250;

/** @returns {Instance} */
function instance(task) {
  return {
    id: task.task_id,
    index: task.map_index ?? -1,
    state: task.state || NO_STATUS,
    attempt: task.try_number || 0,
    maxTries: task.max_tries || 0,
    operator: task.operator || "",
    label: task.label || "",
    group: task.group || "",
    queued: moment(task.queued_dttm),
    start: moment(task.start_date),
    end: moment(task.end_date),
    seconds: task.duration ?? null,
    tries: (task.tries ?? []).map(([attempt, state, queued, start, end]) => ({
      attempt,
      state: state || NO_STATUS,
      queued: moment(queued),
      start: moment(start),
      end: moment(end),
    })),
  };
}

function run(row) {
  return {
    id: row.run_id,
    state: row.state || "queued",
    type: row.run_type || "",
    start: moment(row.start_date),
    end: moment(row.end_date),
    queued: moment(row.queued_at),
    after: moment(row.run_after) ?? moment(row.logical_date) ?? moment(row.queued_at) ?? 0,
    logical: moment(row.logical_date),
    version: row.version ?? null,
    note: row.note || "",
  };
}

export class RunStore {
  constructor() {
    this.seq = -1;
    this.loaded = false;
    /** Increases with every change. */
    this.version = 0;
    /** Increases when rows are added or removed. */
    this.shape = 0;
    /** Increases when the structure of the DAG changes. */
    this.structureVersion = 0;
    this.styles = new StateStyles();
    this.links = {};
    this.follows = true;
    /** Why the kernel refuses an operation: `cancel`, `clear`, `mark`, `task`, `log`. */
    this.refused = {};
    this.stoppedAt = null;
    this.connection = { ok: true, text: "" };
    /** @type {Map<string, Map<number, Instance>>} */
    this.tasks = new Map();
    this.runs = new Map();
    this.cells = new Map();
    this.nodes = new Map();
    this.top = [];
    this.edges = [];
  }

  /** Replace the whole state. */
  load(state) {
    this.seq = state.seq ?? this.seq;
    this.styles = new StateStyles(state.state_styles ?? this.styles.of, state.state_order ?? [...this.styles.priority.keys()]);
    this.connection = state.connection ?? this.connection;
    this.production = state.production ?? null;
    this.refused = state.refused ?? (state.can_act ? {} : UNCHANGEABLE);
    this.follows = state.follows !== false;
    this.tasks = new Map();
    this.runs = new Map();
    this.cells = new Map();
    this.loaded = Boolean(state.dag_id);
    this.#identify(state);
    this.#structure(state.structure ?? { version: null, nodes: [], edges: [] });
    this.#merge(state);
  }

  /** Merge a change. */
  apply(delta) {
    this.seq = delta.seq;
    if (delta.full) {
      this.tasks = new Map();
      this.cells = new Map();
      this.runs = new Map();
    }
    this.#identify(delta);
    if (delta.structure) this.#structure(delta.structure);
    this.#merge(delta);
  }

  #identify(answer) {
    for (const [name, value] of [
      ["dagId", answer.dag_id],
      ["runId", answer.run_id],
      ["workflowId", answer.workflow_id],
      ["links", answer.links],
    ])
      if (value !== undefined && value !== null) this[name] = value;
    // The kernel's clock minus this one. Messages take time, so the largest difference is the best estimate.
    const now = moment(answer.now);
    if (now !== null) {
      this.lastKnownNow = now;
      const skew = now - Date.now();
      this.skew = this.skew === undefined || Math.abs(skew - this.skew) > 2000 ? skew : Math.max(skew, this.skew);
    }
  }

  #structure(structure) {
    this.nodes = new Map();
    this.top = [];
    for (const row of structure.nodes)
      this.nodes.set(row.id, {
        id: row.id,
        label: row.label || row.id,
        group: row.kind === "group",
        parent: row.parent ?? null,
        mapped: Boolean(row.mapped),
        operator: row.operator || "",
        rule: row.trigger_rule || "",
        role: row.setup ? "setup" : row.teardown ? "teardown" : "",
        doc: row.doc || "",
        children: [],
      });
    for (const node of this.nodes.values()) (this.nodes.get(node.parent)?.children ?? this.top).push(node);
    this.edges = structure.edges;
    for (const task of this.tasks.values()) for (const one of task.values()) this.#ensureNode(one);
    this.#reshape();
  }

  // The task may be of a former version of the DAG, or the structure may be unknown.
  #ensureNode(one) {
    if (this.nodes.has(one.id)) return;
    const group = one.group || null;
    if (group && !this.nodes.has(group)) {
      const above = group.includes(".") ? group.slice(0, group.lastIndexOf(".")) : "";
      this.#ensureGroup(group, above);
    }
    const label = group && one.id.startsWith(`${group}.`) ? one.id.slice(group.length + 1) : one.id;
    this.#addNode({ id: one.id, label, group: false, parent: group, operator: one.operator });
  }

  #ensureGroup(id, above) {
    if (above && !this.nodes.has(above))
      this.#ensureGroup(above, above.includes(".") ? above.slice(0, above.lastIndexOf(".")) : "");
    this.#addNode({
      id,
      label: above ? id.slice(above.length + 1) : id,
      group: true,
      parent: above || null,
      operator: "",
    });
  }

  #addNode(partial) {
    const node = { mapped: false, rule: "", role: "", doc: "", children: [], ...partial };
    this.nodes.set(node.id, node);
    (this.nodes.get(node.parent)?.children ?? this.top).push(node);
    this.#reshape();
  }

  #reshape() {
    this.shape++;
    this.structureVersion++;
    this.summaries = new Map();
    this.shares = new Map();
  }

  #merge(answer) {
    this.version++;
    for (const row of answer.runs ?? []) this.runs.set(row.run_id, run(row));
    for (const id of answer.dropped ?? []) {
      this.runs.delete(id);
      this.cells.delete(id);
    }
    for (const row of answer.tasks ?? []) this.#put(instance(row));
    for (const [id, index] of answer.removed ?? []) this.#remove(id, index);
    for (const [id, cells] of Object.entries(answer.cells ?? {})) {
      const known = this.cells.get(id) ?? new Map();
      for (const [task, counts] of Object.entries(cells)) known.set(task, counts);
      this.cells.set(id, known);
      this.shares.delete(id);
    }
    this.ordered = [...this.runs.values()].sort((a, b) => a.after - b.after || (a.id < b.id ? -1 : 1));
  }

  /** @param {Instance} one */
  #put(one) {
    this.#ensureNode(one);
    let instances = this.tasks.get(one.id);
    if (!instances) this.tasks.set(one.id, (instances = new Map()));
    if (!instances.has(one.index)) this.shape++;
    instances.set(one.index, one);
    this.#dropSummaries(one.id);
  }

  #remove(id, index) {
    if (this.tasks.get(id)?.delete(index)) {
      this.shape++;
      this.#dropSummaries(id);
    }
  }

  #dropSummaries(id) {
    for (let at = id; at; at = this.nodes.get(at)?.parent) if (!this.summaries.delete(at)) break;
    this.summaries.delete(ROOT);
  }

  /** The run that is shown. */
  get run() {
    return this.runs.get(this.runId);
  }

  get state() {
    return this.run?.state ?? "queued";
  }

  get final() {
    return FINAL.has(this.state);
  }

  /** Stop the clock at this moment, or let it run again. */
  stopClock(stopped) {
    this.stoppedAt = stopped ? this.now() : null;
  }

  /** Return the present by the clock of the stack, or the last known time if the run isn't followed any more. */
  now() {
    if (this.stoppedAt) return this.stoppedAt;
    if (!this.follows && this.lastKnownNow) return this.lastKnownNow;
    // In steps, so that a change between two steps doesn't move all bars.
    return Math.floor((Date.now() + (this.skew ?? 0)) / STEP) * STEP;
  }

  /** Return begin and end of the run's time axis. They aren't `known` before something has begun. */
  span() {
    const all = this.summary();
    const begin = Math.min(this.run?.start ?? Infinity, all.queued ?? Infinity, all.start ?? Infinity);
    const end = this.final ? Math.max(this.run?.end ?? 0, all.end ?? 0) || this.now() : this.now();
    const known = Number.isFinite(begin);
    return known ? { begin, end: Math.max(end, begin + 1), known } : { begin: end - 1, end, known };
  }

  mapped(id) {
    const instances = this.tasks.get(id);
    return Boolean(instances && (instances.size > 1 || !instances.has(-1)) && instances.size);
  }

  /** @returns {Instance | undefined} */
  instance(id, index = -1) {
    return this.tasks.get(id)?.get(index);
  }

  /** Return the first instance of a task in the state that represents all its instances. */
  mostImportant(id) {
    const all = [...(this.tasks.get(id)?.values() ?? [])];
    const { state } = this.summary(id);
    return all.find((one) => one.state === state) ?? all[0];
  }

  /**
   * Return the summary of a task, a group or the run.
   *
   * @param {string} id of a task or a group; the whole run if omitted
   * @returns {Summary}
   */
  summary(id = ROOT) {
    const known = this.summaries.get(id);
    if (known) return known;
    const node = this.nodes.get(id);
    const parts = id === ROOT ? this.top : node?.group ? node.children : null;
    const sum = parts
      ? mergeSummaries(parts.map((part) => this.summary(part.id)))
      : mergeSummaries([...(this.tasks.get(id)?.values() ?? [])].map(summaryOf));
    sum.state = this.styles.overall(sum.counts);
    this.summaries.set(id, sum);
    return sum;
  }

  /**
   * Return the first failed instances.
   *
   * @param {number} most
   * @returns {Instance[]}
   */
  failures(most) {
    const found = [];
    if (!this.summary().counts.failed) return found;
    for (const node of this.nodes.values()) {
      if (node.group || !this.summary(node.id).counts.failed) continue;
      for (const one of this.tasks.get(node.id).values()) {
        if (one.state === "failed") found.push(one);
        if (found.length === most) return found;
      }
    }
    return found;
  }

  /** Return the number of instances of a task or group by state, in another run. */
  share(runId, id) {
    const cells = this.cells.get(runId);
    const node = this.nodes.get(id);
    if (!cells || !node?.group) return cells?.get(id);
    let known = this.shares.get(runId);
    if (!known) this.shares.set(runId, (known = new Map()));
    let counts = known.get(id);
    if (counts === undefined) {
      counts = null;
      for (const child of node.children)
        for (const [state, n] of Object.entries(this.share(runId, child.id) ?? {})) {
          counts ??= {};
          counts[state] = (counts[state] ?? 0) + n;
        }
      known.set(id, counts);
    }
    return counts;
  }
}

function summaryOf(one) {
  const open = one.start !== null && one.end === null;
  const first = one.tries[0];
  return {
    counts: { [one.state]: 1 },
    total: 1,
    queued: first?.queued ?? first?.start ?? one.queued,
    start: first?.start ?? one.start,
    end: open ? null : one.end,
    open,
  };
}

function mergeSummaries(parts) {
  const sum = { counts: {}, total: 0, queued: null, start: null, end: null, open: false };
  let end = null;
  for (const part of parts) {
    for (const state in part.counts) sum.counts[state] = (sum.counts[state] ?? 0) + part.counts[state];
    sum.total += part.total;
    if (part.queued !== null && (sum.queued === null || part.queued < sum.queued)) sum.queued = part.queued;
    if (part.start !== null && (sum.start === null || part.start < sum.start)) sum.start = part.start;
    if (part.end !== null && (end === null || part.end > end)) end = part.end;
    sum.open ||= part.open;
  }
  if (!sum.open) sum.end = end;
  return sum;
}
