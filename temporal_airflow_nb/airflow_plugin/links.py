"""The links from Airflow's UI to Temporal's: one on each task, and a tab on each run.

Airflow's API server calls it; other processes only load it with the plugin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

PREFIX = "/temporal-airflow"

RUN_TAB = {
    "name": "Temporal",
    # Relative to the address of Airflow's UI, which may be served below a path.
    "href": f"{PREFIX[1:]}/run?dag_id={{DAG_ID}}&run_id={{RUN_ID}}",
    "destination": "dag_run",
    "url_route": "temporal",
}


class TemporalLink(BaseOperatorLink):  # type: ignore[misc]
    """The link from a task to the workflow that executes its run; Airflow hides it without one."""

    name = "Temporal"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """Return the address of the workflow's page, or an empty string."""
        from sqlalchemy.exc import SQLAlchemyError

        from temporal_airflow_nb.errors import InvalidInputError

        try:
            return _find_workflow_url(ti_key.dag_id, ti_key.run_id)
        except (InvalidInputError, SQLAlchemyError):
            # Airflow's API collects all links of a task in one request: an error here would lose the others, too.
            return ""


def _find_workflow_url(dag_id: str, run_id: str) -> str:
    from temporal_airflow_nb.airflow_plugin.temporal_ui import ui_url, workflow_url
    from temporal_airflow_nb.orchestration.outbox import worker_registry, workflow_records
    from temporal_airflow_nb.tasks.database import reading

    with reading() as session:
        execution = workflow_records.get_record(dag_id, run_id, session)
        if execution is None:
            return ""
        worker = worker_registry.get_last_seen_worker(session)
    ui = ui_url(worker and worker.address)
    return workflow_url(ui, execution._mapping) if ui else ""


async def run_pages(scope: Any, receive: Any, send: Any) -> None:
    """Serve the pages of runs, as an ASGI application."""
    # Imported here: every process of Airflow loads this module, but only the API server needs FastAPI.
    from temporal_airflow_nb.airflow_plugin.run_page import app

    await app(scope, receive, send)
