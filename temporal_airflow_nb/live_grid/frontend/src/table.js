/** A tree of tasks as a table with keyboard navigation. Only the visible rows are in the page. */

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { html } from "htm/preact";
import { number } from "./format.js";
import { setExpanded, getRows } from "./rows.js";

export const ROW = 26;
const SPARE = 8;

/**
 * @param {object} props
 * @param {import("./connection.js").Link} props.link
 * @param {string} props.label what the table is, for screen readers
 * @param {string} props.columns a CSS grid template
 * @param {any} props.head the cells of the header row
 * @param {(row: import("./rows.js").Row) => any} props.cells the cells after the name
 * @param {(row: import("./rows.js").Row) => string} props.tip
 * @param {any} [props.over] elements drawn over all rows
 */
export function Table({ link, label, columns, head, cells, tip, over, kind }) {
  const rows = getRows(link);
  const scroller = useRef(null);
  const [[top, height], setViewport] = useState([0, 600]);
  const [active, setActive] = useState(null);
  // The active row right after a key was pressed, before the next frame is drawn.
  const latest = useRef(null);
  const wantsFocus = useRef(false);
  const measure = () => scroller.current && setViewport([scroller.current.scrollTop, scroller.current.clientHeight]);
  useEffect(() => {
    const resized = new ResizeObserver(measure);
    resized.observe(scroller.current);
    return () => resized.disconnect();
  }, []);
  const first = Math.max(0, Math.min(Math.floor(top / ROW) - SPARE, rows.length - 1));
  const last = Math.min(rows.length, Math.ceil((top + height) / ROW) + SPARE);
  const shown = rows.slice(first, last).map((row, i) => [row, first + i]);
  const indexOf = (all, key) => Math.max(0, key === null ? 0 : all.findIndex((row) => row.key === key));
  const at = indexOf(rows, active);
  // The focused row stays in the page: if it were removed while scrolling, the focus would be lost.
  if (rows.length && at < first) shown.unshift([rows[at], at]);
  if (rows.length && at >= last) shown.push([rows[at], at]);
  useLayoutEffect(() => {
    if (!wantsFocus.current) return;
    wantsFocus.current = false;
    scroller.current.querySelector(`[data-at="${at}"]`)?.focus({ preventScroll: true });
  });

  function activate(key) {
    latest.current = key;
    setActive(key);
  }

  function go(rows, to) {
    const target = Math.max(0, Math.min(rows.length - 1, to));
    const box = scroller.current;
    const headHeight = box.querySelector(".thead").offsetHeight;
    const y = target * ROW;
    if (y < box.scrollTop) box.scrollTop = y;
    else if (y + ROW > box.scrollTop + box.clientHeight - headHeight)
      box.scrollTop = y + ROW - box.clientHeight + headHeight;
    wantsFocus.current = true;
    activate(rows[target].key);
    measure();
  }

  function parentOf(rows, index) {
    let up = index;
    while (up > 0 && rows[up].depth >= rows[index].depth) up--;
    return rows[up].depth < rows[index].depth ? up : index;
  }

  function onKeyDown(event) {
    const rows = getRows(link);
    const at = indexOf(rows, latest.current);
    const row = rows[at];
    if (!row || event.altKey || event.ctrlKey || event.metaKey) return;
    const page = Math.max(1, Math.floor(height / ROW) - 2);
    const keys = {
      ArrowDown: () => go(rows, at + 1),
      ArrowUp: () => go(rows, at - 1),
      PageDown: () => go(rows, at + page),
      PageUp: () => go(rows, at - page),
      Home: () => go(rows, 0),
      End: () => go(rows, rows.length - 1),
      ArrowRight: () => (row.open === false ? toggle(row, true) : row.open && go(rows, at + 1)),
      ArrowLeft: () => (row.open ? toggle(row, false) : go(rows, parentOf(rows, at))),
      Enter: () => (row.kind === "group" ? toggle(row) : select(row)),
      " ": () => (row.open === null ? select(row) : toggle(row)),
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  }

  function toggle(row, open) {
    wantsFocus.current = true;
    activate(row.key);
    setExpanded(link, row, open);
  }

  function select(row) {
    activate(row.key);
    link.open(row.id, row.index);
  }

  function onClick(event) {
    const line = event.target.closest("[data-at]");
    if (!line) return;
    const row = rows[Number(line.dataset.at)];
    if (event.target.closest(".chevron") || row.kind === "group") return toggle(row);
    const run = event.target.closest("[data-run]")?.dataset.run;
    if (run && run !== link.store.runId) link.focus(run);
    select(row);
  }

  const selected = link.ui.selected;
  return html`<div
    class="scroller ${kind}"
    ref=${scroller}
    onScroll=${measure}
    style=${{ "--cols": columns }}
    role="treegrid"
    aria-label=${label}
    aria-rowcount=${rows.length + 1}
    onKeyDown=${onKeyDown}
    onClick=${onClick}
  >
    <div class="thead tr" role="row" aria-rowindex="1">${head}</div>
    <div class="tbody" role="presentation" style=${{ height: `${rows.length * ROW}px` }}>
      ${over}
      ${shown.map(([row, i]) => {
        const on =
          selected &&
          selected.id === row.id &&
          (row.kind === "instance" ? selected.index === row.index : row.kind === "task");
        return html`<div
          key=${row.key}
          class="tr row ${row.kind} ${on ? "selected" : ""}"
          style=${{ transform: `translateY(${i * ROW}px)` }}
          role="row"
          data-at=${i}
          data-task=${row.id}
          data-index=${row.index}
          tabindex=${i === at ? 0 : -1}
          aria-level=${row.depth + 1}
          aria-expanded=${row.open === null ? undefined : String(row.open)}
          aria-posinset=${row.place}
          aria-setsize=${row.siblings}
          aria-selected=${String(Boolean(on))}
          aria-rowindex=${i + 2}
          data-tip=${tip(row)}
          onFocus=${() => activate(row.key)}
        >
          <${Name} row=${row} link=${link} />${cells(row)}
        </div>`;
      })}
      ${rows.length === 0 && html`<p class="empty">${link.store.nodes.size ? "No task matches the filter." : "No tasks yet."}</p>`}
    </div>
  </div>`;
}

function Name({ row, link }) {
  const { kind, node } = row;
  const count = kind === "task" && row.open !== null ? link.store.tasks.get(row.id)?.size : 0;
  return html`<div class="name" role="rowheader" style=${{ paddingLeft: `${8 + row.depth * 14}px` }}>
    ${
      row.open === null
        ? html`<span class="nofold"></span>`
        : html`<span class="chevron ${row.open ? "open" : ""}" aria-hidden="true"></span>`
    }
    <span class="label">${row.name}</span>
    ${count > 0 && html`<span class="size">${number(count)}</span>`}
    ${kind === "group" && html`<span class="size">${number(leaves(node))}</span>`}
    ${kind === "task" && node.role && html`<span class="role">${node.role}</span>`}
  </div>`;
}

const sizes = new WeakMap();

function leaves(node) {
  let n = sizes.get(node);
  if (n === undefined) {
    n = node.children.reduce((sum, child) => sum + (child.group ? leaves(child) : 1), 0);
    sizes.set(node, n);
  }
  return n;
}
