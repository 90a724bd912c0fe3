/** A line with a message. */

import { html } from "htm/preact";

/**
 * @param {object} props
 * @param {string} props.text
 * @param {string} [props.hint] what to do next
 * @param {"" | "warn" | "bad"} [props.kind]
 * @param {boolean} [props.waits] whether to show a spinner
 * @param {string} [props.role] ARIA role
 * @param {() => void} [props.onClose]
 */
export function Notice({ text, hint = "", kind = "", waits = false, role = "status", onClose }) {
  return html`<p class="notice ${kind}" role=${role}>
    ${waits && html`<i class="spin" aria-hidden="true"></i>`}
    <span>${text}${hint && html` <span class="quiet">${hint}</span>`}</span>
    ${onClose && html`<button class="quiet close" aria-label="Dismiss" onClick=${onClose}>×</button>`}
  </p>`;
}
