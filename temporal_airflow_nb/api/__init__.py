"""The public functions of ``import temporal_airflow_nb as ta``."""

from __future__ import annotations

# Public functions and their modules. The package and ``aio`` load them on first use, so that importing the package
# imports neither pandas nor IPython nor Temporal.
FUNCTIONS = {
    **dict.fromkeys(("run_cell", "write_dag"), "temporal_airflow_nb.api.cells"),
    **dict.fromkeys(("compare", "dags", "pools", "runs", "show"), "temporal_airflow_nb.api.runs"),
    **dict.fromkeys(("down", "status", "ui", "up"), "temporal_airflow_nb.api.stack"),
    "connect": "temporal_airflow_nb.stack.connected",
}
