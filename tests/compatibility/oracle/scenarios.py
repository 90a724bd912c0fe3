"""Scripts of user actions on runs, during and after the run: one script for each DAG, played on both sides."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.compatibility.oracle.result import key_of

PATIENCE = 120.0
TOGETHER = 4

Task = str | tuple[str, int]
SCRIPTS: dict[str, Callable[[Scene], None]] = {}
_editing = threading.Lock()


class Scene(ABC):
    """A run on either side, and the possible actions on it.

    Parameters
    ----------
    dag_id, run_id
        The run.
    effects
        The file that its tasks write to.
    database
        Airflow's SQLite file.
    file
        The DAG file, which the script can edit.
    """

    def __init__(self, dag_id: str, run_id: str, effects: Path, database: Path, file: Path) -> None:
        self.dag_id = dag_id
        self.run_id = run_id
        self.effects = effects
        self.database = database
        self.file = file
        self.gates = effects.with_name(f"{effects.name}.gates")
        self.gates.mkdir(exist_ok=True)

    @abstractmethod
    def start(self) -> None:
        """Start the run."""

    @abstractmethod
    def clear(
        self,
        *tasks: Task,
        downstream: bool = False,
        upstream: bool = False,
        only_failed: bool = False,
        latest: bool | None = None,
    ) -> None:
        """Clear task instances, or the whole run if no task is named."""

    @abstractmethod
    def mark(
        self,
        state: str,
        task_id: str | None = None,
        *,
        map_index: int | None = None,
        downstream: bool = False,
        upstream: bool = False,
    ) -> None:
        """Mark a task, or the whole run if no task is named."""

    @abstractmethod
    def reload(self) -> None:
        """Make Airflow read the DAG file again."""

    def edit(self, old: str, new: str) -> None:
        """Replace text in the DAG file, and make Airflow read the file again."""
        with _editing:
            self.file.write_text(self.file.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
            self.reload()

    def open(self, *gates: str) -> None:
        """Open these gates, so that the tasks that wait for them continue."""
        for name in gates:
            (self.gates / name).touch()

    def close(self, *gates: str) -> None:
        """Close these gates, so that tasks wait for them again."""
        for name in gates:
            (self.gates / name).unlink()

    def until(self, **wanted: str | None) -> None:
        """Wait until tasks are in these states."""
        self._wait(
            lambda: all(self.states().get(name, "") == state for name, state in wanted.items()), wanted
        )

    def until_written(self, *lines: str) -> None:
        """Wait until the run's tasks have written lines with these beginnings."""

        def said() -> bool:
            found = self.effects.read_text().splitlines() if self.effects.exists() else []
            return all(any(line.startswith(start) for line in found) for start in lines)

        self._wait(said, lines)

    def until_run(self, *wanted: str) -> None:
        """Wait until the run is in one of these states."""
        self._wait(lambda: self._rows("SELECT state FROM dag_run")[0][0] in wanted, wanted)

    def ended(self) -> None:
        """Wait until the run has ended."""
        self.until_run("success", "failed")

    def states(self) -> dict[str, str | None]:
        """Return the task instances' states."""
        rows = self._rows("SELECT task_id, map_index, state FROM task_instance")
        return {key_of(task_id, map_index): state for task_id, map_index, state in rows}

    def _rows(self, query: str) -> list[Any]:
        with contextlib.closing(
            sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=30)
        ) as database:
            where = " WHERE dag_id = ? AND run_id = ?"
            return database.execute(query + where, (self.dag_id, self.run_id)).fetchall()

    def _wait(self, condition: Callable[[], bool], what: Any) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.dag_id}: not in {PATIENCE:.0f} s: {what}; {self.states()}")
            time.sleep(0.1)


def play(scenes: Sequence[Scene]) -> dict[str, str]:
    """Play the scripts of these runs, several in parallel; return the errors by DAG id."""

    def perform(scene: Scene) -> None:
        scene.start()
        SCRIPTS[scene.dag_id](scene)

    with ThreadPoolExecutor(TOGETHER) as pool:
        played = {scene.dag_id: pool.submit(perform, scene) for scene in scenes}
    return {dag_id: str(error) for dag_id, future in played.items() if (error := future.exception())}


def script(function: Callable[[Scene], None]) -> Callable[[Scene], None]:
    """Register the script of the DAG with the function's name."""
    SCRIPTS[function.__name__] = function
    return function


@script
def clear_running(scene: Scene) -> None:
    tasks = ("plain", "retries", "stubborn", "no_callbacks")
    scene.until_written(*(f"{task} try 1 starts" for task in tasks))
    scene.clear(*tasks)
    scene.until_written(*(f"{task} try 2 starts" for task in tasks))
    scene.clear("plain")
    scene.until_written("plain try 3 starts")
    scene.open(*tasks)
    scene.ended()


@script
def clear_finished(scene: Scene) -> None:
    scene.open("holds")
    scene.ended()
    scene.clear(only_failed=True)
    scene.until_run("running")
    scene.ended()
    scene.open("second")
    scene.close("holds")
    scene.clear()
    scene.until_written("holds try 2 starts")
    scene.until(end="success")
    scene.clear()
    scene.until_written("holds try 3 starts")
    scene.open("holds")
    scene.ended()


@script
def clear_mapped_instance(scene: Scene) -> None:
    scene.ended()
    scene.open("mapped")
    scene.clear(("each", 1), downstream=True)
    scene.ended()
    scene.clear(("each", 2))
    scene.ended()


@script
def clear_changes_length(scene: Scene) -> None:
    scene.ended()
    for length in ("1", "4", "0"):
        scene.open(length)
        scene.clear("numbers", downstream=True)
        scene.ended()
        scene.close(length)
    scene.clear("numbers", downstream=True)
    scene.ended()


@script
def clear_upstream_of_running(scene: Scene) -> None:
    scene.until_written("down try 1 starts")
    scene.clear("up")
    scene.until(up="success")
    scene.clear("value", upstream=True)
    scene.until(up="success", value="success")
    scene.open("down")
    scene.ended()


@script
def clear_waiting(scene: Scene) -> None:
    waiting = {"retry": "up_for_retry", "reschedule": "up_for_reschedule", "defer": "deferred"}
    scene.until(**waiting, asks="awaiting_input")
    scene.clear("retry", "reschedule", "defer", "asks")
    scene.until(retry="success", reschedule="success", defer="success", asks="awaiting_input")
    scene.mark("success", "asks")
    scene.ended()


@script
def clear_with_setup(scene: Scene) -> None:
    scene.ended()
    scene.open("work")
    scene.clear("work", downstream=True)
    scene.ended()
    scene.clear("close_it")
    scene.ended()


@script
def clear_branch(scene: Scene) -> None:
    scene.ended()
    scene.open("right")
    scene.clear("choose", downstream=True)
    scene.ended()
    scene.clear("left")
    scene.ended()


@script
def clear_while_finishing(scene: Scene) -> None:
    scene.ended()
    scene.clear("a")
    scene.until_run("queued", "running")
    scene.open("callback")
    scene.ended()
    scene.until_written("run success")


@script
def mark_running(scene: Scene) -> None:
    scene.until_written(*(f"{name} try 1 starts" for name in ("good", "bad", "skipped")))
    scene.until_written(*(f"mapped {index} try 1 starts" for index in range(3)))
    scene.mark("success", "good")
    scene.mark("failed", "bad")
    scene.mark("skipped", "skipped")
    scene.mark("success", "mapped", map_index=1)
    scene.until_written(
        "good try 1 on_kill", "bad try 1 on_kill", "skipped try 1 on_kill", "mapped 1 try 1 on_kill"
    )
    scene.until(after_good="success", after_bad="upstream_failed", seldom="skipped")
    scene.mark("failed", "mapped")
    scene.ended()
    scene.until_written("mapped 0 try 1 on_kill", "mapped 2 try 1 on_kill", "run failure")


@script
def mark_waiting(scene: Scene) -> None:
    waiting = {"retry": "up_for_retry", "reschedule": "up_for_reschedule", "defer": "deferred"}
    scene.until(**waiting, asks="awaiting_input")
    scene.mark("success", "retry")
    scene.mark("failed", "reschedule")
    scene.mark("success", "defer")
    scene.mark("failed", "asks")
    scene.ended()


@script
def mark_relatives(scene: Scene) -> None:
    scene.until_written("first try 1 starts", "side try 1 starts")
    scene.mark("success", "middle", upstream=True)
    scene.until_written("last try 1 starts")
    scene.mark("success", "side_next", downstream=True)
    scene.until(side_end="success", side="running")
    scene.mark("failed", "side", downstream=True)
    scene.open("last")
    scene.ended()
    scene.until_written("first try 1 on_kill", "side try 1 on_kill")


@script
def mark_reopens(scene: Scene) -> None:
    scene.ended()
    scene.mark("success", "never")
    scene.ended()
    scene.mark("failed", "fine")
    scene.ended()
    scene.mark("failed")
    scene.mark("success")


@script
def mark_run_success(scene: Scene) -> None:
    scene.until_written("holds try 1 starts")
    scene.until(defer="deferred", retry="up_for_retry")
    scene.mark("success")
    scene.ended()
    scene.until_written("holds try 1 on_kill")


@script
def mark_run_failed(scene: Scene) -> None:
    scene.until_written(
        "holds try 1 starts", "mapped 0 try 1 starts", "mapped 1 try 1 starts", "stubborn try 1 starts"
    )
    scene.until(defer="deferred", retry="up_for_retry", reschedule="up_for_reschedule", done="success")
    scene.mark("failed")
    scene.ended()
    scene.until_written(*(f"{name} try 1 on_kill" for name in ("holds", "mapped 0", "mapped 1", "stubborn")))


@script
def fail_with_teardown(scene: Scene) -> None:
    scene.until_written("holds try 1 starts")
    scene.mark("failed")
    scene.ended()
    scene.until_written("holds try 1 on_kill")


@script
def times_out(scene: Scene) -> None:
    scene.until_written("holds try 1 starts")
    scene.until(defer="deferred", retry="up_for_retry")
    scene.ended()
    scene.until_written("holds try 1 on_kill", "run failure")


@script
def clear_timed_out(scene: Scene) -> None:
    scene.ended()
    scene.until_written("holds try 1 on_kill")
    scene.open("holds")
    scene.clear()
    scene.ended()


@script
def edit_running(scene: Scene) -> None:
    scene.until_written("holds try 1 starts")
    scene.edit("WHILE_RUNNING = 1", "WHILE_RUNNING = 2")
    scene.until(new="success")
    scene.open("holds")
    scene.ended()


@script
def edit_finished(scene: Scene) -> None:
    scene.ended()
    scene.edit("AFTERWARDS = 1", "AFTERWARDS = 2")
    scene.clear("version")
    scene.ended()
    scene.clear()
    scene.ended()
    scene.clear(latest=True)
    scene.ended()
