/** The header: state, times, links and failures of the whole run, and its buttons and filters. */

import { html } from "htm/preact";
import { Question, QuestionButton, cleared, count, formatName, useAction, useQuestion } from "./actions.js";
import { sortByProgress, FINAL } from "./states.js";
import { Notice } from "./notice.js";
import { number } from "./format.js";
import { Shares, isSafeAddress, Sign } from "./badges.js";
import { duration, elapsed } from "./times.js";

const VIEWS = [
  ["grid", "Grid"],
  ["graph", "Graph"],
  ["gantt", "Gantt"],
];

const MAX_FAILURES = 3;
const GONE = "The kernel has stopped. The run continues; this is its last known state.";
const LOST = "The connection is lost. Trying again.";

export function Header({ link }) {
  const { store } = link;
  const { styles, state, run } = store;
  const now = store.now();
  const begun = run?.start ?? null;
  const seconds = begun === null ? null : Math.max(0, ((run.end ?? now) - begun) / 1000);
  const { counts } = store.summary();
  function dismiss() {
    link.notice = null;
    link.changed();
  }
  return html`<div class="head">
    ${store.production && html`<p class="production" role="note">${production(store.production)}</p>`}
    <div class="title">
      <span
        class="pill s-${state} ${FINAL.has(state) ? "" : "going"}"
      >
        <${Sign} styles=${styles} state=${state} />${styles.words(state)}
      </span>
      <strong class="dag" data-tip=${store.dagId}>${store.dagId}</strong>
      <span class="run-id" data-tip=${store.runId}>${store.runId}</span>
      <span class="hidden">Elapsed </span><span class="took">${FINAL.has(state) ? duration(seconds) : elapsed(seconds)}</span>
      <span
        class="hidden"
        role="status"
        aria-live="polite"
      >
        Run ${store.runId} of ${store.dagId}: ${styles.words(state)}
      </span>
      <span class="space"></span>
      <${RunButtons} link=${link} />
      <span class="links">${["airflow", "temporal"]
        .filter((name) => isSafeAddress(store.links?.[name]))
        .map(
          (name) =>
            html`<a
              key=${name}
              href=${store.links[name]}
              target="_blank"
              rel="noopener noreferrer"
              aria-label=${`Open in ${title(name)}`}
            >
              ${title(name)} <span aria-hidden="true">↗</span>
            </a>`,
        )}</span>
    </div>
    ${!link.live && html`<${Notice} kind="warn" text=${GONE} />`}
    ${link.live && !store.connection.ok && html`<${Notice} kind="warn" waits text=${store.connection.text || LOST} />`}
    ${link.notice && html`<${Notice} ...${link.notice} kind=${link.notice.bad ? "bad" : ""} onClose=${dismiss} />`}
    <${Shares} counts=${counts} />
    <${Failures} link=${link} total=${counts.failed ?? 0} />
    <${Bar} link=${link} counts=${counts} />
  </div>`;
}

/** The names of failed tasks; each opens the details of its failure. */
function Failures({ link, total }) {
  const { store } = link;
  if (!total) return null;
  const shown = store.failures(MAX_FAILURES);
  return html`<p class="failures s-failed">
    <${Sign} styles=${store.styles} state="failed" />
    ${shown.map((one) => {
      const name = formatName(one);
      return html`<button
        key=${name}
        class="why"
        aria-label=${`Why did ${name} fail?`}
        onClick=${() => link.choose({ selected: { id: one.id, index: one.index, attempt: null }, tab: null })}
      >
        ${name}
      </button>`;
    })}
    <span class="quiet">${total > shown.length ? `and ${number(total - shown.length)} more ` : ""}failed</span>
  </p>`;
}

function production(text) {
  return /produc/i.test(text) ? text : `Production: ${text}`;
}

function title(name) {
  return name[0].toUpperCase() + name.slice(1);
}

function Bar({ link, counts }) {
  const { ui, store } = link;
  const { styles } = store;
  function toggle(state) {
    const states = new Set(ui.states);
    if (!states.delete(state)) states.add(state);
    link.choose({ states });
  }
  function onKeyDown(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const at = VIEWS.findIndex(([id]) => id === ui.view);
    link.show(VIEWS[(at + by + VIEWS.length) % VIEWS.length][0]);
    event.currentTarget.querySelectorAll("button")[(at + by + VIEWS.length) % VIEWS.length].focus();
  }
  const all = [...sortByProgress(counts), ...[...ui.states].filter((state) => !counts[state]).map((state) => [state, 0])];
  return html`<div class="controls">
    <div class="tabs" role="tablist" aria-label="View" onKeyDown=${onKeyDown}>
      ${VIEWS.map(
        ([id, name]) =>
          html`<button
            key=${id}
            role="tab"
            id=${`tab-${id}`}
            aria-controls="view"
            aria-selected=${String(ui.view === id)}
            tabindex=${ui.view === id ? 0 : -1}
            onClick=${() => link.show(id)}
          >
            ${name}
          </button>`,
      )}
    </div>
    <div class="legend" role="group" aria-label="Filter by state">
      ${all.map(
        ([state, n]) => html`<button
          key=${state}
          class="chip s-${state}"
          data-state=${state}
          aria-pressed=${String(ui.states.has(state))}
          onClick=${() => toggle(state)}
        >
          <${Sign} styles=${styles} state=${state} /><b>${number(n)}</b> ${styles.words(state)}
        </button>`,
      )}
    </div>
    <label class="filter">
      <span class="hidden">Filter tasks</span>
      <input
        type="search"
        placeholder="Filter tasks  /"
        value=${ui.filter}
        onInput=${(event) => link.choose({ filter: event.target.value })}
        onKeyDown=${(event) => {
          if (event.key !== "Escape" || !ui.filter) return;
          event.stopPropagation();
          link.choose({ filter: "" });
        }}
      />
    </label>
  </div>`;
}

function RunButtons({ link }) {
  const [asking, ask, box] = useQuestion();
  const [act, busy] = useAction(link, () => ask(null));
  const { store } = link;
  if (!link.live) return null;
  const { counts, total } = store.summary();
  const failed = (counts.failed ?? 0) + (counts.upstream_failed ?? 0);
  const questions = {
    Cancel: {
      if: !store.final,
      text: "Cancel this run?",
      yes: "Cancel run",
      body: { action: "cancel" },
      done: () => "The run is being cancelled.",
    },
    "Clear failed": {
      if: failed > 0,
      text: `Clear ${number(failed)} failed and run again?`,
      yes: "Clear failed",
      body: { action: "clear", only_failed: true },
      done: cleared,
    },
    "Clear all": {
      if: store.final,
      text: `Clear all ${count(total)} and run again?`,
      yes: "Clear all",
      body: { action: "clear" },
      done: cleared,
    },
  };
  const question = questions[asking];
  return html`<span class="buttons" ref=${box}>
    ${
      question
        ? html`<${Question}
        ...${question}
        busy=${busy}
        onYes=${() => act(question.body, question.done)}
        onNo=${() => ask(null)}
      />`
        : Object.entries(questions).map(
            ([name, { if: fits, body }]) =>
              fits &&
              html`<${QuestionButton} key=${name} asks=${name} refused=${store.refused[body.action]} onAsk=${ask}>${name}<//>`,
          )
    }
  </span>`;
}
