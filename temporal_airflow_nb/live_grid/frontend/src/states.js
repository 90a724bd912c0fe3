/** How states are shown: the kernel says, this puts it in order. */

import { number } from "./format.js";

export const NO_STATUS = "no_status";
export const FINAL = new Set(["success", "failed"]);
/** States in which an attempt is taking place. */
export const ACTIVE = new Set(["running", "restarting"]);

/** What is done, what goes on, what is to come. */
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
const PLAIN = { color: "#9f9fa9", sign: "·" };

const rank = (state) => {
  const index = PROGRESS.indexOf(state);
  return index < 0 ? PROGRESS.length : index;
};

/** The counts above zero, what is done first. */
export function byProgress(counts) {
  return Object.entries(counts)
    .filter(([, n]) => n > 0)
    .sort((a, b) => rank(a[0]) - rank(b[0]));
}

export class Looks {
  /**
   * @param {Record<string, {color: string, sign: string, words: string}>} looks
   * @param {string[]} order the first of these that any of several is in is the state of them all
   */
  constructor(looks = {}, order = []) {
    this.of = looks;
    this.priority = new Map(order.map((state, i) => [state, i]));
  }

  sign(state) {
    return (this.of[state] ?? this.of[NO_STATUS] ?? PLAIN).sign;
  }

  words(state) {
    return this.of[state]?.words ?? state.replaceAll("_", " ");
  }

  /** The one state that stands for several. */
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

  /** The counts above zero, what matters most first, in words: `2 failed, 3 success`. */
  phrase(counts) {
    return this.byPriority(counts)
      .map(([state, n]) => `${number(n)} ${this.words(state)}`)
      .join(", ");
  }

  byPriority(counts) {
    const place = (state) => this.priority.get(state) ?? 1000;
    return Object.entries(counts)
      .filter(([, n]) => n > 0)
      .sort((a, b) => place(a[0]) - place(b[0]));
  }

  /** A class for each state, as a style sheet. */
  css() {
    return Object.entries(this.of)
      .filter(([state, { color }]) => /^\w+$/.test(state) && /^#[0-9a-f]{3,8}$/i.test(color))
      .map(([state, { color }]) => `.s-${state}{--c:${color}}`)
      .join("\n");
  }
}
