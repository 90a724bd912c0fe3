"""The activity that creates the due runs of a DAG."""

from __future__ import annotations

from temporalio import activity

from temporal_airflow_nb.orchestration.activities import sync_activities
from temporal_airflow_nb.orchestration.schedules import due_runs
from temporal_airflow_nb.orchestration.workflow.models import DueRuns


@activity.defn
@sync_activities.translate_database_errors
def create_due_runs(dag_id: str) -> DueRuns:
    """Create the due runs of a DAG. A repetition, after a worker was lost, creates only those that are missing."""
    return due_runs.create_due_runs(dag_id)
