/** Parses times, and formats times, durations and axes. */

/**
 * @param {string | null | undefined} text ISO 8601, in UTC if it has no offset
 * @returns {number | null} milliseconds since 1970
 */
export function moment(text) {
  if (!text) return null;
  const known = /(Z|[+-]\d\d:?\d\d)$/.test(text) ? text : `${text}Z`;
  const time = Date.parse(known);
  return Number.isNaN(time) ? null : time;
}

/**
 * Format a duration with at most three significant figures: `0.04 s`, `1.50 s`, `1 min 15 s`, `1 h 06 min`.
 *
 * @param {number | null} seconds
 */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 9.995) return `${seconds.toFixed(2)} s`;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  return long(Math.round(seconds));
}

/** Format a duration that still grows, with digits that don't change too fast to read. */
export function elapsed(seconds) {
  if (seconds === null) return "";
  return seconds < 60 ? `${seconds.toFixed(1)} s` : long(Math.floor(seconds));
}

function long(seconds) {
  const two = (n) => String(n).padStart(2, "0");
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${two(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h ${two(minutes % 60)} min`;
  return `${Math.floor(hours / 24)} d ${two(hours % 24)} h`;
}

/** Format a time in UTC as `2026-11-25 01:02:03.456`. */
export function exact(time) {
  return time === null ? "" : new Date(time).toISOString().replace("T", " ").replace("Z", "");
}

const STEPS = [
  0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200,
  86400, 172800, 604800,
];

/** Return the smallest round number of seconds that divides `seconds` into at most `most` parts. */
export function step(seconds, most) {
  return STEPS.find((candidate) => seconds / candidate <= most) ?? 604800 * Math.ceil(seconds / most / 604800);
}

/**
 * Return the marks of an axis that begins at zero.
 *
 * @param {number} seconds the length of the axis
 * @param {number} most
 * @returns {{at: number, text: string}[]} `at` in per cent
 */
export function ticks(seconds, most) {
  if (!(seconds > 0)) return [];
  const every = step(seconds, most);
  const marks = [];
  for (let i = 0; i * every <= seconds; i++) marks.push({ at: (100 * i * every) / seconds, text: offset(i * every) });
  return marks;
}

function offset(seconds) {
  if (seconds < 60) return `${Number(seconds.toFixed(2))} s`;
  if (seconds < 3600)
    return seconds % 60
      ? `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`
      : `${seconds / 60} min`;
  if (seconds < 86400)
    return seconds % 3600
      ? `${Math.floor(seconds / 3600)}:${String((seconds % 3600) / 60).padStart(2, "0")} h`
      : `${seconds / 3600} h`;
  return `${Number((seconds / 86400).toFixed(1))} d`;
}

/**
 * Return the marks of an axis of times of day.
 *
 * @param {number} begin milliseconds since 1970
 * @param {number} end
 * @param {number} most
 * @returns {{at: number, text: string}[]} `at` in per cent, `text` in UTC
 */
export function clockTicks(begin, end, most) {
  const every = step((end - begin) / 1000, most) * 1000;
  const marks = [];
  for (let time = Math.ceil(begin / every) * every; time <= end; time += every) {
    const iso = new Date(time).toISOString();
    const text =
      every < 1000
        ? iso.slice(14, 22)
        : every < 60000
          ? iso.slice(11, 19)
          : every < 86400000 && time % 86400000
            ? iso.slice(11, 16)
            : iso.slice(5, 10);
    marks.push({ at: (100 * (time - begin)) / (end - begin), text });
  }
  return marks;
}
