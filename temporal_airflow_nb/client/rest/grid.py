"""The grid of a DAG's runs, read through Airflow's REST API.

Runs in the user's process. The client of the REST API has a grid for each run that is followed; callers in several
threads share it. A thread holds the grid's lock while it waits for Airflow, so that the other callers wait too and then
use the same answers.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from datetime import datetime, timedelta, timezone
from threading import Lock
from typing import Final, cast

from temporal_airflow_nb.client.grid_tracker import GridTracker
from temporal_airflow_nb.client.rest.http import ApiObject, RestApi, path_of
from temporal_airflow_nb.client.rest.structure import structure_of, topological
from temporal_airflow_nb.client.rows import own_times
from temporal_airflow_nb.display.states import FINAL_RUN_STATES, NO_STATUS
from temporal_airflow_nb.errors import ServiceUnavailableError, TemporalAirflowError
from temporal_airflow_nb.messages.grid import Counts, FormerTry, GridChanges, GridRun, GridTask, TaskKey
from temporal_airflow_nb.messages.runs import TaskRow

# The server's clock is known to the second, and a row becomes visible later than its `updated_at`, by the time that
# the rest of its transaction takes.
_OVERLAP: Final = timedelta(seconds=6)
# A reading that is younger than this also serves the other callers.
_READ_SECONDS: Final = 0.5
# A reading by `updated_at` doesn't show that task instances were removed. So all are read again at this interval, or
# more rarely if that takes long.
_SCAN_SECONDS: Final = 15.0
_SCANS_PER_COST: Final = 20
# The states of the other unfinished runs are counted at this interval.
_COUNT_SECONDS: Final = 5.0

# The other fields of a task instance aren't needed; its rendered fields may be large.
_KEPT: Final = (
    "dag_id",
    "dag_run_id",
    "task_id",
    "map_index",
    "state",
    "try_number",
    "max_tries",
    "operator",
    "operator_name",
    "queued_when",
    "start_date",
    "end_date",
    "duration",
    "pool",
    "rendered_map_index",
    "hostname",
    "queue",
)


def moment(text: str | None) -> str | None:
    """Return a time of the API as the gateway writes it.

    >>> moment("2026-01-01T00:00:00Z")
    '2026-01-01T00:00:00+00:00'
    """
    if text is None:
        return None
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(timezone.utc).isoformat()


def task_row(ti: ApiObject, group: str | None = None) -> TaskRow:
    """Return a task instance as the gateway describes it."""
    label = ti.get("rendered_map_index")
    return {
        "task_id": ti["task_id"],
        "map_index": ti["map_index"],
        "state": ti["state"],
        "try_number": ti["try_number"],
        "max_tries": ti["max_tries"],
        "operator": ti.get("operator_name") or ti["operator"],
        "start_date": moment(ti["start_date"]),
        "end_date": moment(ti["end_date"]),
        "duration": ti["duration"],
        "queued_dttm": moment(ti["queued_when"]),
        "pool": ti["pool"],
        # Without a template for the label, the API returns the map index.
        "label": None if label == str(ti["map_index"]) else label,
        "group": group,
    }


def run_row(run: ApiObject) -> GridRun:
    """Return a run as the gateway describes it."""
    versions = [version["version_number"] for version in run.get("dag_versions") or ()]
    return {
        "run_id": run["dag_run_id"],
        "state": run["state"],
        "run_type": run["run_type"],
        "start_date": moment(run["start_date"]),
        "end_date": moment(run["end_date"]),
        "queued_at": moment(run["queued_at"]),
        "logical_date": moment(run["logical_date"]),
        "run_after": moment(run["run_after"]),
        "version": max(versions, default=None),
        "note": run.get("note"),
    }


class RestGrid:
    """A DAG's latest runs, and the task instances of one of them.

    Safe to use from several threads: ``_lock`` protects the tracker and all other fields that change.
    """

    def __init__(self, address: str, dag_id: str, run_id: str, window: int) -> None:
        self.dag_id = dag_id
        self.run_id = run_id
        self._address = address
        self._window = window
        self._lock = Lock()
        self._tracker = GridTracker(dag_id, run_id)
        # Monotonic times of the latest reading and of the latest scan.
        self._read_at = self._scanned = self._scan_cost = 0.0
        self._since: datetime | None = None
        self._groups: set[str] = set()
        self._retries: dict[str, int] = {}
        self._instances: dict[TaskKey, ApiObject] = {}
        self._counted: dict[str, tuple[GridRun, float]] = {}

    @property
    def run(self) -> GridRun:
        """The run in focus."""
        return self._tracker.run

    @property
    def links(self) -> dict[str, str]:
        """The address of the run in Airflow's UI."""
        path = path_of("dags", self.dag_id, "runs", self.run_id)
        return {"airflow": f"{self._address}/{path}"}

    def refresh(self, api: RestApi) -> None:
        """Read what has changed, unless that was done just now."""
        with self._lock:
            # After the wait for the lock, which may take seconds.
            now = time.monotonic()
            # Another caller has read it just now, while this one waited for the lock.
            if self._read_at and now - self._read_at < _READ_SECONDS:
                return
            self._tracker.reading += 1
            # The runs before the tasks: a run must not appear as ended while its tasks appear as running.
            ended = self._read_runs(api)
            # The time before the tasks are read: the next reading has to find changes that happen meanwhile.
            since = api.server_time - _OVERLAP
            structure = self._tracker.structure
            if structure is None or structure["version"] != self.run["version"]:
                self._read_structure(api)
            scan = ended or now - self._scanned > max(_SCAN_SECONDS, _SCANS_PER_COST * self._scan_cost)
            self._read_tasks(api, None if scan else self._since)
            self._read_cells(api, now)
            # Not reached after an error, so that the next caller reads all of this again.
            self._read_at, self._since = now, since
            if scan:
                self._scanned, self._scan_cost = now, time.monotonic() - now

    def expire(self) -> None:
        """Have the next refresh read in any case: this client has changed a run."""
        # If a thread is reading, this waits for its end. That reading may have begun before the change, and sets
        # `_read_at` when it ends.
        with self._lock:
            self._read_at = 0.0

    def answer(self, after: str | None) -> tuple[GridChanges, bool]:
        """Return what has changed after the cursor ``after``, and whether anything has."""
        with self._lock:
            return self._tracker.answer(after, self.links)

    def tasks(self) -> list[TaskRow]:
        """Return the task instances of the run in focus, in an order in which they can run."""
        with self._lock:
            tasks = [task_row(ti, self._tracker.group_of(ti["task_id"])) for ti in self._instances.values()]
            structure = self._tracker.structure
            order = (
                topological([node["id"] for node in structure["nodes"]], structure["edges"])
                if structure is not None
                else []
            )
        places = {task_id: place for place, task_id in enumerate(order)}
        return sorted(tasks, key=lambda task: (places.get(task["task_id"], len(places)), task["map_index"]))

    def task_instances(self) -> list[tuple[ApiObject, bool]]:
        """Return the API's task instances in the grid's order, each with whether it was tried before."""
        with self._lock:
            order = self._tracker.in_order(map(task_row, self._instances.values()))
            found = [self._instances[task["task_id"], task["map_index"]] for task in order]
            return [(ti, self._was_tried_before(ti)) for ti in found]

    def _was_tried_before(self, ti: ApiObject) -> bool:
        return was_tried_before(ti, self._retries.get(ti["task_id"], 0))

    def _read_runs(self, api: RestApi) -> bool:
        """Read the latest runs; return whether the run in focus is new or has another state."""
        tracker = self._tracker
        runs = path_of("dags", self.dag_id, "dagRuns")
        found = api.get(runs, limit=self._window, order_by="-run_after")["dag_runs"]
        rows = [run_row(run) for run in found]
        if all(row["run_id"] != self.run_id for row in rows):
            rows.append(run_row(api.get(f"{runs}/{path_of(self.run_id)}")))
        known = tracker.runs.values.get(self.run_id)
        for row in rows:
            tracker.runs.put(row["run_id"], row, tracker.reading)
        tracker.order = [row["run_id"] for row in rows]
        tracker.runs.keep(tracker.order, tracker.reading)
        return known is None or known["state"] != self.run["state"]

    def _read_structure(self, api: RestApi) -> None:
        tasks = api.get(path_of("dags", self.dag_id, "tasks"))["tasks"]
        try:
            grid = api.get(path_of("grid", "structure", self.dag_id), root="ui")
        except ServiceUnavailableError:
            raise
        except TemporalAirflowError:
            # This API is private to Airflow's own grid: another version of Airflow may not have it. Without it, the
            # structure has no groups.
            grid = None
        edges = structure_of(tasks, grid)
        self._tracker.set_structure({"version": self.run["version"], **edges})
        self._groups = {node["id"] for node in edges["nodes"] if node["kind"] == "group"}
        self._retries = {node["id"]: node["retries"] for node in edges["nodes"]}

    def _read_tasks(self, api: RestApi, since: datetime | None) -> None:
        tracker = self._tracker
        path = path_of("dags", self.dag_id, "dagRuns", self.run_id, "taskInstances")
        recent = None if since is None else since.isoformat()
        seen = []
        for found in api.pages(path, "task_instances", updated_at_gte=recent, order_by="id"):
            ti = {name: found[name] for name in _KEPT}
            key = (ti["task_id"], ti["map_index"])
            seen.append(key)
            if self._instances.get(key) == ti:
                continue
            tracker.tasks.put(key, self._task(api, ti), tracker.reading)
            self._instances[key] = ti
        if since is None:
            tracker.tasks.keep(seen, tracker.reading)
            self._instances = {key: self._instances[key] for key in seen}

    def _task(self, api: RestApi, ti: ApiObject) -> GridTask:
        task = task_row(ti, self._tracker.group_of(ti["task_id"]))
        tries = former_tries(api, ti) if self._was_tried_before(ti) else []
        if tries and ti["state"] != "up_for_retry":
            _, _, queued, start, _ = tries[-1]
            return {**task, **own_times(task, queued, start), "tries": tries}
        return {**task, "tries": tries}

    def _read_cells(self, api: RestApi, now: float) -> None:
        """Count the states of the other runs: once for an ended run, at intervals for an unfinished one."""
        tracker = self._tracker
        wanted = []
        for run_id in tracker.order:
            row = tracker.runs.values[run_id]
            counted, at = self._counted.get(run_id, (None, 0.0))
            is_due = row["state"] not in FINAL_RUN_STATES and now - at >= _COUNT_SECONDS
            if run_id != self.run_id and (is_due or counted != row):
                wanted.append(run_id)
        counts = self._counts(api, wanted)
        self._counted |= {run_id: (tracker.runs.values[run_id], now) for run_id in wanted}
        for key, states in counts.items():
            tracker.cells.put(key, states, tracker.reading)
        untouched = [key for key in tracker.cells.values if key[0] in tracker.order and key[0] not in wanted]
        tracker.cells.keep([*counts, *untouched], tracker.reading)

    def _counts(self, api: RestApi, run_ids: list[str]) -> dict[tuple[str, str], Counts]:
        """Return the number of task instances in each state, by run and task."""
        counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        if not run_ids:
            return {}
        try:
            runs = api.get(path_of("grid", "ti_summaries", self.dag_id), root="ui", run_ids=run_ids)
        except ServiceUnavailableError:
            raise
        except TemporalAirflowError:
            # This API is private to Airflow's own grid, too. Without it, each run costs requests of its own.
            for run_id in run_ids:
                path = path_of("dags", self.dag_id, "dagRuns", run_id, "taskInstances")
                for ti in api.pages(path, "task_instances", order_by="id"):
                    counts[run_id, ti["task_id"]][ti["state"] or NO_STATUS] += 1
        else:
            for run in runs:
                for task in run["task_instances"]:
                    if task["task_id"] not in self._groups:
                        states = task["child_states"] or {task["state"] or "none": 1}
                        counts[run["run_id"], task["task_id"]].update(
                            {NO_STATUS if state == "none" else state: n for state, n in states.items()}
                        )
        return {key: dict(states) for key, states in counts.items()}


def was_tried_before(ti: ApiObject, retries: int) -> bool:
    """Return whether a task instance may have been tried before."""
    # Airflow raises `max_tries` above the task's retries when a user clears a task instance.
    tries = int(ti["try_number"])
    return tries > 1 or (tries > 0 and int(ti["max_tries"]) > retries)


def former_tries(api: RestApi, ti: ApiObject) -> list[FormerTry]:
    """Return the tries of a task instance that are over, as the grid has them."""
    tries, waits = _tries(api, ti), ti["state"] == "up_for_retry"
    return [
        [
            one["try_number"],
            one["state"],
            moment(one["queued_when"]),
            moment(one["start_date"]),
            moment(one["end_date"]),
        ]
        for one in (tries if waits else tries[:-1])
        if 0 < one["try_number"] < ti["try_number"] + (not waits)
    ]


def tries_of(api: RestApi, ti: ApiObject) -> list[ApiObject]:
    """Return the tries of a task instance from the API, the first one first."""
    found: dict[int, ApiObject] = {}
    for one in _tries(api, ti):
        found.setdefault(one["try_number"], one)
    return [found[number] for number in sorted(found) if number > 0]


def _tries(api: RestApi, ti: ApiObject) -> list[ApiObject]:
    """Return the recorded tries, then the present one unless the task waits for a retry."""
    mapped = (str(ti["map_index"]),) if ti["map_index"] >= 0 else ()
    path = path_of(
        "dags", ti["dag_id"], "dagRuns", ti["dag_run_id"], "taskInstances", ti["task_id"], *mapped, "tries"
    )
    return cast("list[ApiObject]", api.get(path)["task_instances"])
