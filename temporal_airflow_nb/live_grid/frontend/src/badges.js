/** A state as a square, as words, as shares of a bar. */

import { html } from "htm/preact";
import { byProgress } from "./states.js";
import { number } from "./format.js";

/** A coloured square with the sign of a state; its words are said by what is around it. */
export function Sign({ looks, state, several }) {
  return html`<i class="sign s-${state} ${several ? "several" : ""}" aria-hidden="true">${looks.sign(state)}</i>`;
}

/** Sign and words. */
export function StateText({ looks, state }) {
  return html`<span class="state s-${state}"><${Sign}
    looks=${looks}
    state=${state}
  />
    <span class="words">${looks.words(state)}</span></span>`;
}

/** A bar whose parts are as long as there are instances in each state; words for them are beside it. */
export function Shares({ counts }) {
  return html`<span class="shares" aria-hidden="true">
    ${byProgress(counts).map(
      ([state, n]) => html`<span
      key=${state}
      class="share s-${state}"
      style=${{ flexGrow: n }}
    ></span>`,
    )}
  </span>`;
}

/** Counts by state, each with its sign; what doesn't fit is cut. */
export function Counts({ looks, counts }) {
  const all = looks.byPriority(counts);
  return html`<span class="counts">
    ${all.map(
      ([state, n]) =>
        html`<span
          key=${state}
          class="count s-${state}"
        >
          <b aria-hidden="true">${looks.sign(state)}</b>${number(n)}<span class=${all.length > 1 ? "hidden" : "quiet"}> ${looks.words(state)} </span>
        </span>`,
    )}
  </span>`;
}

/** Whether an address may become a link: of a page, nothing that runs. */
export function safe(address) {
  return typeof address === "string" && (/^https?:\/\//i.test(address) || address.startsWith("/"));
}
