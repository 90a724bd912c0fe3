"""Measures the time from a user's action on a run by REST to its effect."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.clusters import DATABASES, running, table
from temporal_airflow_nb.config.environment import workflow_id
from tests.production.cluster import Cluster
from tests.production.driven_run import DrivenRun


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=DATABASES, default="sqlite")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=list(ACTIONS))
    options = parser.parse_args()
    rows = []
    with running(options.database) as cluster:
        cluster.api("POST", "pools", {"name": "narrow", "slots": 1})
        for name in options.only or ACTIONS:
            rows.append((name, [ACTIONS[name](cluster) for _ in range(options.repetitions)]))
            print(f"{name}: {rows[-1][1]}", file=sys.stderr, flush=True)
    print(table(rows))


def begins(run: DrivenRun, task_id: str, *, times: int = 1) -> float:
    """Return the time at which a task started; ``times`` counts its starts."""
    run.until_begun(task_id, times=times)
    lines = run.cluster.executions(run.dag_id, run.run_id)
    return [line["at"] for line in lines if line["task_id"] == task_id][times - 1]


def closes(run: DrivenRun) -> float:
    """Return the time at which the run's workflow ended."""

    async def closed(client) -> datetime | None:
        handle = client.get_workflow_handle(workflow_id(run.dag_id, run.run_id))
        return (await handle.describe()).close_time

    return run.cluster.wait_for(lambda: run.cluster.temporal(closed), "the end of the workflow").timestamp()


def waiting(cluster: Cluster) -> DrivenRun:
    """Return a run in which one task waits at its gate, and all tasks before it have ended."""
    run = DrivenRun(cluster, "acted")
    run.until_begun("waits", "other")
    run.until_states(other="success", waits="running")
    return run


def clear_running_task(cluster: Cluster) -> float:
    run = waiting(cluster)
    began = time.time()
    run.clear("waits")
    took = begins(run, "waits", times=2) - began
    run.open_gate()
    run.wait_for_end()
    return took


def clear_finished_run(cluster: Cluster) -> float:
    run = waiting(cluster)
    run.open_gate()
    run.wait_for_end()
    began = time.time()
    run.clear()
    took = begins(run, "prepares", times=2) - began
    run.until_begun("after", times=2)
    run.wait_for_end()
    return took


def clear_finished_task(cluster: Cluster) -> float:
    run = waiting(cluster)
    run.open_gate()
    run.wait_for_end()
    began = time.time()
    run.clear("after")
    took = begins(run, "after", times=2) - began
    run.wait_for_end()
    return took


def mark_task_success(cluster: Cluster) -> float:
    run = waiting(cluster)
    began = time.time()
    run.mark("success", "waits")
    took = begins(run, "after") - began
    run.wait_for_end()
    return took


def mark_task_failed(cluster: Cluster) -> float:
    run = waiting(cluster)
    began = time.time()
    run.mark("failed", "waits")
    return closes(run) - began


def mark_run_success(cluster: Cluster) -> float:
    run = waiting(cluster)
    began = time.time()
    run.mark("success")
    return closes(run) - began


def mark_run_failed(cluster: Cluster) -> float:
    run = waiting(cluster)
    began = time.time()
    run.mark("failed")
    return closes(run) - began


def unpause(cluster: Cluster) -> float:
    run = waiting(cluster)
    cluster.pause("acted")
    run.open_gate()
    run.until_states(waits="success")
    began = time.time()
    cluster.pause("acted", False)
    took = begins(run, "after") - began
    run.wait_for_end()
    return took


def answer(cluster: Cluster) -> float:
    run = DrivenRun(cluster, "asked")
    run.until_states(asks="awaiting_input", enters="awaiting_input")
    for task_id, body in {
        "asks": {"chosen_options": ["that"]},
        "enters": {"chosen_options": ["OK"], "params_input": {"number": 5}},
    }.items():
        began = time.time()
        cluster.api("PATCH", f"{run.path}/taskInstances/{task_id}/-1/hitlDetails", body)
    took = begins(run, "after") - began
    run.wait_for_end()
    return took


def set_pool(cluster: Cluster, slots: int) -> None:
    body = {"name": "narrow", "slots": slots, "description": "", "include_deferred": False}
    cluster.api("PATCH", "pools/narrow", body)


def enlarge_pool(cluster: Cluster) -> float:
    set_pool(cluster, 1)
    run = DrivenRun(cluster, "pooled")
    run.until_any_has_begun("one", "two")
    began = time.time()
    set_pool(cluster, 2)
    took = max(begins(run, "one"), begins(run, "two")) - began
    run.open_gate()
    run.wait_for_end()
    return took


def raise_limit(cluster: Cluster) -> float:
    """Measure from the moment when the DAG processor has stored the edited file."""
    file = cluster.dags_folder / "limit.py"
    text = file.read_text()

    def stored(limit: int) -> bool:
        (row,) = cluster.query("SELECT max_active_tasks FROM dag WHERE dag_id = 'limited'")
        return row["max_active_tasks"] == limit

    cluster.wait_for(lambda: stored(1), "the old limit")
    run = DrivenRun(cluster, "limited")
    run.until_any_has_begun("one", "two")
    file.write_text(text.replace("LIMIT = 1", "LIMIT = 2"))
    cluster.wait_for(lambda: stored(2), "the new limit")
    began = time.time()
    took = max(begins(run, "one"), begins(run, "two")) - began
    run.open_gate()
    run.wait_for_end()
    file.write_text(text)
    return took


ACTIONS: dict[str, Callable[[Cluster], float]] = {
    function.__name__.replace("_", " "): function
    for function in (
        clear_running_task,
        clear_finished_task,
        clear_finished_run,
        mark_task_success,
        mark_task_failed,
        mark_run_success,
        mark_run_failed,
        unpause,
        answer,
        enlarge_pool,
        raise_limit,
    )
}


if __name__ == "__main__":
    main()
