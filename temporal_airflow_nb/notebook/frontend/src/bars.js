/** Bars on a time axis. */

import { html } from "htm/preact";
import { duration, exact } from "./times.js";
import { Waterfall } from "./waterfall.js";

/**
 * @typedef {object} Segment
 * @property {"queued" | "wait" | "run"} kind
 * @property {number} from milliseconds since 1970
 * @property {number} to
 * @property {string} state
 * @property {boolean} past whether it belongs to a former try
 * @property {boolean} open whether it still goes on
 */

const WAITING = new Set(["up_for_retry", "up_for_reschedule"]);

/**
 * What a task instance did, in order.
 *
 * @param {import("./store.js").Instance} one
 * @param {number} now
 * @returns {Segment[]}
 */
export function segments(one, now) {
  const list = [];
  let last = null;
  const add = (kind, from, to, state, past, open = false) => {
    if (from !== null && to !== null && to >= from) list.push({ kind, from, to, state, past, open });
  };
  for (const part of one.tries) {
    if (last !== null) add("wait", last, part.queued ?? part.start, part.state, true);
    add("queued", part.queued, part.start ?? part.end, part.state, true);
    add("run", part.start, part.end, part.state, true);
    last = part.end ?? last;
  }
  // The queue of this try, even where the time of the first one's is kept.
  const queued = one.queued === null ? null : Math.max(one.queued, last ?? 0);
  const begun = queued ?? one.start;
  if (last !== null && begun !== null) add("wait", last, begun, one.state, true);
  const started = one.start !== null && (queued === null || one.start >= queued);
  if (queued !== null) {
    if (started) add("queued", queued, one.start, one.state, false);
    else if (one.state === "queued") add("queued", queued, now, one.state, false, true);
  }
  if (started || queued === null) {
    add("run", one.start, one.end ?? now, one.state, false, one.end === null);
    if (WAITING.has(one.state) && one.end !== null) add("wait", one.end, now, one.state, false, true);
  }
  return list;
}

function place({ begin, end }, from, to) {
  const at = (time) => Math.max(0, Math.min(100, (100 * (time - begin)) / (end - begin)));
  const left = at(from);
  return { left: `min(${left}%, 100% - 2px)`, width: `${at(to) - left}%` };
}

/** One row's bars: a task instance's tries, or those of several, a line each. */
export function Track({ store, row, span, now }) {
  const one =
    row.kind === "group" || (row.kind === "task" && row.open !== null) ? null : store.instance(row.id, row.index);
  if (one)
    return html`<span class="track">
      ${segments(one, now).map(
        (part, i) => html`<span
          key=${i}
          class="bar ${part.kind} s-${part.state} ${part.past ? "past" : ""} ${part.open ? "open" : ""}"
          style=${place(span, part.from, part.to)}
        ></span>`,
      )}
    </span>`;
  const sum = store.summary(row.id);
  return html`<span class="track">
    ${
      (sum.start !== null || sum.queued !== null) &&
      html`<${Waterfall}
      store=${store}
      id=${row.id}
      span=${span}
      now=${now}
    />`
    }
  </span>`;
}

/** How long a row took, or has been taking; seconds, or null where nothing ran. */
export function secondsOf(store, row, now) {
  const one = row.kind === "group" ? null : store.instance(row.id, row.index);
  if (one) {
    if (one.end === null && one.start !== null) return Math.max(0, now - one.start) / 1000;
    return one.seconds || (one.start === null ? null : (one.end - one.start) / 1000 || null);
  }
  const sum = store.summary(row.id);
  return sum.start === null ? null : Math.max(0, ((sum.end ?? now) - sum.start) / 1000) || null;
}

/** `2/3` where a retry is allowed or happened, `1` where not, nothing before the first. */
export function tryOf(one) {
  if (!one || one.attempt < 1) return "";
  if (one.maxTries < 1 && one.attempt === 1) return "1";
  return `${one.attempt}/${Math.max(one.maxTries + 1, one.attempt)}`;
}

/** All that is known of a row's times, line by line. */
export function timesTip(store, row, now) {
  const { looks } = store;
  const lines = [row.kind === "instance" ? `${row.id} [${row.index}]` : row.id];
  const one = row.kind === "group" ? null : store.instance(row.id, row.index);
  if (!one) {
    const sum = store.summary(row.id);
    lines.push(looks.phrase(sum.counts));
    if (sum.start !== null) lines.push(`started  ${exact(sum.start)}`);
    if (sum.end !== null) lines.push(`ended  ${exact(sum.end)}`);
    lines.push(spent(store, row, now));
    return lines.filter(Boolean).join("\n");
  }
  const attempt = tryOf(one);
  lines.push(looks.words(one.state) + (attempt ? `, try ${attempt}` : ""));
  for (const past of one.tries)
    lines.push(`try ${past.attempt}  ${looks.words(past.state)}  ${exact(past.start)} – ${exact(past.end).slice(11)}`);
  if (one.queued !== null) lines.push(`queued  ${exact(one.queued)}`);
  if (one.start !== null) lines.push(`started  ${exact(one.start)}`);
  if (one.end !== null) lines.push(`ended  ${exact(one.end)}`);
  lines.push(spent(store, row, now), one.operator);
  return lines.filter(Boolean).join("\n");
}

function spent(store, row, now) {
  const seconds = secondsOf(store, row, now);
  return seconds === null ? "" : `took  ${duration(seconds)}`;
}
