/** Shows the `data-tip` of the element that is under the pointer or has the focus. */

import { useEffect, useRef } from "preact/hooks";
import { html } from "htm/preact";

const DELAY = 180;
const AWAY = 14;

export function Tip({ root }) {
  const box = useRef(null);
  useEffect(() => {
    const host = root.current;
    const tip = box.current;
    let timer;
    let over = null;
    function hide() {
      clearTimeout(timer);
      over = null;
      tip.hidden = true;
    }
    function show(target, x, y) {
      tip.textContent = target.dataset.tip;
      tip.hidden = false;
      const { left, top, right } = host.getBoundingClientRect();
      const { width, height } = tip.getBoundingClientRect();
      const low = y + AWAY + height > window.innerHeight;
      tip.style.left = `${Math.max(4, Math.min(x - left + AWAY, right - left - width - 4))}px`;
      tip.style.top = `${low ? y - top - AWAY - height : y - top + AWAY}px`;
    }
    function onMove(event) {
      const target = event.target.closest?.("[data-tip]");
      if (!target || !target.dataset.tip) return hide();
      if (target === over && !tip.hidden) return show(target, event.clientX, event.clientY);
      clearTimeout(timer);
      over = target;
      timer = setTimeout(
        () => target.isConnected && show(target, event.clientX, event.clientY),
        tip.hidden ? DELAY : 0,
      );
    }
    function onFocus(event) {
      if (!event.target.matches(".gantt .row") || !event.target.matches(":focus-visible")) return;
      const { left, bottom, width } = event.target.getBoundingClientRect();
      show(event.target, left + width * 0.35, bottom - AWAY + 2);
    }
    const listeners = [
      ["mousemove", onMove],
      ["mouseleave", hide],
      ["mousedown", hide],
      ["wheel", hide],
      ["keydown", hide],
      ["focusin", onFocus],
      ["focusout", hide],
    ];
    for (const [type, listener] of listeners) host.addEventListener(type, listener, { passive: true });
    return () => {
      clearTimeout(timer);
      for (const [type, listener] of listeners) host.removeEventListener(type, listener);
    };
  }, []);
  return html`<div class="tip" role="tooltip" ref=${box} hidden></div>`;
}
