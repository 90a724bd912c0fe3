"""Requests of operations, which the gateway's client sends and the gateway's routes validate.

Loaded in the user's process and in the worker process, which have the same version of this package. A check in
``__post_init__`` runs in both: before the request is sent, and again when the gateway has received it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from temporal_airflow_nb.errors import InvalidInputError

JsonObject = dict[str, Any]
"""Any JSON object, such as a run's ``conf``: its keys are the user's."""

WorkerLost = Literal["rerun", "fail"]
"""The treatment of a try whose worker was lost."""

GRID_RUNS = 14
"""The number of runs that a grid shows beside each other, unless a request names another number."""
MOST_GRID_RUNS = 1_000

MAX_REQUEST_BYTES = 64 * 2**20
"""Bytes of a request that the gateway reads. The largest part of one is a run's ``conf``."""
TOO_LARGE = f"The request has more than {MAX_REQUEST_BYTES // 2**20} MiB."
TOO_LARGE_HINT = "Pass large values by reference: write them to a file, and give the run its path."


@dataclass(frozen=True)
class CheckFile:
    """A DAG file to parse and check, without storing anything; ``path`` is absolute."""

    path: str


@dataclass(frozen=True)
class Backfill:
    """The first and the last date of a backfill, ISO 8601 with a time zone."""

    start: str
    end: str


@dataclass(frozen=True)
class SubmitFile:
    """A DAG file to store, and the run or the backfill to create of one of its DAGs.

    Attributes
    ----------
    path : str
        The file, an absolute path.
    dag_id : str or None
        The DAG to run; None if the file has one.
    launch : bool
        Whether to create a run; False stores the file only.
    conf, params : dict or None
        Values for the DAG's params. ``params`` takes precedence, and a name that the DAG doesn't have is an error.
    worker_lost : str or None
        What to do with a try whose worker was lost; None for the worker's setting.
    backfill : Backfill or None
        Creates a run for each date of the schedule, in place of one run.
    run_id, logical_date : str or None
        Of the one run; ``logical_date`` is ISO 8601 with a time zone.
    connections, variables : str or None
        Files to import before, absolute paths.
    """

    path: str
    dag_id: str | None = None
    launch: bool = True
    conf: JsonObject | None = None
    params: JsonObject | None = None
    worker_lost: WorkerLost | None = None
    backfill: Backfill | None = None
    run_id: str | None = None
    logical_date: str | None = None
    connections: str | None = None
    variables: str | None = None


@dataclass(frozen=True)
class RunRef:
    """A run."""

    dag_id: str
    run_id: str


@dataclass(frozen=True)
class WatchRun(RunRef):
    """A run to wait for: its next change after the snapshot of version ``after``, or its end."""

    after: str | None = None
    until_ended: bool = False
    timeout: float = 30.0


@dataclass(frozen=True)
class GetGridChanges(RunRef):
    """A grid to wait for: its changes after the cursor ``after``; everything if ``after`` is None."""

    runs: int = GRID_RUNS
    after: str | None = None
    timeout: float = 30.0

    def __post_init__(self) -> None:
        """Refuse a number of runs that no grid shows."""
        if not 1 <= self.runs <= MOST_GRID_RUNS:
            raise InvalidInputError(
                f"A grid can't show {self.runs} runs.", hint=f"Ask for 1 to {MOST_GRID_RUNS}.", runs=self.runs
            )


@dataclass(frozen=True)
class ListRuns:
    """The latest runs, of one DAG or of all."""

    dag_id: str | None = None
    limit: int = 100


@dataclass(frozen=True)
class GetRunsTable:
    """The latest runs as a table; all of them if ``limit`` is None."""

    dag_id: str | None = None
    state: str | None = None
    limit: int | None = 100


@dataclass(frozen=True)
class TryRef(RunRef):
    """A try of a task instance; its latest if ``try_number`` is None."""

    task_id: str
    map_index: int = -1
    try_number: int | None = None


@dataclass(frozen=True)
class TailLog(TryRef):
    """A try's log after its first ``after`` lines."""

    after: int = 0

    def __post_init__(self) -> None:
        """Refuse a negative number of lines."""
        if self.after < 0:
            raise InvalidInputError(f"A log has no line {self.after}.", hint="Count lines from 0.")


@dataclass(frozen=True)
class CancelRun:
    """A run to cancel; the DAG's latest if ``run_id`` is None."""

    dag_id: str
    run_id: str | None = None


@dataclass(frozen=True)
class ClearTasks:
    """Tasks to run again; the whole run if ``task_ids`` is None.

    Attributes
    ----------
    run_id : str or None
        The DAG's latest run if None.
    map_indexes : sequence of int or None
        Instances of a mapped task; all if None.
    upstream, downstream : bool
        Whether to clear the tasks before and after these as well.
    only_failed : bool
        Whether to clear failed task instances only.
    latest_version : bool or None
        Whether the run continues with the latest version of the DAG; if None, the DAG and Airflow's settings decide.
    """

    dag_id: str
    run_id: str | None = None
    task_ids: Sequence[str] | None = None
    map_indexes: Sequence[int] | None = None
    upstream: bool = False
    downstream: bool = False
    only_failed: bool = False
    latest_version: bool | None = None


@dataclass(frozen=True)
class MarkTasks:
    """A state to set for tasks, or for the run itself if ``task_ids`` is None.

    The other fields are as in :class:`ClearTasks`.
    """

    dag_id: str
    run_id: str | None
    state: str
    task_ids: Sequence[str] | None = None
    map_indexes: Sequence[int] | None = None
    upstream: bool = False
    downstream: bool = False


@dataclass(frozen=True)
class RespondToTask(RunRef):
    """A person's answer to a task: the chosen options, and values for the task's form."""

    task_id: str
    options: Sequence[str]
    map_index: int = -1
    params_input: JsonObject | None = None
