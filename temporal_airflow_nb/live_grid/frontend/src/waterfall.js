/** The task instances of a group or a mapped task on a time axis, a thin line for each. */

import { html } from "htm/preact";
import { segments } from "./segments.js";

/** Of more instances than this, an evenly spaced sample is drawn. */
const MAX_LINES = 240;
const HEIGHT = 18;
const THINNEST = 0.75;
/** The length of the whole axis in SVG units. */
const LENGTH = 1000;
const SHORTEST = 2;

const samples = new WeakMap();

/** Return an evenly spaced sample of the instances of a task or group, cached until one of them changes. */
function sample(store, id) {
  const sum = store.summary(id);
  let found = samples.get(sum);
  if (!found) {
    found = [];
    const every = Math.max(1, sum.total / MAX_LINES);
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
  /** @type {Map<string, string>} path by CSS class */
  const paths = new Map();
  ones.forEach((one, i) => {
    const y = (top + (i + 0.5) * lane).toFixed(2);
    for (const part of segments(one, now)) {
      const run = part.kind === "run";
      const cssClass = run ? `s-${part.state}${part.past ? " past" : ""}` : "waits";
      const from = Math.min(x(part.from), LENGTH - SHORTEST);
      const length = Math.max(run ? SHORTEST : 0, x(part.to) - from);
      paths.set(cssClass, `${paths.get(cssClass) ?? ""}M${from.toFixed(1)},${y}h${length.toFixed(1)}`);
    }
  });
  return html`<svg
    class="waterfall"
    viewBox=${`0 0 ${LENGTH} ${HEIGHT}`}
    preserveAspectRatio="none"
    aria-hidden="true"
  >
    ${[...paths].sort().map(
      ([cssClass, path]) => html`<path
        key=${cssClass}
        class=${cssClass}
        d=${path}
        stroke-width=${Math.max(THINNEST, (cssClass === "waits" ? 0.3 : 0.84) * lane)}
        opacity=${cssClass === "waits" ? Math.min(0.45, lane / 8) : undefined}
      />`,
    )}
  </svg>`;
}
