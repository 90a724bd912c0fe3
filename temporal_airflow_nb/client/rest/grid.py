"""The grid of a DAG's runs, read through Airflow's REST API."""

from __future__ import annotations

import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from threading import Lock
from typing import Any, Final, TypeVar

from temporal_airflow_nb.client.change_tracker import Changes, cells_since
from temporal_airflow_nb.client.rest.http import RestApi, path_of
from temporal_airflow_nb.client.rest.structure import structure_of, topological
from temporal_airflow_nb.client.rows import own_times
from temporal_airflow_nb.config.environment import workflow_id
from temporal_airflow_nb.display.states import FINAL_RUN_STATES, NO_STATUS
from temporal_airflow_nb.errors import ServiceUnavailableError, TemporalAirflowError

_OVERLAP: Final = timedelta(seconds=6)
_LOOK_SECONDS: Final = 0.5
_SCAN_SECONDS: Final = 15.0
_SCANS_PER_COST: Final = 20
_COUNT_SECONDS: Final = 5.0

# The rest, rendered fields say, would be kept for nothing.
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

Key = tuple[str, int]
Task = TypeVar("Task", bound=Mapping[str, Any])


def moment(text: str | None) -> str | None:
    """Return a time as the gateway writes it.

    >>> moment("2026-01-01T00:00:00Z")
    '2026-01-01T00:00:00+00:00'
    """
    if text is None:
        return None
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(timezone.utc).isoformat()


def task_row(ti: Mapping[str, Any]) -> dict[str, Any]:
    """Return a task instance as the gateway tells it, but for its group and its former tries."""
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
        # Without a template for it, the API gives the map index.
        "label": None if label == str(ti["map_index"]) else label,
    }


def run_row(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run as the gateway tells it."""
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
    """What is known of a DAG's latest runs, and of the task instances of one of them. Safe in threads."""

    def __init__(self, address: str, dag_id: str, run_id: str, window: int) -> None:
        self.dag_id = dag_id
        self.run_id = run_id
        self._address = address
        self._window = window
        self._lock = Lock()
        self._name = secrets.token_hex(4)
        self._look = 0
        self._looked = self._scanned = self._scan_cost = 0.0
        self._since: datetime | None = None
        self._structure: dict[str, Any] | None = None
        self._structure_look = 0
        self._order: list[str] = []
        self._places: dict[str, tuple[int, str | None]] = {}
        self._runs, self._tasks, self._cells = Changes(), Changes(), Changes()
        self._groups: set[str] = set()
        self._retries: dict[str, int] = {}
        self._told: dict[Key, Mapping[str, Any]] = {}
        self._counted: dict[str, tuple[Any, float]] = {}

    @property
    def run(self) -> dict[str, Any]:
        """The run in focus."""
        return self._runs.values[self.run_id]

    @property
    def links(self) -> dict[str, str]:
        """Where the run is in Airflow's UI."""
        path = path_of("dags", self.dag_id, "runs", self.run_id)
        return {"airflow": f"{self._address}/{path}"}

    def refresh(self, api: RestApi) -> None:
        """Ask what has changed, unless that was asked just now."""
        with self._lock:
            now = time.monotonic()
            if self._looked and now - self._looked < _LOOK_SECONDS:
                return
            self._look += 1
            ended = self._read_runs(api)
            since = api.server_time - _OVERLAP
            if self._structure is None or self._structure["version"] != self.run["version"]:
                self._read_structure(api)
            scan = ended or now - self._scanned > max(_SCAN_SECONDS, _SCANS_PER_COST * self._scan_cost)
            self._read_tasks(api, None if scan else self._since)
            self._read_cells(api, now)
            self._looked, self._since = now, since
            if scan:
                self._scanned, self._scan_cost = now, time.monotonic() - now

    def expire(self) -> None:
        """Have the next refresh ask in any case: somebody has changed a run here."""
        with self._lock:
            self._looked = 0.0

    def answer(self, after: str | None) -> tuple[dict[str, Any], bool]:
        """Return what has changed after the cursor ``after``, and whether anything has."""
        with self._lock:
            name, _, number = (after or "").partition(".")
            full = name != self._name or not number.isdigit()
            known = 0 if full else int(number)
            changed = {run_id for run_id, _ in self._runs.since(known)}
            news: dict[str, Any] = {
                "structure": self._structure if self._structure_look > known else None,
                "tasks": self._sorted(task for _, task in self._tasks.since(known)),
                "removed": [] if full else [list(key) for key in self._tasks.lost_since(known)],
                "cells": cells_since(known, self._cells, self._runs),
                "dropped": [] if full else self._runs.lost_since(known),
            }
            shown = [run for run in self._order if run in changed or run == self.run_id]
            answer = {
                "cursor": f"{self._name}.{self._look}",
                "full": full,
                "now": datetime.now(timezone.utc).isoformat(),
                "dag_id": self.dag_id,
                "run_id": self.run_id,
                "workflow_id": workflow_id(self.dag_id, self.run_id),
                "links": self.links,
                "runs": [self._runs.values[run] for run in shown],
                **news,
            }
            return answer, bool(full or changed or any(news.values()))

    def tasks(self) -> list[dict[str, Any]]:
        """Return the task instances of the run in focus as Airflow has them, in an order in which they can run."""
        with self._lock:
            told = [{**task_row(ti), "group": self._group(ti["task_id"])} for ti in self._told.values()]
            turns = {task_id: turn for turn, task_id in enumerate(topological(self._structure or {}))}
        return sorted(told, key=lambda task: (turns.get(task["task_id"], len(turns)), task["map_index"]))

    def task_instances(self) -> list[tuple[Mapping[str, Any], bool]]:
        """Return the task instances as the API tells them, in the grid's order, and whether each was tried before."""
        with self._lock:
            told = self._sorted(self._told.values())
            return [(ti, was_tried_before(ti, self._retries.get(ti["task_id"], 0))) for ti in told]

    def _group(self, task_id: str) -> str | None:
        return self._places.get(task_id, (0, None))[1]

    def _sorted(self, tasks: Iterable[Task]) -> list[Task]:
        last = (len(self._places), None)
        return sorted(tasks, key=lambda task: (self._places.get(task["task_id"], last)[0], task["map_index"]))

    def _read_runs(self, api: RestApi) -> bool:
        """Read the runs that are shown; return whether the one in focus has just ended, or begun anew."""
        runs = path_of("dags", self.dag_id, "dagRuns")
        found = api.get(runs, limit=self._window, order_by="-run_after")["dag_runs"]
        rows = [run_row(run) for run in found]
        if all(row["run_id"] != self.run_id for row in rows):
            rows.append(run_row(api.get(f"{runs}/{path_of(self.run_id)}")))
        before = self._runs.values.get(self.run_id, {}).get("state")
        for row in rows:
            self._runs.put(row["run_id"], row, self._look)
        self._order = [row["run_id"] for row in rows]
        self._runs.keep(self._order, self._look)
        return before != self.run["state"]

    def _read_structure(self, api: RestApi) -> None:
        tasks = api.get(path_of("dags", self.dag_id, "tasks"))["tasks"]
        try:
            grid = api.get(path_of("grid", "structure", self.dag_id), root="ui")
        except ServiceUnavailableError:
            raise
        except TemporalAirflowError:
            grid = None
        self._structure = {"version": self.run["version"], **structure_of(tasks, grid)}
        self._structure_look = self._look
        self._places = {
            node["id"]: (place, node["parent"]) for place, node in enumerate(self._structure["nodes"])
        }
        self._groups = {node["id"] for node in self._structure["nodes"] if node["kind"] == "group"}
        self._retries = {node["id"]: node["retries"] for node in self._structure["nodes"]}

    def _read_tasks(self, api: RestApi, since: datetime | None) -> None:
        path = path_of("dags", self.dag_id, "dagRuns", self.run_id, "taskInstances")
        recent = None if since is None else since.isoformat()
        seen = []
        for told in api.pages(path, "task_instances", updated_at_gte=recent, order_by="id"):
            ti = {name: told[name] for name in _KEPT}
            key = (ti["task_id"], ti["map_index"])
            seen.append(key)
            if self._told.get(key) == ti:
                continue
            task = task_row(ti)
            task["group"] = self._group(ti["task_id"])
            task["tries"] = (
                former_tries(api, ti) if was_tried_before(ti, self._retries.get(ti["task_id"], 0)) else []
            )
            if task["tries"] and ti["state"] != "up_for_retry":
                _, _, queued, start, _ = task["tries"][-1]
                task |= own_times(task, queued, start)
            self._tasks.put(key, task, self._look)
            self._told[key] = ti
        if since is None:
            self._tasks.keep(seen, self._look)
            self._told = {key: self._told[key] for key in seen}

    def _read_cells(self, api: RestApi, now: float) -> None:
        """Count the states of other runs: once of those that have ended, now and then of those that go on."""
        wanted = []
        for run_id in self._order:
            row = self._runs.values[run_id]
            counted, at = self._counted.get(run_id, (None, 0.0))
            goes_on = row["state"] not in FINAL_RUN_STATES and now - at >= _COUNT_SECONDS
            if run_id != self.run_id and (goes_on or counted != row):
                wanted.append(run_id)
        counts = self._counts(api, wanted)
        self._counted |= {run_id: (self._runs.values[run_id], now) for run_id in wanted}
        for key, states in counts.items():
            self._cells.put(key, states, self._look)
        untouched = [key for key in self._cells.values if key[0] in self._order and key[0] not in wanted]
        self._cells.keep([*counts, *untouched], self._look)

    def _counts(self, api: RestApi, run_ids: list[str]) -> dict[tuple[str, str], dict[str, int]]:
        """Return how many task instances are in each state, by run and task."""
        counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        if not run_ids:
            return {}
        try:
            told = api.get(path_of("grid", "ti_summaries", self.dag_id), root="ui", run_ids=run_ids)
        except ServiceUnavailableError:
            raise
        except TemporalAirflowError:
            # What Airflow's own grid is made of isn't promised to anybody else.
            for run_id in run_ids:
                path = path_of("dags", self.dag_id, "dagRuns", run_id, "taskInstances")
                for ti in api.pages(path, "task_instances", order_by="id"):
                    counts[run_id, ti["task_id"]][ti["state"] or NO_STATUS] += 1
        else:
            for run in told:
                for task in run["task_instances"]:
                    if task["task_id"] not in self._groups:
                        states = task["child_states"] or {task["state"] or "none": 1}
                        counts[run["run_id"], task["task_id"]].update(
                            {NO_STATUS if state == "none" else state: n for state, n in states.items()}
                        )
        return {key: dict(states) for key, states in counts.items()}


def was_tried_before(ti: Mapping[str, Any], retries: int) -> bool:
    """Return whether a task instance may have been tried before: one that was cleared is allowed more tries."""
    return ti["try_number"] > 1 or (ti["try_number"] > 0 and ti["max_tries"] > retries)


def former_tries(api: RestApi, ti: Mapping[str, Any]) -> list[list[Any]]:
    """Return the tries of a task instance that are over, as the grid has them."""
    told, waits = _tries(api, ti), ti["state"] == "up_for_retry"
    return [
        [
            one["try_number"],
            one["state"],
            moment(one["queued_when"]),
            moment(one["start_date"]),
            moment(one["end_date"]),
        ]
        for one in (told if waits else told[:-1])
        if 0 < one["try_number"] < ti["try_number"] + (not waits)
    ]


def tries_of(api: RestApi, ti: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the tries of a task instance as the API tells them, the first one first."""
    found: dict[int, Mapping[str, Any]] = {}
    for one in _tries(api, ti):
        found.setdefault(one["try_number"], one)
    return [found[number] for number in sorted(found) if number > 0]


def _tries(api: RestApi, ti: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the recorded tries, then the task instance as it is, unless it waits to be tried again."""
    mapped = (str(ti["map_index"]),) if ti["map_index"] >= 0 else ()
    path = path_of(
        "dags", ti["dag_id"], "dagRuns", ti["dag_run_id"], "taskInstances", ti["task_id"], *mapped, "tries"
    )
    return api.get(path)["task_instances"]
