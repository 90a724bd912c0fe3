/** The periods in which a task instance waited and ran. */

/**
 * @typedef {object} Segment
 * @property {"queued" | "wait" | "run"} kind
 * @property {number} from milliseconds since 1970
 * @property {number} to
 * @property {string} state
 * @property {boolean} past whether it belongs to a former try
 * @property {boolean} open whether it hasn't ended
 */

const WAITING = new Set(["up_for_retry", "up_for_reschedule"]);

/**
 * Return the periods of a task instance in order.
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
  // `one.queued` may still be the time at which the first try was queued.
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
