"""Runs a case in the same way on both sides: starts runs, answers tasks, waits for the end, reads the results."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.compatibility.oracle.answers import Answering
from tests.compatibility.oracle.catalog import Case, rename_choices
from tests.compatibility.oracle.result import Source, key_of, queued_assets, read_result, run_facts
from tests.compatibility.oracle.server import serving

FINAL = ("success", "failed")


class Side(ABC):
    """One of the two compared systems, with a case to run."""

    case: Case
    source: Source
    effects: Path
    run_id: str
    considers: float = 0.0
    """Seconds for which a task waits for its answer."""

    @abstractmethod
    def start(self, dag_id: str, conf: Mapping[str, Any], number: int) -> None:
        """Create a run. The first run of a DAG has the id ``run_id``; each following run is a day later."""

    def id_of(self, number: int) -> str:
        """Return a run's id."""
        return self.run_id if number == 1 else f"{self.run_id}-{number}"

    @abstractmethod
    def play(self, dag_ids: Iterable[str]) -> dict[str, str]:
        """Create runs and play their scripts; return the errors by DAG id."""

    @abstractmethod
    def wait(self, dag_id: str, timeout: float) -> None:
        """Wait until the started run has ended; raise an error if it doesn't end."""

    @abstractmethod
    def answer(self, dag_id: str, task_id: str, map_index: int, answer: Mapping[str, Any]) -> None:
        """Answer a task that waits for a person."""

    @abstractmethod
    def settle(self, step: int, count: Callable[[], tuple[int, int]]) -> None:
        """Wait for the runs that the runs of a step have caused; ``count`` is their number, ended or not."""

    def finish(self, dag_id: str, result: dict[str, Any]) -> dict[str, Any]:
        """Return the result with the facts that only this side knows."""
        return result


def run_case(side: Side, own: Iterable[str], of_earlier: Iterable[str] = ()) -> dict[str, Any]:
    """Run the DAGs of a case.

    Parameters
    ----------
    side
        Where.
    own
        The DAGs of the case's file.
    of_earlier
        The DAGs of the files that ran before.

    Returns
    -------
    dict
        Result by DAG id; ``{"error": message}`` if a run couldn't be started or didn't end. Runs that other runs
        caused are in ``other_runs``, named after the step that caused them.
    """
    with serving(side.case.serves) as address:
        return _run_case(side, sorted(own), sorted(of_earlier), address)


def _run_case(side: Side, own: list[str], of_earlier: list[str], address: str) -> dict[str, Any]:
    case = side.case
    side.source = replace(side.source, places={**side.source.places, address: "server"})
    conf = {name: _with_address(value, address) for name, value in case.conf.items()}
    known = sorted([*own, *of_earlier])
    others = _OtherRuns(side, known)
    results: dict[str, Any] = {}
    started = []
    deadline = time.monotonic() + case.timeout
    for number, step in enumerate(case.steps(own), 1):
        started += step
        if case.scripted:
            results |= {dag_id: {"error": error} for dag_id, error in side.play(step).items()}
        for dag_id in () if case.scripted else step:
            try:
                for run in range(1, case.runs + 1):
                    of_run = {"effects": str(side.effects / dag_id)} | (
                        {"number": run} if case.runs > 1 else {}
                    )
                    side.start(dag_id, conf | of_run, run)
            except Exception as error:
                results[dag_id] = _error(error)
        with Answering(side):
            for dag_id in step:
                if dag_id in results:
                    continue
                try:
                    side.wait(dag_id, max(1.0, deadline - time.monotonic()))
                except Exception as error:
                    results[dag_id] = _error(error) | {"tasks": others.states(dag_id)}
        side.settle(number, others.count)
        others.name(number)
    for dag_id in known:
        if dag_id in started and dag_id not in results:
            results[dag_id] = side.finish(dag_id, _read(side, dag_id, side.run_id))
        found = {name: _read_other(side, dag_id, run_id) for name, run_id in others.of(dag_id)}
        queued = queued_assets(side.source, dag_id)
        results.setdefault(dag_id, {}).update(
            ({"other_runs": found} if found else {}) | ({"queued_assets": queued} if queued else {})
        )
    return {dag_id: results[dag_id] for dag_id in sorted(results)}


def expected_runs(recorded: Mapping[str, Any], step: int) -> int:
    """Return the number of runs that other runs have caused until the end of a step, on native Airflow."""
    names = [name for result in recorded.values() for name in result.get("other_runs", ())]
    return sum(int(name.split(":")[0].removeprefix("step ")) <= step for name in names)


def _with_address(value: Any, address: str) -> Any:
    return value.replace("<server>", address) if isinstance(value, str) else value


def _error(error: Exception) -> dict[str, Any]:
    return {"error": f"{type(error).__name__}: {error}"}


def _read(side: Side, dag_id: str, run_id: str) -> dict[str, Any]:
    case = side.case
    result = read_result(
        side.source,
        dag_id,
        run_id,
        effects=side.effects / dag_id,
        ordered=dag_id in case.ordered,
        logs=case.logs,
        brief=case.brief,
    )
    return case.hide(rename_choices(case, result, dag_id))


def _read_other(side: Side, dag_id: str, run_id: str) -> dict[str, Any]:
    result = _read(side, dag_id, run_id)
    result.pop("effects", None)
    if run_id in {side.id_of(number) for number in range(1, side.case.runs + 1)}:
        return result
    return run_facts(side.source, dag_id, run_id) | result


class _OtherRuns:
    """The runs that were created since the case began, except those that the case started."""

    def __init__(self, side: Side, dag_ids: list[str]) -> None:
        self.side = side
        self.dag_ids = dag_ids
        (self.newest,) = self._query("SELECT coalesce(max(id), 0) FROM dag_run")[0]
        self._names: dict[int, tuple[str, str, str]] = {}

    def count(self) -> tuple[int, int]:
        """Return the number of these runs, and the number of unfinished ones."""
        rows = self._rows()
        return len(rows), sum(state not in FINAL for *_, state in rows)

    def name(self, step: int) -> None:
        """Name the new runs."""
        counts: dict[str, int] = {}
        for number, dag_id, run_id, run_type, partition, _ in self._rows():
            if number not in self._names:
                counts[dag_id] = counts.get(dag_id, 0) + 1
                name = f"step {step}: {run_type} {partition or counts[dag_id]}"
                self._names[number] = (dag_id, name, run_id)

    def of(self, dag_id: str) -> list[tuple[str, str]]:
        """Return the names and ids of a DAG's runs."""
        return [(name, run_id) for owner, name, run_id in self._names.values() if owner == dag_id]

    def states(self, dag_id: str) -> dict[str, Any]:
        """Return the progress of the started run."""
        rows = self._query(
            "SELECT task_id, map_index, state FROM task_instance WHERE dag_id = ? AND run_id = ?",
            dag_id,
            self.side.run_id,
        )
        return {key_of(task_id, map_index): {"state": state} for task_id, map_index, state in rows}

    def _rows(self) -> list[Any]:
        places = ", ".join("?" for _ in self.dag_ids)
        return self._query(
            "SELECT id, dag_id, run_id, run_type, partition_key, state FROM dag_run"
            f" WHERE id > ? AND run_id != ? AND dag_id IN ({places}) ORDER BY dag_id, id",
            self.newest,
            self.side.run_id,
            *self.dag_ids,
        )

    def _query(self, statement: str, *values: Any) -> list[Any]:
        return _query(self.side.source.database, statement, *values)


def _query(database: Path, statement: str, *values: Any) -> list[Any]:
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
        return connection.execute(statement, values).fetchall()
