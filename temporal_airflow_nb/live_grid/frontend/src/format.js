/** Numbers for people. */

/** `1234` is `1,234`; the page's own way of it is slow where it is asked for hundreds of times in a frame. */
export function number(n) {
  return n < 1000 ? String(n) : String(n).replace(/\B(?=(\d{3})+$)/g, ",");
}
