"""Builds snapshots of runs for tests."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

START = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


def at(seconds):
    """Return the time a number of seconds after the run's start."""
    return START + timedelta(seconds=seconds)


def task(task_id, state=None, begin=None, end=None, **facts):
    moments = {"queued_dttm": begin, "start_date": begin, "end_date": end}
    return {
        "task_id": task_id,
        "map_index": -1,
        "state": state,
        "try_number": 0 if begin is None else 1,
        "max_tries": 0,
        "operator": "@task",
        **{name: None if seconds is None else at(seconds).isoformat() for name, seconds in moments.items()},
        "duration": None if end is None else end - begin,
        "pool": "default_pool",
        "label": None,
        "group": None,
        **facts,
    }


def mapped(task_id, *states, begin=1.0, end=2.0, **facts):
    """Return the instances of a mapped task in these states."""
    done = ("success", "failed")
    return [
        task(
            task_id,
            state,
            begin if state in (*done, "running") else None,
            end if state in done else None,
            map_index=index,
            **facts,
        )
        for index, state in enumerate(states)
    ]


def snapshot(*tasks, state="running", end=None, **facts):
    return {
        "dag_id": "etl",
        "run_id": "manual__2026-01-01",
        "workflow_id": "airflow-etl-manual__2026-01-01",
        "state": state,
        "start_date": START.isoformat(),
        "end_date": None if end is None else at(end).isoformat(),
        "version": "1",
        "tasks": list(tasks),
        "links": {"temporal": "http://127.0.0.1:8233/namespaces/default/workflows/airflow-etl"},
        **facts,
    }
