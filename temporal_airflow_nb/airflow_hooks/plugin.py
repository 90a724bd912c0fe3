"""The plugin: what the scheduler and the API server load."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from temporal_airflow_nb.airflow_hooks.start import on_plugins


class TemporalPlugin(AirflowPlugin):
    """Links to Temporal, and the start of the hooks in the scheduler."""

    name = "temporal"

    @classmethod
    def on_load(cls, *_: Any, **__: Any) -> None:
        """Start what this process needs."""
        on_plugins()
