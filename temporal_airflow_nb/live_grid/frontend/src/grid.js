/** The grid view: tasks and runs as in Airflow's grid, and the details of the followed run. */

import { html } from "htm/preact";
import { getSeconds, describeTimes, Track, formatTry } from "./bars.js";
import { ACTIVE, FINAL } from "./states.js";
import { setAllExpanded } from "./rows.js";
import { Counts, Shares, Sign } from "./badges.js";
import { Table } from "./table.js";
import { duration, elapsed, exact, ticks } from "./times.js";

const MAX_RUNS = 14;
const COLUMN = 22;
const NAME = 190;
const STATE = 146;
const NUMBERS = 44 + 78;
const TIMELINE = 150;
const BAR = 34;
/** The letter of each run type. */
const TYPES = { manual: "M", scheduled: "S", backfill: "B", asset_triggered: "A", asset_materialization: "A" };

export function Grid({ link, width }) {
  const { store } = link;
  const now = store.now();
  const span = store.span();
  const wide = width >= NAME + STATE + NUMBERS + TIMELINE + 60;
  const numbers = width >= NAME + STATE + NUMBERS + 40;
  const detail = STATE + (numbers ? NUMBERS : 0) + (wide ? TIMELINE : 0);
  const runs = selectRuns(store, Math.max(1, Math.min(MAX_RUNS, Math.floor((width - NAME - detail - 24) / COLUMN))));
  const columns = [
    `minmax(${NAME - 40}px, ${wide ? 1 : 2}fr)`,
    runs.length ? `repeat(${runs.length}, ${COLUMN}px)` : "",
    `minmax(96px, ${STATE}px)`,
    numbers ? "44px 78px" : "",
    wide ? `minmax(${TIMELINE}px, 1.5fr)` : "",
  ].join(" ");
  const marks = span.known ? ticks((span.end - span.begin) / 1000, width > 1000 ? 5 : 3) : [];
  const gap = marks.length > 1 ? `${marks[1].at - marks[0].at}%` : "100%";
  return html`<div class="grid" style=${{ "--tick": gap }}>
    <${Table}
      kind="runs-and-tasks"
      link=${link}
      label=${`Tasks and runs of DAG ${store.dagId}`}
      columns=${columns}
      tip=${(row) => describeTimes(store, row, now)}
      head=${html`<${Head} link=${link} runs=${runs} now=${now} numbers=${numbers} marks=${wide ? marks : null} />`}
      cells=${(row) => html`
        ${runs.map((run) => html`<${Cell} key=${run.id} store=${store} row=${row} run=${run} />`)}
        <${State} store=${store} row=${row} />
        ${numbers && html`<${Numbers} store=${store} row=${row} now=${now} />`}
        ${
          wide &&
          html`<div class="when" role="gridcell"><${Track}
          store=${store}
          row=${row}
          span=${span}
          now=${now}
        /></div>`
        }
      `}
    />
  </div>`;
}

/** Return the newest runs, with the followed run among them. */
function selectRuns(store, most) {
  const all = store.ordered ?? [];
  const at = all.findIndex((run) => run.id === store.runId);
  const newest = Math.max(0, all.length - most);
  const first = at < 0 ? newest : Math.min(at, newest);
  return all.slice(first, first + most);
}

function Head({ link, runs, now, numbers, marks }) {
  const { store } = link;
  const took = (run) =>
    run.start === null ? 0 : Math.max(0, (run.end ?? (FINAL.has(run.state) ? run.start : now)) - run.start);
  const longest = Math.max(1, ...runs.map(took));
  const several = new Set(runs.map((run) => run.type)).size > 1;
  const groups = [...store.nodes.values()].some((node) => node.group);
  const folded = link.ui.open.size === 0;
  function onKeyDown(event) {
    const next = { ArrowLeft: "previousElementSibling", ArrowRight: "nextElementSibling" }[event.key];
    if (!next) return;
    event.preventDefault();
    event.stopPropagation();
    event.target.parentElement[next]?.querySelector("button.run")?.focus();
  }
  return html`
    <div class="name" role="columnheader">
      <span class="label">Task</span>
      ${
        groups &&
        html`<button
          class="quiet small"
          onClick=${() => setAllExpanded(link, folded)}
          onKeyDown=${(event) => event.key !== "Escape" && event.stopPropagation()}
        >
        ${folded ? "Expand all" : "Collapse all"}
      </button>`
      }
      ${
        runs.length > 1 &&
        html`<span
        class="longest"
        title="Longest of these runs"
      >
        ${duration(longest / 1000)}
      </span>`
      }
    </div>
    ${runs.map((run) => {
      const on = run.id === store.runId;
      const words = store.styles.words(run.state);
      const length = took(run);
      return html`<div
        key=${run.id}
        role="columnheader"
        class="runhead ${on ? "on" : ""} ${link.focusing === run.id ? "coming" : ""}"
      >
        <button
          class="run"
          tabindex=${on ? 0 : -1}
          aria-pressed=${String(on)}
          aria-label=${`Run ${run.id}, ${words}${run.type ? `, ${formatType(run)}` : ""}${length ? `, ${duration(length / 1000)}` : ""}`}
          data-run-head=${run.id}
          data-tip=${runTip(run, words, length)}
          onClick=${() => link.focus(run.id)}
          onKeyDown=${(event) => {
            onKeyDown(event);
            if (event.key === "Enter" || event.key === " ") event.stopPropagation();
          }}
        >
          ${several && html`<span class="type" aria-hidden="true">${TYPES[run.type]}</span>`}
          <span
            class="length s-${run.state} ${ACTIVE.has(run.state) ? "open" : ""}"
            style=${{ height: `${Math.max(3, (BAR * length) / longest)}px` }}
          ></span>
        </button>
      </div>`;
    })}
    <div role="columnheader">State</div>
    ${numbers && html`<div role="columnheader" class="number">Try</div><div role="columnheader" class="number">Duration</div>`}
    ${
      marks &&
      html`<div role="columnheader" class="when" aria-label="Timeline">
      ${marks.map(
        (mark) => html`<span
        key=${mark.text}
        class="mark ${mark.at > 88 ? "end" : ""}"
        style=${{ left: `${mark.at}%` }}
      >
        ${mark.text}
      </span>`,
      )}
    </div>`
    }
  `;
}

const formatType = (run) => run.type.replaceAll("_", " ");

function runTip(run, words, length) {
  const lines = [
    run.id,
    `${words}${run.type ? `, ${formatType(run)}` : ""}${run.version ? `, DAG version ${run.version}` : ""}`,
  ];
  if (run.logical !== null) lines.push(`logical date  ${exact(run.logical)}`);
  if (run.start !== null) lines.push(`started  ${exact(run.start)}`);
  if (run.end !== null) lines.push(`ended  ${exact(run.end)}`);
  if (length) lines.push(`took  ${duration(length / 1000)}`);
  if (run.note) lines.push(run.note);
  return lines.join("\n");
}

function Cell({ store, row, run }) {
  const on = run.id === store.runId;
  const { styles } = store;
  let state = null;
  let words = "";
  let several = false;
  if (row.kind === "instance") {
    const one = on ? store.instance(row.id, row.index) : null;
    if (one) state = one.state;
    words = state ? styles.words(state) : "";
  } else {
    const counts = on ? store.summary(row.id).counts : store.share(run.id, row.id);
    const kinds = counts ? Object.keys(counts) : [];
    if (kinds.length) {
      state = kinds.length === 1 ? kinds[0] : styles.overall(counts);
      several = kinds.length > 1 || counts[kinds[0]] > 1;
      words = several ? styles.phrase(counts) : styles.words(state);
    }
  }
  return html`<div
    role="gridcell"
    class="cell ${on ? "on" : ""}"
    data-run=${run.id}
    aria-label=${`${run.id}: ${words || "not in this run"}`}
    data-tip=${`${row.kind === "instance" ? `${row.id} [${row.index}]` : row.id}\n${words || "not in this run"}\n${run.id}`}
  >
    ${state ? html`<${Sign} styles=${styles} state=${state} several=${several} />` : html`<i class="none"></i>`}
  </div>`;
}

function State({ store, row }) {
  const { styles } = store;
  const one = row.kind === "group" ? null : store.instance(row.id, row.index);
  if (one)
    return html`<div role="gridcell"><span class="state s-${one.state}"><span class="words">${styles.words(one.state)}</span></span></div>`;
  const { counts, total } = store.summary(row.id);
  if (!total) return html`<div role="gridcell"></div>`;
  return html`<div role="gridcell" class="many"><${Counts}
    styles=${styles}
    counts=${counts}
  />
    <${Shares} counts=${counts} /></div>`;
}

function Numbers({ store, row, now }) {
  const one = row.kind === "group" ? null : store.instance(row.id, row.index);
  const seconds = getSeconds(store, row, now);
  const going = one ? one.start !== null && one.end === null : store.summary(row.id).open;
  return html`
    <div role="gridcell" class="number quiet">${formatTry(one)}</div>
    <div role="gridcell" class="number">${going ? elapsed(seconds) : duration(seconds)}</div>
  `;
}
