"""What travels between workflows and activities.

Only identifiers, states and times do: no conf, no XCom, no rendered field, no secret. A payload's size is bounded by
the number of task instances that a pass changes.

Annotations here are evaluated, and what there can be thousands of travels as plain lists: Temporal's converter looks up
the types of a dataclass anew for each instance.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

DEEP_WORKFLOW = "ExecuteAirflowDagDeepWorkflow"
DUE_WORKFLOW = "CreateDueDagRunsWorkflow"
RESYNC_SIGNAL = "resync"
WAKE_SIGNAL = "wake"

DATABASE_UNAVAILABLE = "DatabaseUnavailable"
RUN_GONE = "RunGone"
WORKER_LOST = "WorkerLost"
"""Types of the errors that the workflow tells apart."""

MAX_PAYLOAD = 1_500_000
"""Bytes. Temporal's server refuses payloads above 2 MiB, and leaves a run with one stuck."""

FINAL_RUN_STATES = ("success", "failed")
RUNNING = "running"
DELETED = "deleted"
"""Of a run that somebody has deleted in Airflow."""

Key = tuple[str, int]
"""A task instance within its run: ``(task_id, map_index)``."""


class PayloadTooLargeError(ValueError):
    """Something about to enter Temporal's history is larger than its server takes."""


@dataclass(frozen=True)
class RunRef:
    """A DAG run."""

    dag_id: str
    run_id: str


@dataclass
class Timer:
    """When a task instance has to be looked at again, in seconds since the epoch."""

    task_id: str
    map_index: int
    at: float
    why: str = ""


@dataclass
class DagRunInput:
    """Input of the deep workflow. The rest is what an execution hands to the one that continues it."""

    dag_id: str
    run_id: str
    states: list[Any] = field(default_factory=list)
    """``[task_id, map_index, state, try_number]`` of each task instance: from executions that hand on no ``grid``."""
    grid: str | None = None
    """The rows of :class:`~temporal_airflow_nb.orchestration.workflow.grid_memory.GridMemory`, packed."""
    timers: list[Timer] = field(default_factory=list)
    drain_at: int = 20_000
    """Events after which nothing new is started until the workflow can continue as new."""

    @property
    def ref(self) -> RunRef:
        """The run."""
        return RunRef(self.dag_id, self.run_id)


@dataclass
class DagRunResult:
    """What became of a DAG run: ``success``, ``failed``, ``deleted``, or ``queued`` to be executed anew."""

    state: str


@dataclass
class LoadedDag:
    """What the workflow has to know of a DAG."""

    task_count: int
    timeout_at: float | None = None
    """When ``dagrun_timeout`` is over, in seconds since the epoch."""
    on_worker_lost: str = "rerun"
    structure: str | None = None
    """Its groups, tasks and edges, packed; None where they are too many."""
    run: dict[str, Any] = field(default_factory=dict)
    """Facts of the run: its type, its times in seconds since the epoch, the version of its DAG."""
    former: str | None = None
    """
    Tries that are over, packed: ``[task_id, map_index, tries]``, each try ``[try_number, state, queued, start, end]``.
    """


@dataclass
class TaskTry:
    """A task instance that may run now."""

    task_id: str
    map_index: int
    try_number: int
    operator: str = ""
    queue: str | None = None
    """Airflow's name of the queue, unless it is the default one."""
    plain: bool = False
    """Whether it needs an interpreter of its own, as it runs as another user."""

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
    """What happened since the last scheduling pass."""

    dag_id: str
    run_id: str
    finished: list[Key] = field(default_factory=list)
    due: list[Key] = field(default_factory=list)
    in_flight: list[Key] = field(default_factory=list)
    cancelled: list[Key] = field(default_factory=list)
    """Those of ``finished`` that were cancelled, so that perhaps no worker has told how they ended."""
    look: list[str] = field(default_factory=list)
    """Tasks that may start now that an earlier run has come further."""
    resync: bool = False
    """Something outside the workflow changed: look at every task instance."""
    known: list[Any] = field(default_factory=list)
    """On a resync ``[task_id, map_index, state, try_number]`` of each task instance, as the workflow knows it."""


@dataclass
class PassResult:
    """What a scheduling pass decided."""

    run_state: str = RUNNING
    ready: list[TaskTry] = field(default_factory=list)
    timers: list[Timer] = field(default_factory=list)
    triggers: list[Any] = field(default_factory=list)
    """``[task_id, map_index, trigger_id]`` of deferred task instances."""
    every_trigger: bool = False
    """Whether these are all that the run waits for, not just those that may be new."""
    changed: list[Any] = field(default_factory=list)
    """
    ``[task_id, map_index, state, try_number, max_tries, queued, start, end, label]`` of each task instance that isn't
    as it was. What comes last may be missing.
    """
    stop: list[Key] = field(default_factory=list)
    """Task instances that run although the database says that they shouldn't."""
    idle: bool = False
    """Nothing is in progress: either the run has ended or it waits for another one."""


@dataclass
class TaskFailure:
    """A try whose activity ended without its outcome being recorded."""

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
    """Input of ``sync_dagrun_status``: finish a run, or fail it because of ``error``."""

    dag_id: str
    run_id: str
    error: str | None = None
    cancelled: bool = False
    known: list[Any] = field(default_factory=list)
    """``[task_id, map_index, state, try_number]`` of each task instance, as the workflow knows it."""


@dataclass
class RunFinished:
    """Result of ``sync_dagrun_status``. A run that is running after all goes on."""

    state: str
    callbacks: int = 0
    rows: str = ""
    """What isn't as the workflow knew it, packed: rows as in ``PassResult.changed``."""
    run: dict[str, Any] = field(default_factory=dict)
    """When the run began and ended, in seconds since the epoch."""


@dataclass
class DueRuns:
    """Result of ``create_due_runs``: how many there were, and in how many seconds the next is due, if that is known."""

    created: int
    next_in: float | None = None


def check_size(value: Any, what: str) -> Any:
    """
    Return ``value``, or refuse it if it's too large for Temporal's history.

    Raises
    ------
    PayloadTooLargeError
        Its JSON takes more than :data:`MAX_PAYLOAD` bytes.
    """
    size = len(json.dumps(asdict(value), separators=(",", ":")))
    if size > MAX_PAYLOAD:
        raise PayloadTooLargeError(f"{what} takes {size:,} bytes; Temporal takes {MAX_PAYLOAD:,}")
    return value
