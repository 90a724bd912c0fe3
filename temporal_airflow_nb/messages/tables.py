"""Tables: answers column by column, from which frames are made, and the names of their columns."""

from __future__ import annotations

from typing import Any, Final, TypedDict


class Table(TypedDict):
    """Values by column, all columns of the same length, and that length."""

    columns: dict[str, list[Any]]
    rows: int


TASK_COLUMNS: Final = (
    "task_id",
    "map_index",
    "state",
    "try_number",
    "max_tries",
    "operator",
    "start_date",
    "end_date",
    "duration",
    "queued_dttm",
    "pool",
    "label",
    "group",
)
TRY_COLUMNS: Final = (
    "task_id",
    "map_index",
    "try_number",
    "state",
    "operator",
    "queued_dttm",
    "start_date",
    "end_date",
    "duration",
    "hostname",
    "pool",
    "queue",
)
EVENT_COLUMNS: Final = (
    "event_id",
    "time",
    "type",
    "task_id",
    "map_index",
    "try_number",
    "detail",
    "execution",
)
ASSET_COLUMNS: Final = (
    "direction",
    "asset",
    "uri",
    "group",
    "timestamp",
    "task_id",
    "map_index",
    "source_dag_id",
    "source_run_id",
    "extra",
    "partition_key",
)
RUN_COLUMNS: Final = (
    "dag_id",
    "run_id",
    "state",
    "run_type",
    "logical_date",
    "run_after",
    "queued_at",
    "start_date",
    "end_date",
    "version",
    "note",
)
DAG_COLUMNS: Final = (
    "dag_id",
    "is_paused",
    "schedule",
    "next_run",
    "tags",
    "owners",
    "file",
    "bundle",
    "version",
    "last_run_id",
    "last_run_state",
    "last_run_start",
    "has_import_errors",
    "description",
)
POOL_COLUMNS: Final = (
    "pool",
    "slots",
    "running",
    "queued",
    "scheduled",
    "deferred",
    "open",
    "include_deferred",
    "description",
)
