/** The DAG as a graph, with live states. */

import { Component } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { html } from "htm/preact";
import { getSeconds, describeTimes, formatTry } from "./bars.js";
import { getLayout } from "./layout_cache.js";
import { number } from "./format.js";
import { getScale, usePanZoom } from "./panzoom.js";
import { setExpanded, setAllExpanded, findMatching } from "./rows.js";
import { Shares, Sign } from "./badges.js";
import { duration, elapsed } from "./times.js";
import { visible } from "./graph_filter.js";

const MAX_NODES = 600;
const LETTER = 7.2;
const WIDTHS = [144, 260];
const HEIGHT = 44;
const HEIGHTS = [210, 450];
const MARGIN = 24;
/** Height for the buttons below the picture. */
const FOOT = 34;
const STEP = 60;

const size = (node) => ({
  w: Math.max(WIDTHS[0], Math.min(WIDTHS[1], 48 + (node.group || node.mapped ? 44 : 0) + node.label.length * LETTER)),
  h: HEIGHT,
});

export function Graph({ link, width, least }) {
  const { store, ui } = link;
  const filtered = ui.filter.trim() !== "" || ui.states.size > 0;
  const matching = filtered ? findMatching(store, ui) : null;
  let seen = visible(store, ui.open);
  // Other tasks are drawn faint, or not at all if the graph would be too large.
  const narrowed = matching !== null && seen.leaves.length > MAX_NODES;
  if (narrowed) seen = visible(store, ui.open, matching);
  if (seen.leaves.length > MAX_NODES) return html`<${TooLarge} link=${link} count=${seen.leaves.length} />`;
  if (seen.leaves.length === 0)
    return html`<p class="empty">${store.nodes.size ? "No task matches the filter." : "No tasks yet."}</p>`;
  return html`<${Picture}
    link=${link}
    width=${width}
    least=${least}
    seen=${seen}
    matching=${narrowed ? null : matching}
  />`;
}

function TooLarge({ link, count }) {
  const groups = link.ui.open.size > 0;
  return html`<div class="empty">
    <p>${number(count)} nodes are too many for a graph. The limit is ${MAX_NODES}.</p>
    <p>
      ${groups && html`<button class="plain" onClick=${() => setAllExpanded(link, false)}>Collapse all groups</button>`}
      <span class="quiet">${groups ? " or filter" : "Filter"} by task id or state.</span>
    </p>
  </div>`;
}

function Picture({ link, width, least, seen, matching }) {
  const { store, ui } = link;
  const [, redraw] = useState(0);
  const last = useRef(null);
  const key = JSON.stringify([
    seen.leaves.map((node) => [node.id, node.label]),
    seen.boxes.map((node) => node.id),
    seen.edges,
  ]);
  const found = getLayout(
    key,
    {
      leaves: seen.leaves.map((node) => ({ id: node.id, parent: node.parent, ...size(node) })),
      boxes: seen.boxes.map((node) => ({ id: node.id, parent: node.parent })),
      edges: seen.edges,
    },
    () => redraw((n) => n + 1),
  );
  if (found) last.current = { layout: found, key, seen };
  const shown = last.current;
  const layout = shown?.layout ?? null;
  const scale = layout ? getScale(layout.width, width) : 1;
  const height = Math.max(HEIGHTS[0], least, Math.min(HEIGHTS[1], (layout?.height ?? 0) * scale + 2 * MARGIN) + FOOT);
  const { box, view, fit, zoom, pan, reveal, handlers } = usePanZoom(
    layout,
    { width, height: height - FOOT },
    shown?.key ?? "",
    layout?.leaves[shown.seen.leaves[0].id],
  );
  const [active, setActive] = useState(null);
  useEffect(() => {
    if (layout?.leaves[ui.selected?.id]) reveal(layout.leaves[ui.selected.id]);
  }, [layout, ui.selected?.id, width]);
  const now = store.now();
  const at = active !== null && layout?.leaves[active] ? active : shown?.seen.leaves[0].id;
  const selected = ui.selected?.id;

  function toggle(node) {
    setActive(node.children[0]?.id ?? node.id);
    setExpanded(link, { kind: "group", id: node.id, open: ui.open.has(node.id) });
  }
  function act(node) {
    setActive(node.id);
    if (node.group) toggle(node);
    else link.open(node.id);
  }
  function go(dx, dy) {
    const next = nearest(layout.leaves, at, dx, dy);
    if (!next) return;
    setActive(next);
    reveal(layout.leaves[next]);
    box.current.querySelector(`[data-node="${CSS.escape(next)}"]`)?.focus({ preventScroll: true });
  }
  function onKeyDown(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || !layout) return;
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const arrow = arrows[event.key];
    const keys = { "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), 0: () => fit(), f: () => fit() };
    if (arrow) event.shiftKey ? pan(-STEP * arrow[0], -STEP * arrow[1]) : go(...arrow);
    else if (keys[event.key]) keys[event.key]();
    else return;
    event.preventDefault();
  }

  return html`<div
    class="graph"
    ref=${box}
    style=${{ height: `${height}px` }}
    role="group"
    aria-label=${`Graph of DAG ${store.dagId}. Arrow keys move, plus, minus and 0 zoom.`}
    tabindex="-1"
    onKeyDown=${onKeyDown}
    ...${handlers}
  >
    ${!layout && html`<p class="empty"><i class="spin" aria-hidden="true"></i> Laying out ${number(seen.leaves.length)} nodes…</p>`}
    ${
      layout &&
      html`<div
        class="world"
        style=${{
          transform: `translate(${view.x}px,${view.y}px) scale(${view.k})`,
          width: `${layout.width}px`,
          height: `${layout.height}px`,
        }}
      >
      ${shown.seen.boxes.map(
        (node) =>
          layout.boxes[node.id] &&
          html`<${Box}
        key=${`box ${node.id}`}
        node=${node}
        at=${layout.boxes[node.id]}
        store=${store}
        onClick=${() => toggle(node)}
      />`,
      )}
      <${Edges} layout=${layout} seen=${shown.seen} near=${selected} />
      ${shown.seen.leaves.map((node) => {
        const mark = describeNode(store, node, now);
        const faint = matching !== null && !matching.has(node.id);
        const kinds = {
          group: node.group,
          several: mark.several,
          faint,
          selected: selected === node.id,
          going: mark.going,
        };
        const classes = ["node", `s-${mark.state}`, ...Object.keys(kinds).filter((kind) => kinds[kind])].join(" ");
        const signature = `${node.label} ${mark.text} ${faint} ${selected === node.id} ${at === node.id}`;
        return html`<${Leaf} key=${node.id} signature=${signature} layout=${layout} draw=${() => html`
          <button
            class=${classes}
            style=${frame(layout.leaves[node.id])}
            data-node=${node.id}
            data-state=${mark.state}
            tabindex=${at === node.id ? 0 : -1}
            aria-expanded=${node.group ? "false" : undefined}
            data-tip=${describeTimes(store, { id: node.id, kind: node.group ? "group" : "task", index: -1, open: null }, now)}
            onClick=${() => act(node)}
          >
            <${Sign} styles=${store.styles} state=${mark.state} />
            <span class="lines2">
              ${node.group && html`<span class="hidden">Group </span>`}<span class="label">${node.label}</span>
              <span class="about">${mark.about}</span><span class="hidden">: ${mark.words}</span>
            </span>
            ${mark.size > 0 && html`<span class="size">${number(mark.size)}</span>`}
            ${mark.several && html`<${Shares} counts=${mark.counts} />`}
          </button>
        `} />`;
      })}
    </div>`
    }
    <div class="zoom">
      <button class="plain" aria-label="Zoom in" onClick=${() => zoom(1.25)}>+</button>
      <button class="plain" aria-label="Zoom out" onClick=${() => zoom(0.8)}>−</button>
      <button class="plain" aria-label="Fit" onClick=${() => fit()}>⤢</button>
    </div>
  </div>`;
}

const frame = ({ x, y, w, h }) => ({ left: `${x}px`, top: `${y}px`, width: `${w}px`, height: `${h}px` });

/** Return the texts of a node, and a `text` that changes whenever its picture does. */
function describeNode(store, node, now) {
  const { styles } = store;
  const sum = store.summary(node.id);
  const several = sum.total > 1 || node.group;
  const seconds = getSeconds(store, { id: node.id, kind: node.group ? "group" : "task", index: -1 }, now);
  const one = node.group ? null : store.instance(node.id);
  const attempt = one && one.attempt > 1 ? `try ${formatTry(one)}` : "";
  const took = seconds === null ? "" : sum.open ? elapsed(Math.floor(seconds * 2) / 2) : duration(seconds);
  const words = several ? styles.phrase(sum.counts) : styles.words(sum.state);
  const done = sum.state === "success" && took;
  const about = [done ? "" : several ? describeCount(styles, sum) : styles.words(sum.state), done || sum.open ? "" : attempt, took]
    .filter(Boolean)
    .slice(0, 2)
    .join(" · ");
  const amount = node.group ? tasks(node) : several ? sum.total : 0;
  const text = `${sum.state} ${words} ${about} ${amount}`;
  return {
    text,
    state: sum.state,
    words,
    about,
    several,
    counts: sum.counts,
    size: amount,
    going: sum.state === "running",
  };
}

function describeCount(styles, { counts, state, total }) {
  const n = counts[state] ?? 0;
  return n === total ? styles.words(state) : `${number(n)} ${styles.words(state)}`;
}

function tasks(node) {
  return node.children.reduce((sum, child) => sum + (child.group ? tasks(child) : 1), 0);
}

function Box({ node, at, store, onClick }) {
  const { state, counts, total } = store.summary(node.id);
  return html`<div class="box s-${total ? state : "no_status"}" style=${frame(at)}>
    <button
      data-box=${node.id}
      aria-expanded="true"
      aria-label=${`Collapse group ${node.id}: ${store.styles.phrase(counts)}`}
      onClick=${onClick}
    >
      <span class="chevron open" aria-hidden="true"></span>${node.label}
    </button>
  </div>`;
}

/** The edges; drawn again only for another graph or another opened task. */
class Edges extends Component {
  shouldComponentUpdate({ layout, near }) {
    return layout !== this.props.layout || near !== this.props.near;
  }

  render({ layout, seen, near }) {
    return html`<svg class="edges" width=${layout.width} height=${layout.height} aria-hidden="true">
      ${layout.edges.map((points, i) => {
        const [from, to] = seen.edges[i];
        return html`<path
          key=${i}
          class=${near === from || near === to ? "near" : ""}
          data-from=${from}
          data-to=${to}
          d=${curve(points)}
        />`;
      })}
    </svg>`;
  }
}

class Leaf extends Component {
  shouldComponentUpdate({ signature, layout }) {
    return signature !== this.props.signature || layout !== this.props.layout;
  }

  render({ draw }) {
    return draw();
  }
}

/** Return the path of an edge, horizontal at both ends and at each rank between them. */
function curve(points) {
  let path = `M${points[0].toFixed(1)},${points[1].toFixed(1)}`;
  for (let i = 2; i < points.length; i += 2) {
    const [x0, y0, x1, y1] = points.slice(i - 2, i + 2);
    const middle = ((x0 + x1) / 2).toFixed(1);
    path += `C${middle},${y0.toFixed(1)} ${middle},${y1.toFixed(1)} ${x1.toFixed(1)},${y1.toFixed(1)}`;
  }
  return path;
}

function nearest(leaves, from, dx, dy) {
  const center = ({ x, y, w, h }) => [x + w / 2, y + h / 2];
  const [x0, y0] = center(leaves[from]);
  let best = null;
  let least = Infinity;
  for (const [id, leaf] of Object.entries(leaves)) {
    const [x, y] = center(leaf);
    const along = (x - x0) * dx + (y - y0) * dy;
    const across = Math.abs((x - x0) * dy) + Math.abs((y - y0) * dx);
    if (id === from || along < 1) continue;
    if (along + 2 * across < least) {
      least = along + 2 * across;
      best = id;
    }
  }
  return best;
}
