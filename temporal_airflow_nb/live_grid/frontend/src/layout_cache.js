/** Layouts of graphs: computed beside the page's own work, and kept. */

import { factory } from "layout-factory";

const KEPT = 12;
/** How long a worker without work is kept: each widget has its own. */
const IDLE = 10_000;
/** Where a page allows no worker, the layout takes its turn after what is to be drawn first. */
const SOON = 30;

let worker;
let lastId = 0;
const waiting = new Map();
const kept = new Map();

/**
 * @param {string} key tells one graph from another
 * @param {Parameters<typeof import("./layout.js").place>[0]} input
 * @param {() => void} done called when a layout that isn't there yet is
 * @returns {ReturnType<typeof import("./layout.js").place> | null}
 */
export function layoutOf(key, input, done) {
  const known = kept.get(key);
  if (known) return known;
  if (!waiting.has(key)) {
    waiting.set(key, new Set());
    compute(input).then((layout) => {
      kept.set(key, layout);
      if (kept.size > KEPT) kept.delete(kept.keys().next().value);
      const listeners = waiting.get(key);
      waiting.delete(key);
      for (const listener of listeners) listener();
    });
  }
  waiting.get(key).add(done);
  return null;
}

function compute(input) {
  worker ??= start();
  if (worker) return worker(input).catch(() => ((worker = null), here(input)));
  return here(input);
}

function here(input) {
  return new Promise((resolve) => setTimeout(() => resolve(factory().place(input)), SOON));
}

function start() {
  const source = `const { place } = (${factory})();
onmessage = ({ data: [id, input] }) => postMessage([id, place(input)]);`;
  let url;
  try {
    url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    const thread = new Worker(url);
    const asked = new Map();
    let idle;
    function end() {
      thread.terminate();
      URL.revokeObjectURL(url);
      worker = undefined;
    }
    thread.onmessage = ({ data: [id, layout] }) => {
      asked.get(id)?.resolve(layout);
      asked.delete(id);
      if (asked.size === 0) idle = setTimeout(end, IDLE);
    };
    thread.onerror = (event) => {
      event.preventDefault();
      for (const { reject } of asked.values()) reject(new Error(event.message));
      asked.clear();
    };
    return (input) =>
      new Promise((resolve, reject) => {
        const id = ++lastId;
        clearTimeout(idle);
        asked.set(id, { resolve, reject });
        thread.postMessage([id, input]);
      });
  } catch {
    return null;
  }
}
