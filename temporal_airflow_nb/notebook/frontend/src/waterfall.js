/** Many task instances on a time axis, a line each: when the work of a group or a mapped task took place. */

import { useLayoutEffect, useRef } from "preact/hooks";
import { html } from "htm/preact";
import { segments } from "./bars.js";

/** Of more instances than this, evenly many are drawn. */
const MOST = 240;
const HEIGHT = 18;
const THINNEST = 0.75;
const QUIET = "rgb(140 140 148)";

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
    found.sort((a, b) => (a.start ?? a.queued ?? Infinity) - (b.start ?? b.queued ?? Infinity));
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
  const canvas = useRef(null);
  useLayoutEffect(() => {
    const { current } = canvas;
    const width = current.clientWidth;
    const scale = window.devicePixelRatio || 1;
    current.width = Math.max(1, Math.round(width * scale));
    current.height = HEIGHT * scale;
    const pen = current.getContext("2d");
    pen.scale(scale, scale);
    const ones = sample(store, id);
    const lane = Math.min(HEIGHT / ones.length, HEIGHT / 3);
    const top = (HEIGHT - lane * ones.length) / 2;
    const x = (time) => (width * (time - span.begin)) / (span.end - span.begin);
    ones.forEach((one, i) => {
      for (const part of segments(one, now)) {
        const run = part.kind === "run";
        const thick = Math.max(THINNEST, (run ? 0.84 : 0.3) * lane);
        pen.fillStyle = run ? store.looks.color(part.state) : QUIET;
        pen.globalAlpha = run ? (part.past ? 0.55 : 1) : Math.min(0.45, lane / 8);
        const from = Math.min(x(part.from), width - 2);
        pen.fillRect(from, top + (i + 0.5) * lane - thick / 2, Math.max(run ? 1.5 : 0, x(part.to) - from), thick);
      }
    });
  });
  return html`<canvas class="waterfall" ref=${canvas} aria-hidden="true"></canvas>`;
}
