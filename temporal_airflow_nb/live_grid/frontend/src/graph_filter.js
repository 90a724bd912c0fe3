/** What of a DAG is seen in its graph. */

/**
 * Tasks and folded groups, the boxes of unfolded ones, and the edges between what is seen.
 *
 * @param {import("./store.js").RunStore} store
 * @param {Set<string>} open groups that are unfolded
 * @param {Set<string> | null} only what may be seen, everything if null
 * @returns {{leaves: import("./store.js").Node[], boxes: import("./store.js").Node[], edges: [string, string][]}}
 */
export function visible(store, open, only = null) {
  const leaves = [];
  const boxes = [];
  const stand = new Map();
  function walk(nodes, folded) {
    for (const node of nodes) {
      if (only && !only.has(node.id)) continue;
      const box = node.group && open.has(node.id) && folded === null;
      if (box) boxes.push(node);
      else if (folded === null) leaves.push(node);
      stand.set(node.id, folded ?? node.id);
      walk(node.children, box ? null : (folded ?? node.id));
    }
  }
  walk(store.top, null);
  const edges = new Map();
  for (const [from, to] of store.edges) {
    const [a, b] = [stand.get(from), stand.get(to)];
    if (a !== undefined && b !== undefined && a !== b) edges.set(`${a}\n${b}`, [a, b]);
  }
  return { leaves, boxes, edges: [...edges.values()] };
}
