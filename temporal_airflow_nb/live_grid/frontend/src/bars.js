/** Bars on a time axis. */

import { html } from "htm/preact";
import { segments } from "./segments.js";
import { duration, exact } from "./times.js";
import { Waterfall } from "./waterfall.js";

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
