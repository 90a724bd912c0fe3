"""The Airflow plugin, which the scheduler and the API server load."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from temporal_airflow_nb.airflow_plugin.links import PREFIX, RUN_TAB, TemporalLink, run_pages
from temporal_airflow_nb.airflow_plugin.startup import on_plugins_loaded
from temporal_airflow_nb.config.environment import serves_own_pages_only
from temporal_airflow_nb.foreign_requests import ForeignRequestFilter
from temporal_airflow_nb.orchestration.outbox.rollout import is_enabled


class TemporalPlugin(AirflowPlugin):  # type: ignore[misc]
    """Links to Temporal, and the hooks in the scheduler."""

    name = "temporal"

    # Evaluated once, when the class is created: without the setting, Airflow finds no links here.
    if is_enabled():
        global_operator_extra_links = [TemporalLink()]
        fastapi_apps = [{"app": run_pages, "url_prefix": PREFIX, "name": "Temporal"}]
        external_views = [RUN_TAB]
    if serves_own_pages_only():
        fastapi_root_middlewares = [
            {
                "middleware": ForeignRequestFilter,
                "kwargs": {"own_user_only": True},
                "name": "Refuses pages of other sites, and other users",
            }
        ]

    @classmethod
    def on_load(cls, *_: Any, **__: Any) -> None:
        """Install the hooks that this process needs."""
        on_plugins_loaded()
