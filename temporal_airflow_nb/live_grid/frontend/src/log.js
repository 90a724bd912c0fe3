/** The end of a try's log, updated while it grows. */

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { html } from "htm/preact";
import { FINAL } from "./states.js";
import { Notice } from "./notice.js";
import { number } from "./format.js";

const PAUSE = 700;
const PAUSE_AFTER_ERROR = 3000;
const MAX_LINES = 2000;
/** A log that is scrolled this close to its end stays at the end. */
const NEAR_END = 24;
// Escape sequences of terminals, such as colours.
const ANSI = /[\u001b\u009b](?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)|[@-Z\\^_])/g;
const OVER = new Set([...FINAL, "skipped", "upstream_failed", "removed"]);

/** @param {string} text */
export function plain(text) {
  return text.replace(ANSI, "").replace(/\r(?!\n)/g, "\n");
}

export function Log({ link, one, attempt }) {
  const { store } = link;
  const [log, set] = useState({ lines: [], cut: 0, asked: false, problem: null, ended: false });
  const box = useRef(null);
  const sticks = useRef(true);
  const over = useRef(false);
  over.current = OVER.has(one.state) || attempt < one.attempt;

  useEffect(() => {
    set({ lines: [], cut: 0, asked: false, problem: null, ended: false });
    sticks.current = true;
    if (!attempt) return;
    let stopped = false;
    let timer;
    let after = 0;
    async function ask() {
      let pause = PAUSE;
      try {
        const wasOver = over.current;
        const answer = await link.request("log", { task_id: one.id, map_index: one.index, try_number: attempt, after });
        if (stopped) return;
        after = answer.next;
        set((known) => {
          const lines = known.lines.concat(answer.lines);
          const cut = Math.max(0, lines.length - MAX_LINES);
          return {
            lines: cut ? lines.slice(cut) : lines,
            cut: known.cut + cut,
            asked: true,
            problem: null,
            ended: answer.ended,
          };
        });
        if (answer.ended && wasOver) return;
      } catch (problem) {
        if (stopped) return;
        set((known) => ({ ...known, asked: true, problem }));
        pause = PAUSE_AFTER_ERROR;
      }
      timer = setTimeout(ask, pause);
    }
    ask();
    return () => {
      stopped = true;
      clearTimeout(timer);
    };
  }, [store.runId, one.id, one.index, attempt]);

  useLayoutEffect(() => {
    if (sticks.current && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [log]);

  const onScroll = () => {
    const { scrollTop, scrollHeight, clientHeight } = box.current;
    sticks.current = scrollHeight - scrollTop - clientHeight < NEAR_END;
  };
  if (!attempt) return html`<p class="empty">Not started yet.</p>`;
  const nothing = log.asked && !log.lines.length && !log.problem;
  return html`<div
    class="log"
    ref=${box}
    onScroll=${onScroll}
    role="log"
    aria-label=${`Log of try ${attempt}`}
    tabindex="0"
  >
    ${log.problem && html`<${Notice} kind="bad" text=${log.problem.message} hint=${log.problem.hint} />`}
    ${log.cut > 0 && html`<p class="quiet">The first ${number(log.cut)} lines are not shown.</p>`}
    ${!log.asked && html`<p class="quiet">Reading…</p>`}
    ${nothing && html`<p class="quiet">${log.ended ? "The log is empty." : "Nothing yet."}</p>`}
    ${log.lines.map(
      (line, i) =>
        html`<div
          key=${log.cut + i}
          class="line l-${level(line.level)}"
        >
          <time>${clock(line.time)}</time>${badge(line.level)}<span>${plain(line.text ?? "")}</span>
        </div>`,
    )}
  </div>`;
}

function level(name) {
  const known = String(name ?? "").toLowerCase();
  if (["error", "critical", "fatal"].includes(known)) return "error";
  return ["warning", "warn"].includes(known) ? "warning" : known === "debug" ? "debug" : "info";
}

function badge(name) {
  const kind = level(name);
  return kind === "error" || kind === "warning" ? html`<b>${String(name).toUpperCase()}</b>` : "";
}

function clock(time) {
  const found = /T(\d\d:\d\d:\d\d)/.exec(time ?? "");
  return found ? found[1] : "";
}
