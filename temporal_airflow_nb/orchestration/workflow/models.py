"""The data that workflows and activities exchange, which Temporal stores in the histories of workflows.

It consists of identifiers, states and times: no conf, no XCom, no rendered field, no secret. A payload's size is
bounded by the number of task instances that a pass changes.

Names and types of fields must not change: histories that older versions wrote are replayed with these classes. A new
field needs a default. Temporal's converter looks up the types of a dataclass again for each instance: therefore the
annotations here are evaluated at import (no ``from __future__ import annotations``), and values of which there can be
thousands are plain lists.

Workflows, activities and the dispatcher import it; it imports nothing of Airflow or Temporal.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")

DEEP_WORKFLOW = "ExecuteAirflowDagDeepWorkflow"
DUE_WORKFLOW = "CreateDueDagRunsWorkflow"
RESYNC_SIGNAL = "resync"
WAKE_SIGNAL = "wake"

DATABASE_UNAVAILABLE = "DatabaseUnavailable"
RUN_GONE = "RunGone"
WORKER_LOST = "WorkerLost"
"""Types of the errors that the workflow distinguishes."""

MAX_PAYLOAD = 1_500_000
"""In bytes. Temporal's server refuses payloads above 2 MiB, and the workflow then makes no progress any more."""

FINAL_RUN_STATES = ("success", "failed")
RUNNING = "running"
DELETED = "deleted"
"""The state of a run that a user has deleted in Airflow."""

Key = tuple[str, int]
"""A task instance within its run: ``(task_id, map_index)``."""


class PayloadTooLargeError(ValueError):
    """A value for Temporal's history is larger than Temporal's server accepts."""


@dataclass(frozen=True)
class RunRef:
    """A DAG run."""

    dag_id: str
    run_id: str


@dataclass
class Timer:
    """A time, in seconds since the epoch, at which a task instance has to be evaluated again."""

    task_id: str
    map_index: int
    at: float
    why: str = ""


@dataclass
class DagRunInput:
    """Input of the deep workflow; a workflow that continues as new fills in its state as well."""

    dag_id: str
    run_id: str
    states: list[Any] = field(default_factory=list)
    """``[task_id, map_index, state, try_number]`` of each task instance, from executions that pass no ``grid``."""
    grid: str | None = None
    """The rows of :class:`~temporal_airflow_nb.orchestration.workflow.grid_memory.GridMemory`, packed."""
    timers: list[Timer] = field(default_factory=list)
    drain_at: int = 20_000
    """Number of events after which the workflow starts nothing new until it can continue as new."""

    @property
    def ref(self) -> RunRef:
        """The run."""
        return RunRef(self.dag_id, self.run_id)


@dataclass
class DagRunResult:
    """The final state of a DAG run: ``success``, ``failed``, ``deleted`` or ``queued``.

    A queued run was cleared, and is executed by a later workflow.
    """

    state: str


@dataclass
class LoadedDag:
    """The facts of a run and its DAG that the workflow needs."""

    task_count: int
    timeout_at: float | None = None
    """The end of ``dagrun_timeout``, in seconds since the epoch."""
    on_worker_lost: str = "rerun"
    structure: str | None = None
    """The groups, tasks and edges of the DAG, packed; None if there are too many."""
    run: dict[str, Any] = field(default_factory=dict)
    """The run's type, its times in seconds since the epoch, and the version of its DAG."""
    former: str | None = None
    """
    Ended tries, packed: ``[task_id, map_index, tries]``, each try ``[try_number, state, queued, start, end]``.
    """


@dataclass
class TaskTry:
    """A task instance that may run now."""

    task_id: str
    map_index: int
    try_number: int
    operator: str = ""
    queue: str | None = None
    """The name of the Airflow queue; None for the default one."""
    plain: bool = False
    """Whether it needs its own Python interpreter because it runs as another user."""

    @property
    def key(self) -> Key:
        """The task instance within its run."""
        return (self.task_id, self.map_index)


@dataclass
class RunTask:
    """Input of ``run_airflow_task``."""

    dag_id: str
    run_id: str
    task: TaskTry
    max_reruns: int


@dataclass
class RunTrigger:
    """Input of ``run_trigger``."""

    dag_id: str
    run_id: str
    trigger_id: int


@dataclass
class PassInput:
    """Input of ``schedule_pass``: the events since the previous pass."""

    dag_id: str
    run_id: str
    finished: list[Key] = field(default_factory=list)
    due: list[Key] = field(default_factory=list)
    in_flight: list[Key] = field(default_factory=list)
    cancelled: list[Key] = field(default_factory=list)
    """The tasks of ``finished`` that were cancelled, so that a worker may not have recorded how they ended."""
    look: list[str] = field(default_factory=list)
    """Tasks that may start because tasks of an earlier run have ended."""
    resync: bool = False
    """Whether something changed outside the workflow, so that every task instance is evaluated."""
    known: list[Any] = field(default_factory=list)
    """On a resync, ``[task_id, map_index, state, try_number]`` of each task instance that the workflow knows."""


@dataclass
class PassResult:
    """Result of ``schedule_pass``: the decisions."""

    run_state: str = RUNNING
    ready: list[TaskTry] = field(default_factory=list)
    timers: list[Timer] = field(default_factory=list)
    triggers: list[Any] = field(default_factory=list)
    """``[task_id, map_index, trigger_id]`` of deferred task instances."""
    every_trigger: bool = False
    """Whether ``triggers`` has all triggers that the run waits for, rather than possibly new ones."""
    changed: list[Any] = field(default_factory=list)
    """
    ``[task_id, map_index, state, try_number, max_tries, queued, start, end]`` of each changed task instance. Trailing
    elements may be missing; earlier versions added a label.
    """
    stop: list[Key] = field(default_factory=list)
    """Task instances whose activities have to be cancelled: in the database they no longer run."""
    idle: bool = False
    """Whether nothing is in progress: the run has ended, or waits for another run."""


@dataclass
class TaskFailure:
    """A try whose activity ended before its outcome was recorded."""

    task_id: str
    map_index: int
    try_number: int
    reason: str


@dataclass
class TaskFailures:
    """Input of ``sync_task_status_batch``."""

    dag_id: str
    run_id: str
    failures: list[TaskFailure]


@dataclass
class RunStatus:
    """Input of ``sync_dagrun_status``: finish a run, or fail it with ``error``."""

    dag_id: str
    run_id: str
    error: str | None = None
    cancelled: bool = False
    known: list[Any] = field(default_factory=list)
    """``[task_id, map_index, state, try_number]`` of each task instance that the workflow knows."""


@dataclass
class RunFinished:
    """Result of ``sync_dagrun_status``. If the run is still running, the workflow goes on."""

    state: str
    callbacks: int = 0
    rows: str = ""
    """The rows that differ from what the workflow knew, packed: rows as in ``PassResult.changed``."""
    run: dict[str, Any] = field(default_factory=dict)
    """The start and the end of the run, in seconds since the epoch."""


@dataclass
class DueRuns:
    """Result of ``create_due_runs``: the number of created runs, and when the next is due."""

    created: int
    next_in: float | None = None
    """The seconds until then; None if unknown."""


def check_size(value: T, name: str) -> T:
    """
    Return ``value``, a dataclass; raise an error if it is too large for Temporal's history.

    Raises
    ------
    PayloadTooLargeError
        Its JSON takes more than :data:`MAX_PAYLOAD` bytes.
    """
    size = len(json.dumps(asdict(value), separators=(",", ":")))  # type: ignore[call-overload]
    if size > MAX_PAYLOAD:
        raise PayloadTooLargeError(f"{name} takes {size:,} bytes; Temporal accepts {MAX_PAYLOAD:,}.")
    return value
