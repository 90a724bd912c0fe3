"""Pandas frames of runs, tasks and DAGs: times in UTC, states as categories in Airflow's order, durations."""

from __future__ import annotations

from temporal_airflow_nb.frames.comparison import Comparison
from temporal_airflow_nb.frames.of_run import (
    assets_frame,
    events_frame,
    tasks_frame,
    tries_frame,
    xcoms_frame,
)
from temporal_airflow_nb.frames.of_stack import dags_frame, pools_frame, runs_frame

__all__ = [
    "Comparison",
    "assets_frame",
    "dags_frame",
    "events_frame",
    "pools_frame",
    "runs_frame",
    "tasks_frame",
    "tries_frame",
    "xcoms_frame",
]
