"""Serve a page with the widget and a model in place of the kernel's, to test the widget without a kernel."""

from __future__ import annotations

import http.server
import json
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

from temporal_airflow_nb.display import states
from tests.support.paths import PACKAGE

BUILT = PACKAGE / "live_grid" / "static" / "widget.js"
KEY = "the-key"
BEGIN = datetime(2026, 3, 1, 12, 0, 0, tzinfo=timezone.utc)

# Replaces anywidget's model: records sent messages, and answers by operation.
MODEL = """
class Model {
  constructor(traits) { this.traits = traits; this.listeners = {}; this.sent = []; this.answers = {}; }
  get(name) { return this.traits[name]; }
  set(name, value) { this.traits[name] = value; this.emit(`change:${name}`); }
  save_changes() {}
  on(name, listener) { (this.listeners[name] ??= new Set()).add(listener); }
  off(name, listener) { this.listeners[name]?.delete(listener); }
  emit(name, ...values) { for (const listener of [...(this.listeners[name] ?? [])]) listener(...values); }
  receive(message) { this.emit("msg:custom", message); }
  send(message) {
    this.sent.push(message);
    let answer = this.answers[message.op];
    if (answer === undefined) return;
    if (typeof answer === "string") answer = new Function("message", "model", answer)(message, this);
    setTimeout(() => this.receive({type: "answer", id: message.id, ok: true, ...answer}));
  }
}"""
PAGE = f"""<!doctype html><html><head><meta charset="utf-8"><title>stage</title><link rel="icon" href="data:,">
<style>
body {{ margin: 0; padding: 16px; font-family: sans-serif; background: var(--jp-layout-color1, #fff); }}
.jp-OutputArea-child {{ display: table; table-layout: fixed; width: 100%; }}
.jp-OutputPrompt {{ display: table-cell; width: 64px; }}
.jp-OutputArea-output {{ display: table-cell; }}
body[data-jp-theme-light="false"] {{
  --jp-layout-color1: #111111; --jp-border-color2: #424242; --jp-brand-color1: #42a5f5;
  --jp-content-font-color1: rgb(255 255 255 / 1); --jp-ui-font-color2: rgb(255 255 255 / .7);
}}
</style></head><body>
<div id="cell" class="jp-OutputArea-child"><div class="jp-OutputPrompt"></div>
<div class="jp-OutputArea-output"><div data-ta-live="{KEY}"><p>static HTML</p></div></div></div>
<script type="module">
import widget from "/widget.js";
{MODEL}
window.Model = Model;
window.widget = widget;
window.start = (traits, answers = {{}}) => {{
  window.model = new Model(traits);
  model.answers = {{view: {{data: {{}}}}, mounted: {{data: {{seq: 0}}}}, ...answers}};
  window.destroy = widget.initialize({{model}});
}};
window.ready = true;
</script></body></html>"""


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        found = {"/": ("text/html", PAGE.encode()), "/widget.js": ("text/javascript", BUILT.read_bytes())}
        kind, content = found.get(self.path, ("text/plain", b""))
        self.send_response(200 if content else 404)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextmanager
def served() -> Iterator[str]:
    """Serve the page on the loopback interface and yield its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def at(seconds: float | None) -> str | None:
    """Return a time in seconds since the run began as ISO 8601."""
    return None if seconds is None else (BEGIN + timedelta(seconds=seconds)).isoformat()


def task(
    task_id: str,
    state: str | None = None,
    times: Sequence[float | None] = (None, None, None),
    *,
    map_index: int = -1,
    try_number: int | None = None,
    max_tries: int = 0,
    operator: str = "PythonOperator",
    tries: Sequence[Sequence[Any]] = (),
    label: str = "",
) -> dict[str, Any]:
    """Return a task instance; ``times`` are queued, start and end in seconds since the run began."""
    queued, start, end = times
    return {
        "task_id": task_id,
        "map_index": map_index,
        "state": state,
        "try_number": try_number if try_number is not None else int(start is not None),
        "max_tries": max_tries,
        "operator": operator,
        "queued_dttm": at(queued),
        "start_date": at(start),
        "end_date": at(end),
        "duration": None if start is None or end is None else end - start,
        "pool": "default_pool",
        "label": label,
        "group": task_id.rpartition(".")[0],
        "tries": [[n, past, at(q), at(s), at(e)] for n, past, q, s, e in tries],
    }


def node(task_id: str, *, mapped: bool = False, operator: str = "PythonOperator") -> dict[str, Any]:
    parent, _, label = task_id.rpartition(".")
    return {
        "id": task_id,
        "label": label,
        "kind": "task",
        "parent": parent or None,
        "operator": operator,
        "mapped": mapped,
        "trigger_rule": "all_success",
        "retries": 0,
        "setup": False,
        "teardown": False,
        "doc": None,
    }


def group(group_id: str) -> dict[str, Any]:
    return {**node(group_id, operator=""), "kind": "group", "operator": None}


def run(run_id: str, state: str, start: float | None, end: float | None = None) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "state": state,
        "run_type": "manual",
        "start_date": at(start),
        "end_date": at(end),
        "queued_at": at(start),
        "logical_date": None,
        "run_after": at(start),
        "version": 1,
        "note": None,
    }


def full(
    nodes: Sequence[dict[str, Any]],
    edges: Sequence[Sequence[str]],
    tasks: Sequence[dict[str, Any]],
    *,
    state: str = "running",
    now: float = 10,
    end: float | None = None,
    others: Sequence[dict[str, Any]] = (),
    cells: dict[str, Any] | None = None,
    dag_id: str = "orders",
    **more: Any,
) -> dict[str, Any]:
    """Return the full state of the widget, with one run that began at second 0."""
    return {
        "seq": 1,
        "dag_id": dag_id,
        "run_id": "manual__2026-03-01T12:00:00+00:00",
        "workflow_id": "airflow-orders-manual__2026",
        "links": {
            "airflow": "http://127.0.0.1:8080/dags/orders/runs/manual__1",
            "temporal": "http://127.0.0.1:8233/namespaces/default/workflows/w",
        },
        "now": at(now),
        "structure": {"version": 1, "nodes": list(nodes), "edges": [list(edge) for edge in edges]},
        "runs": [run("manual__2026-03-01T12:00:00+00:00", state, 0, end), *others],
        "tasks": list(tasks),
        "cells": cells or {},
        "state_styles": {
            name: {"color": style.color, "sign": style.sign, "words": states.format_state(name)}
            for name, style in states.STATE_STYLES.items()
        },
        "state_order": list(states.PRIORITY),
        "connection": {"ok": True, "text": ""},
        "production": None,
        "can_act": True,
        "follows": True,
        **more,
    }


def many(count: int, *, group_size: int = 50, edges: bool = True) -> dict[str, Any]:
    """Return the state of a run with ``count`` tasks in groups."""
    nodes, links, tasks = [], [], []
    for i in range(count):
        name = f"part_{i // group_size:03d}"
        if i % group_size == 0:
            nodes.append(group(name))
        task_id = f"{name}.task_{i:05d}"
        nodes.append(node(task_id))
        tasks.append(task(task_id, "scheduled"))
        if edges and i % group_size:
            links.append([f"{name}.task_{i - 1:05d}", task_id])
    return full(nodes, links, tasks, dag_id="large")


def changes(state: dict[str, Any], per_delta: int, seed: int = 7) -> Callable[[int], dict[str, Any]]:
    """Return a function that makes the n-th delta, from 1, with ``per_delta`` changed tasks."""
    chance = random.Random(seed)
    ids = [each["task_id"] for each in state["tasks"]]

    def delta(n: int) -> dict[str, Any]:
        picked = chance.sample(ids, per_delta)
        rows = [
            task(task_id, "running", (1, 2, None)) if n % 2 else task(task_id, "success", (1, 2, 2 + n / 20))
            for task_id in picked
        ]
        return {"type": "delta", "seq": state["seq"] + n, "now": at(10 + n / 20), "runs": [], "tasks": rows}

    return delta


def open_page(page, address: str, state: dict[str, Any], *, view: str = "grid", answers=None) -> None:
    """Open the page and start the widget with a state."""
    page.goto(address)
    page.wait_for_function("window.ready")
    traits = {"key": KEY, "view": view, "state": state}
    # As text, because Playwright converts a large state value by value, which is slower.
    page.evaluate("text => start(...JSON.parse(text))", json.dumps([traits, answers or {}]))
