"""Measures how smoothly the live widget runs: ``python -m benchmarks.widget_frames``.

Headless Chromium draws without a graphics card, with at most 60 frames a second, as on a screen. Work that takes longer
than the 16.7 ms of a frame is measured as a longer frame.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
from typing import Any

from playwright.sync_api import CDPSession, Page, sync_playwright

from tests.browser.widget_stage import KEY, changes, many, served

SECONDS = 10
DELTAS = 20
CHANGED = 50
REPEATS = 5
VIEWS = ("grid", "graph", "gantt")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]

FRAMES = """async ([deltas, perSecond]) => {
  const frames = [];
  let running = true;
  let last = performance.now();
  requestAnimationFrame(function frame(now) {
    frames.push(now - last);
    last = now;
    if (running) requestAnimationFrame(frame);
  });
  for (const delta of deltas) {
    const begun = performance.now();
    model.receive(delta);
    await new Promise(done => setTimeout(done, 1000 / perSecond - (performance.now() - begun)));
  }
  running = false;
  return frames.slice(2);
}"""
PAINTED = "const painted = () => new Promise(done => requestAnimationFrame(() => setTimeout(done)));"
FIRST = f"""async traits => {{
  {PAINTED}
  const begun = performance.now();
  start(traits);
  await painted();
  const shown = document.querySelector("ta-live").shadowRoot.querySelectorAll(".row").length;
  if (!shown) throw new Error("nothing is shown");
  return performance.now() - begun;
}}"""
STEP = f"""async ([action]) => {{
  {PAINTED}
  const root = document.querySelector("ta-live").shadowRoot;
  const begun = performance.now();
  if (action === "scroll") root.querySelector(".scroller").scrollTop = Math.random() * 26 * 9000;
  else if (action === "all") root.querySelector(".thead .small").click();
  else root.querySelector('.row.group').click();
  await painted();
  await painted();
  return performance.now() - begun;
}}"""


def main() -> None:
    """Measure, and print a table."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        sys.exit("There is no chromium on the PATH.")
    with served() as address, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        print(f"1,000 tasks, {DELTAS} deltas a second of {CHANGED} tasks each, {SECONDS} s")
        for view in VIEWS:
            frames, work = _frames(page, address, view)
            longest = sorted(frames)
            print(
                f"  {view:6} {1000 * len(frames) / sum(frames):5.1f} frames a second,"
                f" 99 % within {longest[int(len(frames) * 0.99)]:.0f} ms, longest {longest[-1]:.0f} ms,"
                f" {work:.1f} ms of the page's processor time for each delta"
            )
        print(f"10,000 tasks, median of {REPEATS} (with two frames' wait of up to 33 ms)")
        for name, times in _large(page, address).items():
            print(f"  {name:22} {statistics.median(times):5.0f} ms   worst {max(times):5.0f} ms")
        browser.close()


def _open(page: Page, address: str) -> None:
    page.goto(address)
    page.wait_for_function("window.ready")


def _frames(page: Page, address: str, view: str) -> tuple[list[float], float]:
    state = many(1000)
    _open(page, address)
    page.evaluate("traits => start(traits)", {"key": KEY, "view": "grid", "state": state})
    if view != "graph":
        page.get_by_role("button", name="Expand all").click()
    page.get_by_role("tab", name=view.capitalize()).click()
    page.locator("ta-live .row, ta-live .node").first.wait_for()
    delta = changes(state, CHANGED)
    deltas = [delta(n) for n in range(1, SECONDS * DELTAS + 1)]
    page.evaluate(f"window.deltas = {json.dumps(deltas)}")
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    before = _work(session)
    frames = page.evaluate(f"() => ({FRAMES})([window.deltas, {DELTAS}])")
    work = _work(session) - before
    session.detach()
    return frames, 1000 * work / len(deltas)


def _work(session: CDPSession) -> float:
    """Return the seconds of processor time that the page's main thread has used."""
    metrics = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    return metrics["TaskDuration"]


def _large(page: Page, address: str) -> dict[str, list[float]]:
    state = many(10_000)
    traits: dict[str, Any] = {"key": KEY, "view": "grid", "state": state}
    times: dict[str, list[float]] = {
        "first paint": [],
        "unfold all": [],
        "scroll": [],
        "fold one": [],
        "a delta of 100 tasks": [],
    }
    delta = changes(state, 100)
    for _ in range(REPEATS):
        _open(page, address)
        page.evaluate(f"window.traits = {json.dumps(traits)}")
        times["first paint"].append(page.evaluate(f"() => ({FIRST})(window.traits)"))
        times["unfold all"].append(page.evaluate(STEP, ["all"]))
        times["fold one"].append(page.evaluate(STEP, ["one"]))
        times["scroll"].append(page.evaluate(STEP, ["scroll"]))
        times["a delta of 100 tasks"].append(
            page.evaluate(
                f"async delta => {{ {PAINTED} const begun = performance.now(); model.receive(delta); await painted();"
                " return performance.now() - begun; }",
                delta(1),
            )
        )
    return times


if __name__ == "__main__":
    main()
