"""A user's plugin whose listeners leave a line in the effects of the DAGs that are about them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin


def _leave(effects: str, text: str) -> None:
    with Path(effects).open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")


def _task(event: str, ti: Any, previous: Any, error: Any = None) -> None:
    if not ti.dag_id.startswith("listeners"):
        return
    run = ti.get_template_context()["dag_run"] if hasattr(ti, "get_template_context") else ti.dag_run
    kind = error if error is None or isinstance(error, str) else type(error).__name__
    key = ti.task_id if ti.map_index is None or ti.map_index < 0 else f"{ti.task_id}[{ti.map_index}]"
    _leave(run.conf["effects"], f"task {event} {key} try={ti.try_number} previous={previous} error={kind}")


@hookimpl
def on_task_instance_running(previous_state, task_instance):
    _task("running", task_instance, previous_state)


@hookimpl
def on_task_instance_success(previous_state, task_instance):
    _task("success", task_instance, previous_state)


@hookimpl
def on_task_instance_failed(previous_state, task_instance, error):
    _task("failed", task_instance, previous_state, error)


@hookimpl
def on_task_instance_skipped(previous_state, task_instance):
    _task("skipped", task_instance, previous_state)


def _run(event: str, run: Any, msg: str) -> None:
    if run.dag_id.startswith("listeners"):
        _leave(run.conf["effects"], f"run {event} {run.dag_id} {run.state} {msg}")


@hookimpl
def on_dag_run_running(dag_run, msg):
    _run("running", dag_run, msg)


@hookimpl
def on_dag_run_success(dag_run, msg):
    _run("success", dag_run, msg)


@hookimpl
def on_dag_run_failed(dag_run, msg):
    _run("failed", dag_run, msg)


@hookimpl
def on_asset_event_emitted(asset_event):
    if "listener effects" in (asset_event.extra or {}):
        _leave(asset_event.extra["listener effects"], f"asset event of {asset_event.asset.name}")


class ListeningPlugin(AirflowPlugin):
    """Registers this module."""

    name = "listening"
    listeners = [sys.modules[__name__]]  # noqa: RUF012
