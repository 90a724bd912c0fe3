/** A line that says what happened. */

import { html } from "htm/preact";

/**
 * @param {object} props
 * @param {string} props.text
 * @param {string} [props.hint] what to do
 * @param {"" | "warn" | "bad"} [props.kind]
 * @param {boolean} [props.waits] whether it passes by itself
 * @param {string} [props.role] how screen readers say it
 * @param {() => void} [props.onClose]
 */
export function Notice({ text, hint = "", kind = "", waits = false, role = "status", onClose }) {
  return html`<p class="notice ${kind}" role=${role}>
    ${waits && html`<i class="spin" aria-hidden="true"></i>`}
    <span>${text}${hint && html` <span class="quiet">${hint}</span>`}</span>
    ${onClose && html`<button class="quiet close" aria-label="Dismiss" onClick=${onClose}>×</button>`}
  </p>`;
}
