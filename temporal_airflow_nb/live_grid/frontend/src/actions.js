/** Actions that change a run: a question first, then the action and a notice with its result. */

import { useEffect, useRef, useState } from "preact/hooks";
import { html } from "htm/preact";
import { number } from "./format.js";

/** Milliseconds for which a notice of success stays. */
const NOTICE_TIME = 6000;

/** @param {number} n */
export const count = (n) => `${number(n)} ${n === 1 ? "task" : "tasks"}`;

/** The name of a task instance as in Airflow's logs: `load[3]`. */
export const formatName = (one) => (one.index >= 0 ? `${one.id}[${one.index}]` : one.id);

export const cleared = ({ affected }) => `${count(affected ?? 0)} cleared.`;

/**
 * Sends actions to the kernel.
 *
 * @returns {[(body: object, done: (answer: object) => string) => Promise<void>, boolean]} the function that sends one, and
 * whether an answer is pending
 */
export function useAction(link, onEnd) {
  const [busy, setBusy] = useState(false);
  async function act(body, done) {
    setBusy(true);
    let notice;
    try {
      notice = { text: done((await link.request("act", body)) ?? {}) };
    } catch (error) {
      notice = { text: error.message, hint: error.hint, bad: true };
    }
    setBusy(false);
    link.notice = notice;
    if (!notice.bad)
      setTimeout(() => {
        if (link.notice !== notice) return;
        link.notice = null;
        link.changed();
      }, NOTICE_TIME);
    onEnd();
    link.changed();
  }
  return [act, busy];
}

/**
 * The question that is shown in place of the buttons. Afterwards the focus returns to the button that opened it.
 *
 * @returns {[string | null, (question: string | null) => void, {current: HTMLElement | null}]} the last is the ref of the element
 * around the buttons
 */
export function useQuestion() {
  const [asking, ask] = useState(null);
  const box = useRef(null);
  const asked = useRef(null);
  useEffect(() => {
    const [from, around] = [asked.current, box.current];
    asked.current = asking;
    if (asking !== null || from === null || !around || around.getRootNode().activeElement) return;
    (around.querySelector(`[data-asks="${from}"]`) ?? around.querySelector("button"))?.focus({ preventScroll: true });
  }, [asking]);
  return [asking, ask, box];
}

/** A button that opens a question. If the action isn't possible, its tooltip says why. */
export function QuestionButton({ asks, refused = "", label, kind = "", disabled = false, onAsk, children }) {
  const tip = [label, refused].filter(Boolean).join("\n");
  return html`<button
    class="plain ${kind}"
    data-asks=${asks}
    data-tip=${tip || undefined}
    aria-label=${label}
    aria-disabled=${refused ? "true" : undefined}
    aria-description=${refused || undefined}
    disabled=${disabled}
    onClick=${() => refused || onAsk(asks)}
  >
    ${children}
  </button>`;
}

/** A question, shown in place of the buttons. */
export function Question({ text, yes, busy, onYes, onNo, children }) {
  const first = useRef(null);
  useEffect(() => first.current.focus({ preventScroll: true }), []);
  function onKeyDown(event) {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    onNo();
  }
  return html`<span class="ask" role="group" aria-label=${text} onKeyDown=${onKeyDown}>
    <span>${text}</span>${children}
    <button
      class="danger"
      ref=${first}
      disabled=${busy}
      onClick=${onYes}
    >
      ${busy ? html`<i class="spin" aria-hidden="true"></i>` : ""}${yes}
    </button>
    <button class="plain" disabled=${busy} onClick=${onNo}>Keep</button>
  </span>`;
}

/** Put text on the clipboard, even if the page isn't a secure context. */
export async function copy(text, near) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = document.createElement("textarea");
    field.value = text;
    field.style.cssText = "position:fixed;opacity:0";
    near.after(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    near.focus();
    return done;
  }
}
