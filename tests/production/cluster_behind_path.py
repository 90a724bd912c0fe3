"""A cluster whose Airflow is served below a path, and the links in its UI."""

from __future__ import annotations

from pathlib import Path

from temporal_airflow_nb.stack.services import ports
from tests.production.cluster import HERE, Cluster, quoted


def new_cluster(folder: Path) -> Cluster:
    """Return a cluster that isn't started."""
    plugin_settings = {"dags": "*, !native_*"}
    settings = {"temporal_airflow": plugin_settings}
    cluster = Cluster(folder, dags=[HERE / "ui_dags"], settings=settings, path="/behind/a/path")
    plugin_settings["ui_url"] = temporal_ui(cluster)
    return cluster


def temporal_ui(cluster: Cluster) -> str:
    """Return the address of Temporal's UI."""
    return f"http://{ports.LOOPBACK}:{cluster.ports['temporal_ui']}"


def link_of(cluster: Cluster, dag_id: str, run_id: str, task_id: str) -> str | None:
    """Return the address of a task's link to Temporal, or None."""
    path = f"dags/{dag_id}/dagRuns/{quoted(run_id)}/taskInstances/{task_id}/links"
    return cluster.api("GET", path)["extra_links"]["Temporal"]
