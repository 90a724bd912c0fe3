/** Panning and zooming in a picture that is larger than its frame. */

import { useEffect, useRef, useState } from "preact/hooks";

const ZOOM = [0.1, 2];
/** Text can't be read below the first scale. A picture that would need it is shown at the second one and panned. */
const LEGIBLE = 0.5;
const READABLE = 0.7;
const MARGIN = 20;
const DRAG = 3;

const within = (value, [least, most]) => Math.max(least, Math.min(most, value));

/** Return the initial scale of a picture as far as its width decides. */
export function getScale(size, room) {
  const whole = Math.min(1, (room - 2 * MARGIN) / size);
  return whole < LEGIBLE ? READABLE : whole;
}

/**
 * @param {{width: number, height: number} | null} picture
 * @param {{width: number, height: number}} frame
 * @param {string} subject identifies the picture; another one is fitted into the frame again
 * @param {{x: number, y: number, w: number, h: number} | undefined} start the part that is visible at first
 */
export function usePanZoom(picture, frame, subject, start) {
  const box = useRef(null);
  const [view, setView] = useState({ x: 0, y: 0, k: 1 });
  const moved = useRef(null);
  const drag = useRef(null);

  function fit(least = ZOOM[0]) {
    if (!picture) return;
    const whole = Math.min((frame.width - 2 * MARGIN) / picture.width, (frame.height - 2 * MARGIN) / picture.height, 1);
    const k = within(whole < least ? READABLE : whole, ZOOM);
    // If the picture doesn't fit, its start is visible.
    const center = (room, size, first, length) => {
      if (size * k <= room - 2 * MARGIN) return (room - size * k) / 2;
      return within(room / 2 - (first + length / 2) * k, [room - MARGIN - size * k, MARGIN]);
    };
    setView({
      k,
      x: center(frame.width, picture.width, start.x, start.w),
      y: center(frame.height, picture.height, start.y, start.h),
    });
  }

  function zoom(factor, x = frame.width / 2, y = frame.height / 2) {
    moved.current = subject;
    setView((now) => {
      const k = within(now.k * factor, ZOOM);
      return { k, x: x - ((x - now.x) * k) / now.k, y: y - ((y - now.y) * k) / now.k };
    });
  }

  function pan(dx, dy) {
    moved.current = subject;
    setView((now) => ({ ...now, x: now.x + dx, y: now.y + dy }));
  }

  /** Bring a part of the picture into the frame. */
  function reveal({ x, y, w, h }) {
    setView((now) => {
      const inside = (at, size, room, offset) => {
        const from = at * now.k + offset;
        if (from < MARGIN) return offset + MARGIN - from;
        return from + size * now.k > room - MARGIN ? offset - (from + size * now.k - room + MARGIN) : offset;
      };
      return { ...now, x: inside(x, w, frame.width, now.x), y: inside(y, h, frame.height, now.y) };
    });
  }

  useEffect(() => {
    if (moved.current !== subject) fit(LEGIBLE);
  }, [picture, subject, frame.width, frame.height]);

  useEffect(() => {
    const element = box.current;
    // Without the focus or a key, the wheel scrolls the page.
    function onWheel(event) {
      const inUse = element.getRootNode().activeElement && element.contains(element.getRootNode().activeElement);
      if (!event.ctrlKey && !event.metaKey && !inUse) return;
      event.preventDefault();
      const { left, top } = element.getBoundingClientRect();
      zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), event.clientX - left, event.clientY - top);
    }
    element.addEventListener("wheel", onWheel, { passive: false });
    return () => element.removeEventListener("wheel", onWheel);
  });

  const handlers = {
    onPointerDown(event) {
      if (event.button !== 0 || event.target.closest("button, a")) return;
      drag.current = { x: event.clientX, y: event.clientY, moves: false };
    },
    onPointerMove(event) {
      const from = drag.current;
      if (!from) return;
      const [dx, dy] = [event.clientX - from.x, event.clientY - from.y];
      if (!from.moves && Math.hypot(dx, dy) < DRAG) return;
      if (!from.moves) box.current.setPointerCapture(event.pointerId);
      drag.current = { x: event.clientX, y: event.clientY, moves: true };
      pan(dx, dy);
    },
    onPointerUp() {
      const was = drag.current;
      drag.current = null;
      if (!was?.moves) return;
      // Ignore the click that some browsers send at the end of a drag.
      const stop = (event) => event.stopPropagation();
      const element = box.current;
      element.addEventListener("click", stop, { capture: true });
      setTimeout(() => element.removeEventListener("click", stop, { capture: true }));
    },
    onPointerCancel() {
      drag.current = null;
    },
  };
  return { box, view, fit, zoom, pan, reveal, handlers };
}
