/** The panel of one task: its state, tries, log, details and error, and the actions on it. */

import { useEffect, useState } from "preact/hooks";
import { html } from "htm/preact";
import { Question, QuestionButton, cleared, copy, formatName, useAction, useQuestion } from "./actions.js";
import { getSeconds, formatTry } from "./bars.js";
import { Details, Failure } from "./details.js";
import { Log } from "./log.js";
import { Notice } from "./notice.js";
import { number } from "./format.js";
import { isSafeAddress, Sign, StateText } from "./badges.js";
import { duration, elapsed } from "./times.js";

const MAX_SQUARES = 240;

export function Panel({ link }) {
  const { store, ui } = link;
  const one = store.instance(ui.selected.id, ui.selected.index) ?? store.mostImportant(ui.selected.id);
  const node = store.nodes.get(ui.selected.id);
  const attempt = ui.selected.attempt ?? one?.attempt ?? 0;
  const [answer, busy] = useTask(link, ui.selected.id, one, attempt);
  const data = answer?.data;
  const error = data?.error;
  const tab = ui.tab ?? (one?.state === "failed" ? "error" : "log");
  const shown = tab === "error" && !error && data ? "log" : tab;
  const close = () => link.choose({ selected: null });
  if (!one)
    return html`<aside class="panel" aria-label=${`Task ${ui.selected.id}`}>
      <div class="panel-title">
        <strong class="mono">${ui.selected.id}</strong>
        <span class="space"></span>
        <${Close} onClick=${close} />
      </div>
      <p class="empty">This run has no such task.</p>
    </aside>`;
  const now = store.now();
  const seconds = getSeconds(store, { kind: "instance", id: one.id, index: one.index }, now);
  const tabs = [["log", "Log"], ["details", "Details"], ...(error || shown === "error" ? [["error", "Error"]] : [])];
  return html`<aside class="panel" aria-label=${`Task ${one.id}`}>
    <div class="panel-title">
      <strong class="mono" data-tip=${one.id}>${one.id}</strong>
      ${one.index >= 0 && html`<span class="size">${one.label || one.index}</span>`}
      <span class="space"></span>
      <${Close} onClick=${close} />
    </div>
    <div class="facts">
      <${StateText} styles=${store.styles} state=${one.state} />
      <${Tries} link=${link} one=${one} attempt=${attempt} />
      <span class="number">${one.start !== null && one.end === null ? elapsed(seconds) : duration(seconds)}</span>
      <span class="quiet">${one.operator || node?.operator}</span>
      ${one.pool && one.pool !== "default_pool" && html`<span class="quiet">pool ${one.pool}</span>`}
    </div>
    ${store.mapped(one.id) && html`<${Instances} link=${link} one=${one} />`}
    <${TaskButtons} link=${link} one=${one} />
    <div
      class="tabs small"
      role="tablist"
      aria-label="About this task"
      onKeyDown=${(event) => walk(event, tabs, shown, (id) => link.choose({ tab: id }))}
    >
      ${tabs.map(
        ([id, name]) =>
          html`<button
            key=${id}
            role="tab"
            aria-selected=${String(shown === id)}
            tabindex=${shown === id ? 0 : -1}
            onClick=${() => link.choose({ tab: id })}
          >
            ${name}
          </button>`,
      )}
      ${
        busy &&
        html`<span class="busy quiet">
          <span class="late">The kernel is busy. Waiting for its answer. </span>
          <i class="spin" role="img" aria-label="Waiting for the kernel"></i>
        </span>`
      }
    </div>
    <div class="panel-body" role="tabpanel" aria-label=${tabs.find(([id]) => id === shown)[1]}>
      ${store.refused.task && shown !== "log" && html`<${Notice} text=${store.refused.task} />`}
      ${
        answer?.problem &&
        html`<${Notice} kind="bad" role="alert" text=${answer.problem.message} hint=${answer.problem.hint} />`
      }
      ${shown === "log" && store.refused.log && html`<${Notice} text=${store.refused.log} />`}
      ${shown === "log" && !store.refused.log && html`<${Log} link=${link} one=${one} attempt=${attempt} />`}
      ${shown === "details" && data && html`<${Details} data=${data} styles=${store.styles} />`}
      ${shown === "error" && error && html`<${Failure} error=${error} />`}
    </div>
    ${data?.commands?.length > 0 && html`<${Commands} commands=${data.commands} />`}
  </aside>`;
}

function Close({ onClick }) {
  return html`<button class="quiet close" aria-label="Close the task" onClick=${onClick}>×</button>`;
}

function walk(event, tabs, shown, choose) {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!by) return;
  event.preventDefault();
  const at = tabs.findIndex(([id]) => id === shown);
  const to = (at + by + tabs.length) % tabs.length;
  choose(tabs[to][0]);
  event.currentTarget.querySelectorAll("[role=tab]")[to]?.focus();
}

/** The details of one try, requested again whenever the state or the end of the task changes. */
function useTask(link, id, one, attempt) {
  const [answer, set] = useState(null);
  const [busy, setBusy] = useState(false);
  const { store } = link;
  const index = one?.index ?? -1;
  useEffect(() => set(null), [store.runId, id, index, attempt]);
  useEffect(() => {
    if (!one || store.refused.task) return;
    let over = false;
    setBusy(true);
    const body = { task_id: id, map_index: index, ...(attempt ? { try_number: attempt } : {}) };
    link.request("task", body).then(
      (data) => over || (set({ data }), setBusy(false)),
      (problem) => over || (set({ problem }), setBusy(false)),
    );
    return () => {
      over = true;
    };
  }, [store.runId, id, index, attempt, one?.state, one?.end]);
  return [answer, busy];
}

function Tries({ link, one, attempt }) {
  if (one.attempt < 2) return html`<span class="quiet">${one.attempt ? `try ${formatTry(one)}` : ""}</span>`;
  const numbers = Array.from({ length: one.attempt }, (_, i) => i + 1);
  const onChange = (event) => {
    const number = Number(event.target.value);
    link.choose({ selected: { id: one.id, index: one.index, attempt: number === one.attempt ? null : number } });
  };
  return html`<label class="tries"><span class="quiet">try </span><select
    aria-label="Try"
    value=${attempt}
    onChange=${onChange}
  >
    ${numbers.map((n) => html`<option key=${n} value=${n} selected=${n === attempt}>${n}</option>`)}
  </select><span class="quiet"> of ${Math.max(one.maxTries + 1, one.attempt)}</span></label>`;
}

function Instances({ link, one }) {
  const { store } = link;
  const { styles } = store;
  const all = [...store.tasks.get(one.id).values()];
  const place = (each) => styles.priority.get(each.state) ?? 1000;
  const order =
    all.length > MAX_SQUARES
      ? all.sort((a, b) => place(a) - place(b) || a.index - b.index).slice(0, MAX_SQUARES)
      : all.sort((a, b) => a.index - b.index);
  const choose = (index) => link.choose({ selected: { id: one.id, index, attempt: null } });
  function onKeyDown(event) {
    const by = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const to = order[Math.max(0, Math.min(order.length - 1, order.findIndex((each) => each.index === one.index) + by))];
    choose(to.index);
    event.currentTarget.querySelector(`[data-instance="${to.index}"]`)?.focus();
  }
  return html`<div class="instances" role="listbox" aria-label="Map index" onKeyDown=${onKeyDown}>
    ${order.map(
      (each) => html`<button
        key=${each.index}
        role="option"
        data-instance=${each.index}
        tabindex=${each.index === one.index ? 0 : -1}
        aria-selected=${String(each.index === one.index)}
        aria-label=${`${each.label || each.index}: ${styles.words(each.state)}`}
        data-tip=${`[${each.index}] ${each.label && each.label !== String(each.index) ? each.label : ""}\n${styles.words(each.state)}`}
        onClick=${() => choose(each.index)}
      ><${Sign} styles=${styles} state=${each.state} /></button>`,
    )}
    ${all.length > MAX_SQUARES && html`<span class="quiet">and ${number(store.tasks.get(one.id).size - MAX_SQUARES)} more: expand the row</span>`}
  </div>`;
}

const MARKS = ["success", "failed", "skipped"];

function TaskButtons({ link, one }) {
  const { store } = link;
  const [asking, ask, box] = useQuestion();
  const [downstream, setDownstream] = useState(true);
  const [act, busy] = useAction(link, () => ask(null));
  useEffect(() => ask(null), [one.id, one.index]);
  const airflow = isSafeAddress(store.links?.airflow) && runPage(store, one);
  const target = { task_ids: [one.id], map_indexes: one.index >= 0 ? [one.index] : null };
  if (asking === "clear")
    return html`<div class="buttons" ref=${box}><${Question}
      text=${`Clear ${formatName(one)} and run it again?`}
      yes="Clear"
      busy=${busy}
      onYes=${() => act({ action: "clear", ...target, downstream }, cleared)}
      onNo=${() => ask(null)}
    >
      <label class="check">
        <input type="checkbox" checked=${downstream} onChange=${(event) => setDownstream(event.target.checked)} />
        <span>and downstream</span>
      </label>
    <//></div>`;
  const words = asking && store.styles.words(asking);
  const marked = () => `${formatName(one)} is marked ${words}.`;
  if (asking)
    return html`<div class="buttons" ref=${box}><${Question}
      text=${`Mark ${formatName(one)} as ${words}?`}
      yes=${`Mark ${words}`}
      busy=${busy}
      onYes=${() => act({ action: "mark", state: asking, ...target }, marked)}
      onNo=${() => ask(null)}
    /></div>`;
  return html`<div class="buttons" ref=${box}>
    ${
      link.live &&
      html`<${QuestionButton} asks="clear" refused=${store.refused.clear} onAsk=${ask}>Clear…<//>
      <span class="joined" role="group" aria-label="Mark as">
        <span class="quiet">Mark</span>
        ${MARKS.map(
          (state) => html`<${QuestionButton}
          key=${state}
          asks=${state}
          kind="s-${state}"
          label=${`Mark ${store.styles.words(state)}`}
          refused=${store.refused.mark}
          disabled=${one.state === state}
          onAsk=${ask}
        >
          <${Sign} styles=${store.styles} state=${state} />
        <//>`,
        )}
      </span>`
    }
    <span class="space"></span>
    ${
      airflow &&
      html`<a
      href=${airflow}
      target="_blank"
      rel="noopener noreferrer"
    >
      Open in Airflow <span aria-hidden="true">↗</span>
    </a>`
    }
  </div>`;
}

function runPage(store, one) {
  const address = store.links.airflow.replace(/\/$/, "");
  const page = address.includes("/runs/")
    ? address
    : `${address}/dags/${encodeURIComponent(store.dagId)}/runs/${encodeURIComponent(store.runId)}`;
  return `${page}/tasks/${encodeURIComponent(one.id)}${one.index >= 0 ? `/mapped/${one.index}` : ""}`;
}

function Commands({ commands }) {
  const [copied, setCopied] = useState(null);
  useEffect(() => {
    if (copied === null) return;
    const timer = setTimeout(() => setCopied(null), 1500);
    return () => clearTimeout(timer);
  }, [copied]);
  return html`<div class="commands" role="group" aria-label="Next steps, click to copy">
    ${commands.map(
      (command) => html`<button
        key=${command}
        class="command"
        onClick=${async (event) => (await copy(command, event.currentTarget)) && setCopied(command)}
      >
        <code>${command}</code><span class="quiet" aria-live="polite">${copied === command ? "copied" : "copy"}</span>
      </button>`,
    )}
  </div>`;
}
