"""Airflow's truth as pandas frames: moments in UTC, states categories in Airflow's order, durations ``Timedelta``."""

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
