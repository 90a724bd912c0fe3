"""The ways from Airflow's UI to Temporal's: a link on each task, a tab on each run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

PREFIX = "/temporal-airflow"

RUN_TAB = {
    "name": "Temporal",
    # Relative to the address of Airflow's UI, whose server may be behind a path.
    "href": f"{PREFIX[1:]}/run?dag_id={{DAG_ID}}&run_id={{RUN_ID}}",
    "destination": "dag_run",
    "url_route": "temporal",
}


class TemporalLink(BaseOperatorLink):
    """Opens the workflow that executes a task's run, or has executed it. Airflow shows no link to nothing."""

    name = "Temporal"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """Return the page of the workflow."""
        from sqlalchemy.exc import SQLAlchemyError

        from temporal_airflow_nb.errors import InvalidInputError

        try:
            return _link(ti_key.dag_id, ti_key.run_id)
        except (InvalidInputError, SQLAlchemyError):
            # Else the links of the task's operator would be lost as well.
            return ""


def _link(dag_id: str, run_id: str) -> str:
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
    """Serve the runs' pages. Only the API server needs what they are made with."""
    from temporal_airflow_nb.airflow_plugin.run_page import app

    await app(scope, receive, send)
