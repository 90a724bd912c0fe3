/** Many task instances on a time axis, a line each: when the work of a group or a mapped task took place. */

import { html } from "htm/preact";
import { segments } from "./segments.js";

/** Of more instances than this, evenly many are drawn. */
const MOST = 240;
const HEIGHT = 18;
const THINNEST = 0.75;
/** Of the whole axis, in its own units. */
const LENGTH = 1000;
const SHORTEST = 2;

const samples = new WeakMap();

/** Some of the instances of a task or group, evenly chosen; kept as long as none of them changes. */
function sample(store, id) {
  const sum = store.summary(id);
  let found = samples.get(sum);
  if (!found) {
    found = [];
    const every = Math.max(1, sum.total / MOST);
    let at = 0;
    let next = 0;
    (function walk(node) {
      if (node.group) return node.children.forEach(walk);
      for (const one of store.tasks.get(node.id)?.values() ?? []) {
        if (at++ < next) continue;
        found.push(one);
        next += every;
      }
    })(store.nodes.get(id));
    const begun = (one) => one.tries[0]?.start ?? one.start ?? one.queued ?? Infinity;
    found.sort((a, b) => begun(a) - begun(b));
    samples.set(sum, found);
  }
  return found;
}

/**
 * @param {object} props
 * @param {import("./store.js").RunStore} props.store
 * @param {string} props.id of a group or a mapped task
 * @param {{begin: number, end: number}} props.span
 * @param {number} props.now
 */
export function Waterfall({ store, id, span, now }) {
  const ones = sample(store, id);
  const lane = Math.min(HEIGHT / ones.length, HEIGHT / 3);
  const top = (HEIGHT - lane * ones.length) / 2;
  const x = (time) => Math.max(0, Math.min(LENGTH, (LENGTH * (time - span.begin)) / (span.end - span.begin)));
  /** @type {Map<string, string>} one path for all that looks the same */
  const paths = new Map();
  ones.forEach((one, i) => {
    const y = (top + (i + 0.5) * lane).toFixed(2);
    for (const part of segments(one, now)) {
      const run = part.kind === "run";
      const look = run ? `s-${part.state}${part.past ? " past" : ""}` : "waits";
      const from = Math.min(x(part.from), LENGTH - SHORTEST);
      const length = Math.max(run ? SHORTEST : 0, x(part.to) - from);
      paths.set(look, `${paths.get(look) ?? ""}M${from.toFixed(1)},${y}h${length.toFixed(1)}`);
    }
  });
  return html`<svg
    class="waterfall"
    viewBox=${`0 0 ${LENGTH} ${HEIGHT}`}
    preserveAspectRatio="none"
    aria-hidden="true"
  >
    ${[...paths].sort().map(
      ([look, path]) => html`<path
        key=${look}
        class=${look}
        d=${path}
        stroke-width=${Math.max(THINNEST, (look === "waits" ? 0.3 : 0.84) * lane)}
        opacity=${look === "waits" ? Math.min(0.45, lane / 8) : undefined}
      />`,
    )}
  </svg>`;
}
