/** Selects the nodes and edges that the graph shows. */

/**
 * Return tasks and collapsed groups, the boxes of expanded groups, and the edges between visible nodes.
 *
 * @param {import("./store.js").RunStore} store
 * @param {Set<string>} open expanded groups
 * @param {Set<string> | null} only the nodes that may be visible; all if null
 * @returns {{leaves: import("./store.js").Node[], boxes: import("./store.js").Node[], edges: [string, string][]}}
 */
export function visible(store, open, only = null) {
  const leaves = [];
  const boxes = [];
  const shownAs = new Map();
  function walk(nodes, foldedInto) {
    for (const node of nodes) {
      if (only && !only.has(node.id)) continue;
      const box = node.group && open.has(node.id) && foldedInto === null;
      if (box) boxes.push(node);
      else if (foldedInto === null) leaves.push(node);
      shownAs.set(node.id, foldedInto ?? node.id);
      walk(node.children, box ? null : (foldedInto ?? node.id));
    }
  }
  walk(store.top, null);
  const edges = new Map();
  for (const [from, to] of store.edges) {
    const [a, b] = [shownAs.get(from), shownAs.get(to)];
    if (a !== undefined && b !== undefined && a !== b) edges.set(`${a}\n${b}`, [a, b]);
  }
  return { leaves, boxes, edges: [...edges.values()] };
}
