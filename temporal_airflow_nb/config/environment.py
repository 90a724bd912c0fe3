"""Settings that every process reads from environment variables.

Nothing is cached: a process that changes ``os.environ`` changes its settings. Imports neither Airflow nor Temporal.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from temporal_airflow_nb.config import pyproject
from temporal_airflow_nb.errors import InvalidInputError

HOME_VARIABLE = "TEMPORAL_AIRFLOW_HOME"
JUPYTERHUB_VARIABLE = "JUPYTERHUB_SERVICE_PREFIX"
OWN_PAGES_VARIABLE = "TEMPORAL_AIRFLOW_OWN_PAGES_ONLY"
"""Set for the API server of a stack, which has no login: it refuses requests of other sites' pages."""
DEFAULT_HOME = ".temporal_airflow"
DEFAULT_TASK_QUEUE = "airflow-tasks"
DEFAULT_SCHEDULE_ID_PREFIX = "airflow-schedule-"
AIRFLOW_MINOR = "3.3"
NOTEBOOK_BUNDLE = "notebook"
SEARCH_ATTRIBUTES = ("AirflowDagId", "AirflowRunId", "AirflowState")
_HOST_PATTERN = re.compile(r"[\w.*?-]+(:\d+)?")
ORCHESTRATOR = "temporal_airflow_nb.orchestrator.TemporalOrchestrator"
"""Value of Airflow's ``[core] orchestrator`` that hands runs over to Temporal."""


def home_path(home: str | os.PathLike[str] | None = None) -> Path:
    """Return the absolute path of the stack's state folder.

    It is ``home``, else ``$TEMPORAL_AIRFLOW_HOME``, else the folder that ``pyproject.toml`` names, else
    ``.temporal_airflow`` in the working directory.
    """
    chosen = home or os.environ.get(HOME_VARIABLE) or pyproject.home() or DEFAULT_HOME
    return Path(chosen).expanduser().absolute()


def task_queue() -> str:
    """Return the Temporal task queue of the workers, ``$TEMPORAL_TASK_QUEUE`` or ``airflow-tasks``."""
    return os.environ.get("TEMPORAL_TASK_QUEUE") or DEFAULT_TASK_QUEUE


def task_queue_of(main: str, queue: str | None) -> str:
    """Return the Temporal task queue of an Airflow queue. ``None`` stands for Airflow's default queue.

    >>> task_queue_of("airflow-tasks", "gpu"), task_queue_of("airflow-tasks", None)
    ('airflow-tasks:gpu', 'airflow-tasks')
    """
    return main if queue is None else f"{main}:{queue}"


def trigger_queue(main: str) -> str:
    """Return the Temporal task queue of triggers, which wait long and must not take the slots of tasks."""
    return f"{main}-triggers"


def queues() -> list[str] | None:
    """
    Return the Airflow queues that this worker serves, from ``$TEMPORAL_AIRFLOW_QUEUES``; None if that isn't set.

    The variable contains names separated by commas.
    """
    text = os.environ.get("TEMPORAL_AIRFLOW_QUEUES")
    if not text:
        return None
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise InvalidInputError(
            f"TEMPORAL_AIRFLOW_QUEUES is {text!r}, which contains an empty name.",
            hint="Separate the names with single commas: gpu,default.",
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
    Return whether a try whose worker was lost is run again (``rerun``) or fails (``fail``).

    From ``$TEMPORAL_AIRFLOW_ON_WORKER_LOST``.
    """
    chosen = os.environ.get("TEMPORAL_AIRFLOW_ON_WORKER_LOST") or "rerun"
    if chosen not in ("rerun", "fail"):
        raise InvalidInputError(
            f"TEMPORAL_AIRFLOW_ON_WORKER_LOST is {chosen!r}.",
            hint="Set it to rerun or fail.",
            value=chosen,
        )
    return chosen


def history_limit() -> int:
    """
    Return the number of events after which a workflow continues with a new history.

    From ``$TEMPORAL_AIRFLOW_HISTORY_EVENTS``; 20,000 if that isn't set. Temporal's server ends a workflow with 51,200
    events. A workflow continues as new only between tasks, so the events up to that limit must suffice for tasks that
    are running.
    """
    text = os.environ.get("TEMPORAL_AIRFLOW_HISTORY_EVENTS") or "20000"
    if not text.isdigit() or not 50 <= int(text) <= 50_000:
        raise InvalidInputError(
            f"TEMPORAL_AIRFLOW_HISTORY_EVENTS is {text!r}.",
            hint="Set it to a number from 50 to 50000.",
            value=text,
        )
    return int(text)


def serves_own_pages_only() -> bool:
    """Return whether this process is the API server of a stack."""
    return bool(os.environ.get(OWN_PAGES_VARIABLE))


def is_on_jupyterhub() -> bool:
    """Return whether this process runs in a server of a JupyterHub."""
    return bool(os.environ.get(JUPYTERHUB_VARIABLE))


def allowed_hosts() -> list[str]:
    """
    Return further host names under which a browser may use a stack, from ``$TEMPORAL_AIRFLOW_ALLOWED_HOSTS``.

    The variable contains names or patterns separated by commas, such as ``*.app.github.dev``; without a port, any
    port is meant.
    """
    text = os.environ.get("TEMPORAL_AIRFLOW_ALLOWED_HOSTS") or ""
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    for name in names:
        if not _HOST_PATTERN.fullmatch(name):
            raise InvalidInputError(
                f"TEMPORAL_AIRFLOW_ALLOWED_HOSTS contains {name!r}, which is no host name.",
                hint="Write names without http:// and without a path: box.example.org, *.app.github.dev.",
                value=text,
            )
    return names


def native_scheduling() -> bool:
    """Return whether Temporal Schedules start the runs of DAGs, from ``$TEMPORAL_NATIVE_SCHEDULING``."""
    return _is_on("TEMPORAL_NATIVE_SCHEDULING")


def new_interpreters() -> bool:
    """Return whether each task gets a new interpreter, from ``$TEMPORAL_AIRFLOW_NEW_INTERPRETERS``."""
    return _is_on("TEMPORAL_AIRFLOW_NEW_INTERPRETERS")


def _is_on(name: str) -> bool:
    text = os.environ.get(name) or "false"
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.strip().lower() not in known:
        raise InvalidInputError(f"{name} is {text!r}.", hint="Set it to true or false.", value=text)
    return known[text.strip().lower()]


def schedule_id_prefix() -> str:
    """
    Return the prefix of the ids of Temporal Schedules that this package creates.

    From ``$TEMPORAL_SCHEDULE_ID_PREFIX``. The DAG's id follows the prefix.
    """
    prefix = os.environ.get("TEMPORAL_SCHEDULE_ID_PREFIX") or DEFAULT_SCHEDULE_ID_PREFIX
    if not prefix.isprintable() or prefix != prefix.strip() or len(prefix) > 200:
        raise InvalidInputError(
            f"TEMPORAL_SCHEDULE_ID_PREFIX is {prefix!r}.",
            hint="Use at most 200 printable characters, with no space at the beginning or the end.",
            value=prefix,
        )
    return prefix
