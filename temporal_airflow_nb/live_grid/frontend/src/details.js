/** The details of a try: its XComs, its rendered fields, all tries of the task, and its error. */

import { html } from "htm/preact";
import { plain } from "./log.js";
import { StateText } from "./badges.js";
import { duration, exact, moment } from "./times.js";

export function Details({ data, styles }) {
  const rendered = Object.entries(data.rendered ?? {}).filter(([, value]) => value !== null && value !== "");
  const tries = data.tries ?? [];
  return html`<div class="details">
    ${data.next_retry_at && html`<p class="notice">Next try at ${exact(moment(data.next_retry_at))} UTC.</p>`}
    <${Values}
      title="XCom"
      values=${(data.xcoms ?? []).map(({ key, value }) => [key, value])}
      none="No values were returned or pushed."
    />
    <${Values} title="Rendered fields" values=${rendered} none="None." />
    <h4>Tries</h4>
    ${tries.length ? html`<${Tries} tries=${tries} styles=${styles} />` : html`<p class="quiet">None yet.</p>`}
  </div>`;
}

function Tries({ tries, styles }) {
  return html`<table>
    <thead>
      <tr>
        <th scope="col">#</th>
        <th scope="col">State</th>
        <th scope="col">Started (UTC)</th>
        <th scope="col" class="number">Took</th>
        <th scope="col">Host</th>
      </tr>
    </thead>
    <tbody>
      ${tries.map(
        (one) =>
          html`<tr key=${one.try_number}>
            <td>${one.try_number}</td>
            <td><${StateText} styles=${styles} state=${one.state || "no_status"} /></td>
            <td class="mono">${exact(moment(one.start_date)).slice(5, 19)}</td>
            <td class="number">${duration(one.duration ?? null)}</td>
            <td class="mono">${one.hostname}</td>
          </tr>`,
      )}
    </tbody>
  </table>`;
}

function Values({ title, values, none }) {
  return html`<h4>${title}</h4>
    ${values.length ? html`<dl>${values.map(pair)}</dl>` : html`<p class="quiet">${none}</p>`}`;
}

function pair([key, value]) {
  return html`<dt key=${`k${key}`}>${key}</dt>
    <dd key=${`v${key}`}><pre>${text(value)}</pre></dd>`;
}

function text(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}

export function Failure({ error }) {
  return html`<div class="failure">
    <p class="what"><b>${error.type}</b>${error.value ? `: ${plain(error.value)}` : ""}</p>
    <ol class="frames">
      ${(error.frames ?? []).map(
        (frame, i) => html`<li key=${i} class=${frame.user || frame.cell ? "user" : ""}>
          <span class="where">
            ${frame.cell ?? `${short(frame.filename)}, line ${frame.lineno}`} ${" "}<span class="quiet">in ${frame.name}</span>
          </span>
          ${
            frame.context?.length
              ? html`<pre class="code">${frame.context.map(
                  ([number, line]) => html`<span
                key=${number}
                class=${number === frame.lineno ? "here" : ""}
              >
                ${line || " "}</span>`,
                )}
              </pre>`
              : frame.line && html`<code>${frame.line.trim()}</code>`
          }
        </li>`,
      )}
    </ol>
    ${error.text && html`<details><summary>Full traceback</summary><pre>${plain(error.text)}</pre></details>`}
  </div>`;
}

function short(path) {
  return String(path ?? "")
    .split("/")
    .slice(-2)
    .join("/");
}
