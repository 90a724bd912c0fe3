/** The widget: the header, one of the views, and the panel of the opened task. */

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
/** From this width on the panel is beside the view, and this share of the width is its own. */
const MIN_WIDTH_BESIDE = 780;
const PANEL_SHARE = 0.46;
const MAX_PANEL_WIDTH = 460;
/** The minimum height of a view with the panel beside it. */
const MIN_HEIGHT_BESIDE = 430;
const FRAME = 2;
/** The task that the keyboard has reached in a view. */
const FOCUSABLE_TASK = '.row[tabindex="0"], .node[tabindex="0"]';

export function App({ link, width, dark }) {
  const root = useRef(null);
  const { store, ui } = link;
  const opened = ui.selected?.id;
  const formerlyOpened = useRef(null);
  useEffect(() => {
    if (!opened && formerlyOpened.current)
      root.current?.querySelector(FOCUSABLE_TASK)?.focus({ preventScroll: true });
    formerlyOpened.current = opened;
  }, [opened]);
  if (!store.loaded)
    return html`<div class="root ${dark ? "dark" : ""}"><p class="empty"><i class="spin" aria-hidden="true"></i> Waiting for the run…</p></div>`;
  const inner = Math.max(200, width - FRAME);
  const beside = inner >= MIN_WIDTH_BESIDE;
  const panel = ui.selected ? (beside ? Math.min(MAX_PANEL_WIDTH, Math.round(inner * PANEL_SHARE)) : inner) : 0;
  const View = VIEWS[ui.view] ?? Grid;
  function onKeyDown(event) {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "checkbox";
    if (event.key === "Escape" && (ui.selected || typing)) {
      if (ui.selected) link.choose({ selected: null });
      else root.current.querySelector(FOCUSABLE_TASK)?.focus({ preventScroll: true });
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
    <${ErrorBoundary}>
      <${Header} link=${link} />
      <div class="body ${ui.selected ? "with-panel" : ""}">
        <div class="main" role="tabpanel" id="view" aria-labelledby=${`tab-${ui.view}`}>
          <${View} link=${link} width=${beside ? inner - panel : inner} least=${beside && ui.selected ? MIN_HEIGHT_BESIDE : 0} />
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

/** Shows an error of the widget itself as a notice. The run isn't affected. */
class ErrorBoundary extends Component {
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
