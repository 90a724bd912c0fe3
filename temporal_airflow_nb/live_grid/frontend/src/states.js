/** The styles of states, which the kernel sends, and their order. */

import { number } from "./format.js";

export const NO_STATUS = "no_status";
export const FINAL = new Set(["success", "failed"]);
/** The states of a try that is running. */
export const ACTIVE = new Set(["running", "restarting"]);

/** Finished, in progress, to come. */
const PROGRESS = [
  "success",
  "skipped",
  "removed",
  "failed",
  "upstream_failed",
  "running",
  "restarting",
  "deferred",
  "awaiting_input",
  "up_for_retry",
  "up_for_reschedule",
  "queued",
  "scheduled",
  NO_STATUS,
];
const DEFAULT_STYLE = { color: "#9f9fa9", sign: "·" };

const rank = (state) => {
  const index = PROGRESS.indexOf(state);
  return index < 0 ? PROGRESS.length : index;
};

/** Return the counts above zero, finished states first. */
export function sortByProgress(counts) {
  return Object.entries(counts)
    .filter(([, n]) => n > 0)
    .sort((a, b) => rank(a[0]) - rank(b[0]));
}

export class StateStyles {
  /**
   * @param {Record<string, {color: string, sign: string, words: string}>} styles
   * @param {string[]} order several instances together have the first of these states that one of them has
   */
  constructor(styles = {}, order = []) {
    this.of = styles;
    this.priority = new Map(order.map((state, i) => [state, i]));
  }

  sign(state) {
    return (this.of[state] ?? this.of[NO_STATUS] ?? DEFAULT_STYLE).sign;
  }

  words(state) {
    return this.of[state]?.words ?? state.replaceAll("_", " ");
  }

  /** Return the state that represents several instances. */
  overall(counts) {
    let best = NO_STATUS;
    let least = Infinity;
    for (const state in counts) {
      const place = this.priority.get(state) ?? 1000;
      if (counts[state] > 0 && place < least) {
        best = state;
        least = place;
      }
    }
    return best;
  }

  /** Return the counts above zero in words, the most important states first: `2 failed, 3 success`. */
  phrase(counts) {
    return this.sortByPriority(counts)
      .map(([state, n]) => `${number(n)} ${this.words(state)}`)
      .join(", ");
  }

  sortByPriority(counts) {
    const place = (state) => this.priority.get(state) ?? 1000;
    return Object.entries(counts)
      .filter(([, n]) => n > 0)
      .sort((a, b) => place(a[0]) - place(b[0]));
  }

  /** Return a style sheet with a class for each state. */
  css() {
    return Object.entries(this.of)
      .filter(([state, { color }]) => /^\w+$/.test(state) && /^#[0-9a-f]{3,8}$/i.test(color))
      .map(([state, { color }]) => `.s-${state}{--c:${color}}`)
      .join("\n");
  }
}
