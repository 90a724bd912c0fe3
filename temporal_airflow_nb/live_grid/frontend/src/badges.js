/** A state as a coloured square, in words, or as shares of a bar. */

import { html } from "htm/preact";
import { sortByProgress } from "./states.js";
import { number } from "./format.js";

/** A coloured square with the sign of a state. Screen readers get the state from the element around it. */
export function Sign({ styles, state, several }) {
  return html`<i class="sign s-${state} ${several ? "several" : ""}" aria-hidden="true">${styles.sign(state)}</i>`;
}

/** The sign and the name of a state. */
export function StateText({ styles, state }) {
  return html`<span class="state s-${state}"><${Sign}
    styles=${styles}
    state=${state}
  />
    <span class="words">${styles.words(state)}</span></span>`;
}

/** A bar with a part for each state, as long as its number of instances. The caller shows the counts as text. */
export function Shares({ counts }) {
  return html`<span class="shares" aria-hidden="true">
    ${sortByProgress(counts).map(
      ([state, n]) => html`<span
      key=${state}
      class="share s-${state}"
      style=${{ flexGrow: n }}
    ></span>`,
    )}
  </span>`;
}

/** Counts by state, each with its sign; cut off if there is too little space. */
export function Counts({ styles, counts }) {
  const all = styles.sortByPriority(counts);
  return html`<span class="counts">
    ${all.map(
      ([state, n]) =>
        html`<span
          key=${state}
          class="count s-${state}"
        >
          <b aria-hidden="true">${styles.sign(state)}</b>${number(n)}<span class=${all.length > 1 ? "hidden" : "quiet"}> ${styles.words(state)} </span>
        </span>`,
    )}
  </span>`;
}

/** Whether an address may become a link: an HTTP address or a path, so nothing that runs code. */
export function isSafeAddress(address) {
  return typeof address === "string" && (/^https?:\/\//i.test(address) || address.startsWith("/"));
}
