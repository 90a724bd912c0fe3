/** Computes the positions of the boxes of a graph. It runs in a worker, so it uses nothing else of the page. */

import { Graph, layout as dagre } from "@dagrejs/dagre";

/** From this number of leaves on, a fast layout is more important than the best one. */
const MANY = 150;
const PAD = 12;
const TITLE = 24;

/**
 * @typedef {{x: number, y: number, w: number, h: number}} Box from its upper left corner
 *
 * @param {{id: string, w: number, h: number, parent: string | null}[]} input.leaves
 * @param {{id: string, parent: string | null}[]} input.boxes expanded groups, outer ones first
 * @param {[string, string][]} input.edges between leaves
 * @returns {{leaves: Record<string, Box>, boxes: Record<string, Box>, edges: number[][], width: number, height: number}}
 */
export function place({ leaves, boxes, edges }) {
  const graph = new Graph({ compound: true });
  graph.setGraph({
    rankdir: "LR",
    nodesep: boxes.length ? 28 : 16,
    ranksep: boxes.length ? 34 : 44,
    edgesep: 8,
    ranker: leaves.length > MANY ? "tight-tree" : "network-simplex",
  });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const leaf of leaves) graph.setNode(leaf.id, { width: leaf.w, height: leaf.h });
  for (const box of boxes) graph.setNode(`group ${box.id}`, {});
  for (const { id, parent } of leaves) if (parent !== null) graph.setParent(id, `group ${parent}`);
  for (const { id, parent } of boxes) if (parent !== null) graph.setParent(`group ${id}`, `group ${parent}`);
  for (const [from, to] of edges) graph.setEdge(from, to);
  dagre(graph, { disableOptimalOrderHeuristic: leaves.length > MANY });

  const at = { leaves: {}, boxes: {} };
  for (const { id, w, h } of leaves) {
    const { x, y } = graph.node(id);
    at.leaves[id] = { x: x - w / 2, y: y - h / 2, w, h };
  }
  // Inner boxes first, because an outer box is drawn around them.
  for (const { id } of [...boxes].reverse()) {
    const members = [
      ...leaves.filter(({ parent }) => parent === id).map((leaf) => at.leaves[leaf.id]),
      ...boxes.filter(({ parent }) => parent === id).map((box) => at.boxes[box.id]),
    ].filter(Boolean);
    if (members.length) at.boxes[id] = around(members);
  }
  const all = [...Object.values(at.leaves), ...Object.values(at.boxes)];
  const frame = all.length ? outline(all) : { x: 0, y: 0, w: 0, h: 0 };
  for (const box of all) {
    box.x -= frame.x;
    box.y -= frame.y;
  }
  const lines = edges.map(([from, to]) => {
    const points = graph.edge(from, to).points.slice(1, -1);
    const [a, b] = [at.leaves[from], at.leaves[to]];
    return [a.x + a.w, a.y + a.h / 2, ...points.flatMap(({ x, y }) => [x - frame.x, y - frame.y]), b.x, b.y + b.h / 2];
  });
  return { ...at, edges: lines, width: frame.w, height: frame.h };
}

function outline(boxes) {
  const x = Math.min(...boxes.map((box) => box.x));
  const y = Math.min(...boxes.map((box) => box.y));
  return {
    x,
    y,
    w: Math.max(...boxes.map((box) => box.x + box.w)) - x,
    h: Math.max(...boxes.map((box) => box.y + box.h)) - y,
  };
}

function around(members) {
  const { x, y, w, h } = outline(members);
  return { x: x - PAD, y: y - TITLE, w: w + 2 * PAD, h: h + TITLE + PAD };
}
