"""Airflow DAGs on Temporal, from a notebook cell to a production Airflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from temporal_airflow_nb._version import __version__
from temporal_airflow_nb.api import FUNCTIONS

if TYPE_CHECKING:
    from temporal_airflow_nb import aio
    from temporal_airflow_nb.api.cells import run_cell, write_dag
    from temporal_airflow_nb.api.runs import compare, dags, pools, runs, show
    from temporal_airflow_nb.api.stack import down, status, ui, up
    from temporal_airflow_nb.dag_runs.backfill_runs import BackfillRuns, Runs
    from temporal_airflow_nb.dag_runs.run import Run
    from temporal_airflow_nb.errors import TemporalAirflowError
    from temporal_airflow_nb.stack.connected import connect
    from temporal_airflow_nb.stack.local import LocalStack

__all__ = [
    "BackfillRuns",
    "LocalStack",
    "Run",
    "Runs",
    "TemporalAirflowError",
    "__version__",
    "aio",
    "compare",
    "connect",
    "dags",
    "down",
    "load_ipython_extension",
    "pools",
    "run_cell",
    "runs",
    "show",
    "status",
    "ui",
    "unload_ipython_extension",
    "up",
    "write_dag",
]

_MODULES = {
    "LocalStack": "temporal_airflow_nb.stack.local",
    "Run": "temporal_airflow_nb.dag_runs.run",
    "BackfillRuns": "temporal_airflow_nb.dag_runs.backfill_runs",
    "Runs": "temporal_airflow_nb.dag_runs.backfill_runs",
    "TemporalAirflowError": "temporal_airflow_nb.errors",
    **FUNCTIONS,
}


def load_ipython_extension(ipython: Any) -> None:
    """Register the magics. IPython calls this function for ``%load_ext temporal_airflow_nb``."""
    from temporal_airflow_nb.notebook import load_ipython_extension as load

    load(ipython)


def unload_ipython_extension(ipython: Any) -> None:
    """Remove the magics. IPython calls this function for ``%unload_ext temporal_airflow_nb``."""
    from temporal_airflow_nb.notebook import unload_ipython_extension as unload

    unload(ipython)


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "aio":
        return import_module("temporal_airflow_nb.aio")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Stored, so that Python finds the name without this function from now on.
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
