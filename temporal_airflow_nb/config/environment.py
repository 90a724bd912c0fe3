"""Settings that are read from the environment, in one place."""

from __future__ import annotations

import os
from pathlib import Path

from temporal_airflow_nb.config import pyproject
from temporal_airflow_nb.errors import InvalidInputError

HOME_VARIABLE = "TEMPORAL_AIRFLOW_HOME"
DEFAULT_HOME = ".temporal_airflow"
DEFAULT_TASK_QUEUE = "airflow-tasks"
DEFAULT_SCHEDULE_ID_PREFIX = "airflow-schedule-"
AIRFLOW_MINOR = "3.3"
NOTEBOOK_BUNDLE = "notebook"
SEARCH_ATTRIBUTES = ("AirflowDagId", "AirflowRunId", "AirflowState")
ORCHESTRATOR = "temporal_airflow_nb.orchestrator.TemporalOrchestrator"
"""Airflow's ``[core] orchestrator`` that turns its runs over."""


def home_path(home: str | os.PathLike[str] | None = None) -> Path:
    """Return the stack's state folder, absolute: ``home``, ``$TEMPORAL_AIRFLOW_HOME``, the project's, or here."""
    chosen = home or os.environ.get(HOME_VARIABLE) or pyproject.home() or DEFAULT_HOME
    return Path(chosen).expanduser().absolute()


def task_queue() -> str:
    """Return the Temporal task queue of the workers, ``$TEMPORAL_TASK_QUEUE`` or ``airflow-tasks``."""
    return os.environ.get("TEMPORAL_TASK_QUEUE") or DEFAULT_TASK_QUEUE


def task_queue_of(main: str, queue: str | None) -> str:
    """Return the Temporal task queue of an Airflow queue; ``None`` is Airflow's default queue.

    >>> task_queue_of("airflow-tasks", "gpu"), task_queue_of("airflow-tasks", None)
    ('airflow-tasks:gpu', 'airflow-tasks')
    """
    return main if queue is None else f"{main}:{queue}"


def trigger_queue(main: str) -> str:
    """Return the task queue of triggers: they wait for long, and must not take the place of tasks."""
    return f"{main}-triggers"


def queues() -> list[str] | None:
    """
    Return the Airflow queues that this worker is told to serve, or None where it isn't told.

    From ``$TEMPORAL_AIRFLOW_QUEUES``, names with commas between them.
    """
    text = os.environ.get("TEMPORAL_AIRFLOW_QUEUES")
    if not text:
        return None
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise InvalidInputError(
            f"the list of queues {text!r} has an empty name in it",
            hint="Separate names by single commas: gpu,default",
            value=text,
        )
    return list(dict.fromkeys(names))


def workflow_id(dag_id: str, run_id: str) -> str:
    """Return the id of the workflow that executes a run.

    >>> workflow_id("etl", "manual__2026-01-01")
    'airflow-etl-manual__2026-01-01'
    """
    return f"airflow-{dag_id}-{run_id}"


def on_worker_lost() -> str:
    """
    Return what becomes of a try whose worker was lost: ``rerun`` or ``fail``.

    From ``$TEMPORAL_AIRFLOW_ON_WORKER_LOST``.
    """
    chosen = os.environ.get("TEMPORAL_AIRFLOW_ON_WORKER_LOST") or "rerun"
    if chosen not in ("rerun", "fail"):
        raise InvalidInputError(
            f"TEMPORAL_AIRFLOW_ON_WORKER_LOST is {chosen!r}",
            hint="It can be 'rerun' or 'fail'.",
            value=chosen,
        )
    return chosen


def history_limit() -> int:
    """
    Return how many events a workflow's history may have before its run is continued in a new one.

    From ``$TEMPORAL_AIRFLOW_HISTORY_EVENTS``; 20,000 where it isn't set. Temporal's server ends a workflow with
    51,200. An execution ends only between tasks, so that there has to be room for those that still run.
    """
    text = os.environ.get("TEMPORAL_AIRFLOW_HISTORY_EVENTS") or "20000"
    if not text.isdigit() or not 50 <= int(text) <= 50_000:
        raise InvalidInputError(
            f"TEMPORAL_AIRFLOW_HISTORY_EVENTS is {text!r}",
            hint="It can be a number from 50 to 50000.",
            value=text,
        )
    return int(text)


def native_scheduling() -> bool:
    """Return whether Temporal's Schedules are the clock of DAGs, from ``$TEMPORAL_NATIVE_SCHEDULING``."""
    text = os.environ.get("TEMPORAL_NATIVE_SCHEDULING") or "false"
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.strip().lower() not in known:
        raise InvalidInputError(
            f"TEMPORAL_NATIVE_SCHEDULING is {text!r}", hint="It can be 'true' or 'false'.", value=text
        )
    return known[text.strip().lower()]


def schedule_id_prefix() -> str:
    """
    Return what the id of each of our Temporal Schedules begins with; the rest is the DAG's id.

    From ``$TEMPORAL_SCHEDULE_ID_PREFIX``.
    """
    prefix = os.environ.get("TEMPORAL_SCHEDULE_ID_PREFIX") or DEFAULT_SCHEDULE_ID_PREFIX
    if not prefix.isprintable() or prefix != prefix.strip() or len(prefix) > 200:
        raise InvalidInputError(
            f"TEMPORAL_SCHEDULE_ID_PREFIX is {prefix!r}",
            hint="It can be up to 200 characters of one line, with no blank at its ends.",
            value=prefix,
        )
    return prefix
