"""The frames of a whole stack: its runs, DAGs and pools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporal_airflow_nb.frames.columns import (
    ANYTHING,
    FLAG,
    MOMENT,
    NUMBER,
    RUN_STATE,
    SOME_NUMBER,
    SPAN,
    TEXT,
    frame_of,
)

if TYPE_CHECKING:
    import pandas as pd

    from temporal_airflow_nb.messages.tables import Table

_RUNS = {
    "dag_id": TEXT,
    "run_id": TEXT,
    "state": RUN_STATE,
    "run_type": TEXT,
    "logical_date": MOMENT,
    "run_after": MOMENT,
    "queued_at": MOMENT,
    "start_date": MOMENT,
    "end_date": MOMENT,
    "duration": SPAN,
    "version": SOME_NUMBER,
    "note": TEXT,
}
_DAGS = {
    "dag_id": TEXT,
    "is_paused": FLAG,
    "schedule": TEXT,
    "next_run": MOMENT,
    "tags": ANYTHING,
    "owners": TEXT,
    "file": TEXT,
    "bundle": TEXT,
    "version": SOME_NUMBER,
    "last_run_id": TEXT,
    "last_run_state": RUN_STATE,
    "last_run_start": MOMENT,
    "has_import_errors": FLAG,
    "description": TEXT,
}
_POOLS = {
    "pool": TEXT,
    "slots": NUMBER,
    "running": NUMBER,
    "queued": NUMBER,
    "scheduled": NUMBER,
    "deferred": NUMBER,
    "open": SOME_NUMBER,
    "include_deferred": FLAG,
    "description": TEXT,
}


def runs_frame(answer: Table, *, dtype_backend: str | None = None) -> pd.DataFrame:
    """Return the table of a stack's runs as a frame; see :class:`temporal_airflow_nb.api.runs.RunCatalog`."""
    frame = frame_of(answer["columns"], _RUNS, dtype_backend)
    frame["duration"] = (frame["end_date"] - frame["start_date"]).astype(frame["duration"].dtype)
    return frame


def dags_frame(answer: Table, *, dtype_backend: str | None = None) -> pd.DataFrame:
    """Return the table of a stack's DAGs as a frame; see :func:`temporal_airflow_nb.dags`."""
    return frame_of(answer["columns"], _DAGS, dtype_backend)


def pools_frame(answer: Table, *, dtype_backend: str | None = None) -> pd.DataFrame:
    """Return the table of a stack's pools as a frame; see :func:`temporal_airflow_nb.pools`."""
    return frame_of(answer["columns"], _POOLS, dtype_backend)
