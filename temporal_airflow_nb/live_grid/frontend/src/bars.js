/** Bars on a time axis. */

import { html } from "htm/preact";
import { segments } from "./segments.js";
import { duration, exact } from "./times.js";
import { Waterfall } from "./waterfall.js";

function positionOf({ begin, end }, from, to) {
  const at = (time) => Math.max(0, Math.min(100, (100 * (time - begin)) / (end - begin)));
  const left = at(from);
  return { left: `min(${left}%, 100% - 2px)`, width: `${at(to) - left}%` };
}

/** The bars of a row: the tries of one task instance, or a line for each of several instances. */
export function Track({ store, row, span, now }) {
  const one =
    row.kind === "group" || (row.kind === "task" && row.open !== null) ? null : store.instance(row.id, row.index);
  if (one)
    return html`<span class="track">
      ${segments(one, now).map(
        (part, i) => html`<span
          key=${i}
          class="bar ${part.kind} s-${part.state} ${part.past ? "past" : ""} ${part.open ? "open" : ""}"
          style=${positionOf(span, part.from, part.to)}
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

/** Return how many seconds a row took or has been running; null if nothing has started. */
export function getSeconds(store, row, now) {
  const one = row.kind === "group" ? null : store.instance(row.id, row.index);
  if (one) {
    if (one.end === null && one.start !== null) return Math.max(0, now - one.start) / 1000;
    return one.seconds || (one.start === null ? null : (one.end - one.start) / 1000 || null);
  }
  const sum = store.summary(row.id);
  return sum.start === null ? null : Math.max(0, ((sum.end ?? now) - sum.start) / 1000) || null;
}

/** Return the try as text: `2/3` if a retry is allowed or happened, else `1`, or "" before the first try. */
export function formatTry(one) {
  if (!one || one.attempt < 1) return "";
  if (one.maxTries < 1 && one.attempt === 1) return "1";
  return `${one.attempt}/${Math.max(one.maxTries + 1, one.attempt)}`;
}

/** Return a tooltip with the times of a row. */
export function describeTimes(store, row, now) {
  const { styles } = store;
  const lines = [row.kind === "instance" ? `${row.id} [${row.index}]` : row.id];
  const one = row.kind === "group" ? null : store.instance(row.id, row.index);
  if (!one) {
    const sum = store.summary(row.id);
    lines.push(styles.phrase(sum.counts));
    if (sum.start !== null) lines.push(`started  ${exact(sum.start)}`);
    if (sum.end !== null) lines.push(`ended  ${exact(sum.end)}`);
    lines.push(describeDuration(store, row, now));
    return lines.filter(Boolean).join("\n");
  }
  const attempt = formatTry(one);
  lines.push(styles.words(one.state) + (attempt ? `, try ${attempt}` : ""));
  for (const past of one.tries)
    lines.push(`try ${past.attempt}  ${styles.words(past.state)}  ${exact(past.start)} – ${exact(past.end).slice(11)}`);
  if (one.queued !== null) lines.push(`queued  ${exact(one.queued)}`);
  if (one.start !== null) lines.push(`started  ${exact(one.start)}`);
  if (one.end !== null) lines.push(`ended  ${exact(one.end)}`);
  lines.push(describeDuration(store, row, now), one.operator);
  return lines.filter(Boolean).join("\n");
}

function describeDuration(store, row, now) {
  const seconds = getSeconds(store, row, now);
  return seconds === null ? "" : `took  ${duration(seconds)}`;
}
