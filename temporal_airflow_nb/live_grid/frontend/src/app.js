/** The widget: header, one of the views, the task that was opened. */

import { Component } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { html } from "htm/preact";
import { Gantt } from "./gantt.js";
import { Graph } from "./graph.js";
import { Grid } from "./grid.js";
import { Header } from "./header.js";
import { Panel } from "./panel.js";
import { Tip } from "./tooltip.js";

const VIEWS = { grid: Grid, graph: Graph, gantt: Gantt };
/** The least width at which the panel has its place beside the view, and the share it takes there. */
const BESIDE = 780;
const SHARE = 0.46;
const MOST = 460;
/** The least height of a view that the panel stands beside. */
const HEIGHT = 430;
const FRAME = 2;
/** Where the keyboard walks through the tasks. */
const PLACE = '.row[tabindex="0"], .node[tabindex="0"]';

export function App({ link, width, dark }) {
  const root = useRef(null);
  const { store, ui } = link;
  const opened = ui.selected?.id;
  const came = useRef(null);
  useEffect(() => {
    if (!opened && came.current)
      root.current?.querySelector(PLACE)?.focus({ preventScroll: true });
    came.current = opened;
  }, [opened]);
  if (!store.loaded)
    return html`<div class="root ${dark ? "dark" : ""}"><p class="empty"><i class="spin" aria-hidden="true"></i> Waiting for the run…</p></div>`;
  const inner = Math.max(200, width - FRAME);
  const beside = inner >= BESIDE;
  const panel = ui.selected ? (beside ? Math.min(MOST, Math.round(inner * SHARE)) : inner) : 0;
  const View = VIEWS[ui.view] ?? Grid;
  function onKeyDown(event) {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "checkbox";
    if (event.key === "Escape" && (ui.selected || typing)) {
      if (ui.selected) link.choose({ selected: null });
      else root.current.querySelector(PLACE)?.focus({ preventScroll: true });
    } else if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
      root.current.querySelector(".filter input").focus();
    } else return;
    event.preventDefault();
  }
  return html`<div
    class="root ${dark ? "dark" : ""} ${beside ? "beside" : "below"} ${inner < 620 ? "narrow" : ""}"
    role="region"
    aria-label=${`Run ${store.runId} of DAG ${store.dagId}`}
    ref=${root}
    onKeyDown=${onKeyDown}
  >
    <${Guard}>
      <${Header} link=${link} />
      <div class="body ${ui.selected ? "with-panel" : ""}">
        <div class="main" role="tabpanel" id="view" aria-labelledby=${`tab-${ui.view}`}>
          <${View} link=${link} width=${beside ? inner - panel : inner} least=${beside && ui.selected ? HEIGHT : 0} />
        </div>
        ${
          ui.selected &&
          html`<div
          class="side"
          style=${beside ? { width: `${panel}px` } : {}}
        >
          <${Panel} link=${link} />
        </div>`
        }
      </div>
    <//>
    <${Tip} root=${root} />
  </div>`;
}

/** A fault of ours is said in a line; the run isn't touched by it. */
class Guard extends Component {
  componentDidCatch(error) {
    console.error(error);
    this.setState({ error });
  }

  render({ children }, { error }) {
    if (!error) return children;
    return html`<p class="notice bad" role="alert">
      The live view failed: ${String(error.message ?? error)}
      <button class="plain" onClick=${() => this.setState({ error: null })}>Try again</button>
    </p>`;
  }
}
