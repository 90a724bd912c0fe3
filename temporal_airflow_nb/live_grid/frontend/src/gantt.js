/** The Gantt view: when each task waited and ran, on one time axis. */

import { html } from "htm/preact";
import { describeTimes, Track } from "./bars.js";
import { Sign } from "./badges.js";
import { Table } from "./table.js";
import { clockTicks, duration } from "./times.js";

const SIGN = 26;

export function Gantt({ link, width }) {
  const { store } = link;
  const now = store.now();
  const span = store.span();
  const name = Math.min(280, Math.max(140, Math.round(width * 0.28)));
  // Some space after the present, so that running bars don't touch the edge.
  const axis = store.final ? span : { begin: span.begin, end: span.end + (span.end - span.begin) * 0.03 };
  const marks = span.known ? clockTicks(axis.begin, axis.end, Math.max(2, Math.floor((width - name) / 90))) : [];
  const present = (100 * (now - axis.begin)) / (axis.end - axis.begin);
  return html`<${Table}
    kind="gantt"
    link=${link}
    label=${`Timeline of run ${store.runId}`}
    columns=${`${name}px ${SIGN}px minmax(0, 1fr)`}
    tip=${(row) => describeTimes(store, row, now)}
    head=${html`
      <div class="name" role="columnheader"><span class="label">Task</span>${span.known && html`<span class="longest">${duration((span.end - span.begin) / 1000)}</span>`}</div>
      <div role="columnheader"><span class="hidden">State</span></div>
      <div class="when" role="columnheader" aria-label="Time, UTC">
        ${marks.map(
          (mark, i) => html`<span
          key=${i}
          class="mark ${mark.at > 92 ? "end" : ""}"
          style=${{ left: `${mark.at}%` }}
        >
          ${mark.text}
        </span>`,
        )}
      </div>
    `}
    over=${html`<div class="lines" aria-hidden="true" style=${{ left: `${name + SIGN}px` }}>
      ${marks.map((mark, i) => html`<span key=${i} class="line" style=${{ left: `${mark.at}%` }}></span>`)}
    </div>
    ${
      span.known &&
      !store.final &&
      html`<div
      class="lines present"
      aria-hidden="true"
      style=${{ left: `${name + SIGN}px` }}
    >
      <span class="line" style=${{ left: `${present}%` }}></span>
    </div>`
    }`}
    cells=${(row) => {
      const one = row.kind === "group" ? null : store.instance(row.id, row.index);
      const state = one ? one.state : store.summary(row.id).state;
      return html`
        <div
          role="gridcell"
          aria-label=${store.styles.words(state)}
        >
          <${Sign} styles=${store.styles} state=${state} />
        </div>
        <div role="gridcell" class="when" aria-label=${describeTimes(store, row, now)}>
          <${Track} store=${store} row=${row} span=${axis} now=${now} />
        </div>
      `;
    }}
  />`;
}
