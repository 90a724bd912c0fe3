/** Computes layouts of graphs in a worker and caches them. */

import { factory } from "layout-factory";

const MAX_CACHED = 12;
/** Milliseconds after which an idle worker is ended, because each widget has its own. */
const IDLE = 10_000;
/** Milliseconds to wait if a page allows no worker, so that the page draws itself first. */
const DELAY = 30;

let worker;
let lastId = 0;
const waiting = new Map();
const cache = new Map();

/**
 * @param {string} key identifies the graph
 * @param {Parameters<typeof import("./layout.js").place>[0]} input
 * @param {() => void} done called when the layout has been computed
 * @returns {ReturnType<typeof import("./layout.js").place> | null} null if it isn't computed yet
 */
export function getLayout(key, input, done) {
  const known = cache.get(key);
  if (known) return known;
  if (!waiting.has(key)) {
    waiting.set(key, new Set());
    compute(input).then((layout) => {
      cache.set(key, layout);
      if (cache.size > MAX_CACHED) cache.delete(cache.keys().next().value);
      const listeners = waiting.get(key);
      waiting.delete(key);
      for (const listener of listeners) listener();
    });
  }
  waiting.get(key).add(done);
  return null;
}

function compute(input) {
  worker ??= startWorker();
  if (worker) return worker(input).catch(() => ((worker = null), computeHere(input)));
  return computeHere(input);
}

function computeHere(input) {
  return new Promise((resolve) => setTimeout(() => resolve(factory().place(input)), DELAY));
}

function startWorker() {
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
