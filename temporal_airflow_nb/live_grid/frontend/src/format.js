/** Formats numbers. */

/** Format 1234 as `1,234`. `toLocaleString` is too slow for hundreds of calls in a frame. */
export function number(n) {
  return n < 1000 ? String(n) : String(n).replace(/\B(?=(\d{3})+$)/g, ",");
}
