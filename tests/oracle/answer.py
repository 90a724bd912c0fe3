"""Answers what tasks of an embedded stack ask a person, with the function behind Airflow's REST API.

Reads a line ``{"dag_id": …, "run_id": …, "task_id": …, "answer": {…}}`` for each answer, and says when it is given.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from airflow.api_fastapi.app import create_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.api_fastapi.core_api.datamodels.hitl import UpdateHITLDetailPayload
from airflow.api_fastapi.core_api.routes.public.hitl import update_hitl_detail

from temporal_airflow_nb.orchestration import outbox
from temporal_airflow_nb.tasks.database import transaction


def answer(dag_id: str, run_id: str, task_id: str, answer: dict[str, Any]) -> None:
    """Answer, and have the run's workflow look."""
    with transaction() as session:
        update_hitl_detail(
            dag_id=dag_id,
            dag_run_id=run_id,
            task_id=task_id,
            update_hitl_detail_payload=UpdateHITLDetailPayload(**answer),
            user=SimpleAuthManagerUser(username="Anonymous", role="ADMIN"),
            session=session,
        )
        outbox.notify(dag_id, run_id, outbox.RESYNC, session)


if __name__ == "__main__":
    create_auth_manager()
    for line in sys.stdin:
        answer(**json.loads(line))
        print("given", flush=True)
