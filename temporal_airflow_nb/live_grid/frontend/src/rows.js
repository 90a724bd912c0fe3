/** The rows of a table of tasks: expanded, and matching the filters. */

/**
 * @typedef {object} Row
 * @property {string} key
 * @property {"group" | "task" | "instance"} kind
 * @property {string} id of the task or group
 * @property {number} index map index; -1 unless the row is one instance of a mapped task
 * @property {string} name
 * @property {number} depth
 * @property {boolean | null} open whether it is expanded, null if it can't be
 * @property {number} place among its siblings, from 1
 * @property {number} siblings
 * @property {import("./store.js").Node} node
 */

const cached = new WeakMap();

/**
 * @param {import("./connection.js").Link} link
 * @returns {Row[]}
 */
export function getRows({ store, ui }) {
  const filtered = ui.filter.trim() !== "" || ui.states.size > 0;
  const key = `${store.shape} ${ui.version} ${ui.states.size > 0 ? store.version : ""}`;
  const known = cached.get(ui);
  if (known?.key === key) return known.rows;
  const matching = filtered ? findMatching(store, ui) : null;
  const rows = [];
  add(store, ui, store.top, 0, matching, rows);
  cached.set(ui, { key, rows });
  return rows;
}

/** Return the ids of the tasks that match the filters, and of the groups that contain one. */
export function findMatching(store, ui) {
  const text = ui.filter.trim().toLowerCase();
  const found = new Set();
  for (const node of store.nodes.values()) {
    if (node.group || (text && !node.id.toLowerCase().includes(text))) continue;
    if (ui.states.size > 0 && !inStates(store.summary(node.id).counts, ui.states)) continue;
    for (let at = node; at && !found.has(at.id); at = store.nodes.get(at.parent)) found.add(at.id);
  }
  return found;
}

function inStates(counts, states) {
  for (const state of states) if (counts[state] > 0) return true;
  return false;
}

function add(store, ui, nodes, depth, matching, rows) {
  const shown = matching ? nodes.filter((node) => matching.has(node.id)) : nodes;
  shown.forEach((node, i) => {
    const mapped = !node.group && store.mapped(node.id);
    const open = node.group ? matching !== null || ui.open.has(node.id) : mapped ? ui.expanded.has(node.id) : null;
    rows.push({
      key: node.id,
      kind: node.group ? "group" : "task",
      id: node.id,
      index: -1,
      name: node.label,
      depth,
      open,
      place: i + 1,
      siblings: shown.length,
      node,
    });
    if (!open) return;
    if (node.group) add(store, ui, node.children, depth + 1, matching, rows);
    else addInstances(store, ui, node, depth + 1, rows);
  });
}

function addInstances(store, ui, node, depth, rows) {
  const all = [...store.tasks.get(node.id).values()].sort((a, b) => a.index - b.index);
  const shown = ui.states.size > 0 ? all.filter((one) => ui.states.has(one.state)) : all;
  shown.forEach((one, i) =>
    rows.push({
      key: `${node.id}\n${one.index}`,
      kind: "instance",
      id: node.id,
      index: one.index,
      name: one.label && one.label !== String(one.index) ? one.label : `[${one.index}]`,
      depth,
      open: null,
      place: i + 1,
      siblings: shown.length,
      node,
    }),
  );
}

/** Expand or collapse a row. */
export function setExpanded(link, row, open = !row.open) {
  const set = row.kind === "group" ? link.ui.open : link.ui.expanded;
  if (open) set.add(row.id);
  else set.delete(row.id);
  link.choose({});
}

/** Expand or collapse all groups. */
export function setAllExpanded(link, open) {
  const groups = open ? [...link.store.nodes.values()].filter((node) => node.group).map((node) => node.id) : [];
  link.choose({ open: new Set(groups), expanded: new Set() });
}
