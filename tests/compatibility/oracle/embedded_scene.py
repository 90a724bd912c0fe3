"""Plays the scripts of :mod:`tests.compatibility.oracle.scenarios` on the embedded stack, through the public API."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.compatibility.oracle.catalog import Case
from tests.compatibility.oracle.scenarios import Scene, Task, play

if TYPE_CHECKING:
    from temporal_airflow_nb import LocalStack, Run


class EmbeddedScene(Scene):
    """A run on the embedded stack."""

    run: Run

    def __init__(self, stack: LocalStack, *run: Any) -> None:
        super().__init__(*run)
        self.stack = stack

    def start(self) -> None:
        """Start the run."""
        self.run = self.stack.run(
            self.file, dag_id=self.dag_id, conf={"effects": str(self.effects)}, run_id=self.run_id
        )

    def clear(
        self,
        *tasks: Task,
        downstream: bool = False,
        upstream: bool = False,
        only_failed: bool = False,
        latest: bool | None = None,
    ) -> None:
        """Clear task instances, or the whole run if no task is named."""
        if not tasks:
            self.run.clear(only_failed=only_failed, latest_version=latest)
            return
        named = {task if isinstance(task, str) else task[0] for task in tasks}
        indexes = [task[1] for task in tasks if not isinstance(task, str)]
        self.run.clear(
            named,
            map_index=indexes or None,
            downstream=downstream,
            upstream=upstream,
            only_failed=only_failed,
            latest_version=latest,
        )

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
        self.run.mark(state, task_id, map_index=map_index, downstream=downstream, upstream=upstream)

    def reload(self) -> None:
        """Make Airflow read the DAG file again, by running the DAG that was added to it."""
        self.stack.run(self.file, dag_id="gained")


def play_embedded(
    stack: LocalStack, case: Case, folder: Path, dag_ids: Iterable[str], run_id: str
) -> tuple[dict[str, Run], dict[str, str]]:
    """Start the runs of a file and play their scripts; return the runs and the errors."""
    dags = folder / "dags"
    shutil.copytree(case.folder / "oracle_lib", dags / "oracle_lib")
    file = Path(shutil.copy2(case.path, dags))
    database = Path(stack.status()["env"]["AIRFLOW_HOME"]) / "airflow.db"
    scenes = [EmbeddedScene(stack, dag_id, run_id, folder / dag_id, database, file) for dag_id in dag_ids]
    failed = play(scenes)
    runs = {scene.dag_id: scene.run for scene in scenes if hasattr(scene, "run")}
    for dag_id in failed.keys() & runs.keys():
        runs.pop(dag_id).cancel()
    return runs, failed
