"""Answers tasks that wait for a person, by the function behind Airflow's REST API.

Runs in a thread of the gateway's pool. One transaction contains the answer and the message that makes the run's
workflow read it. Every ``HTTPException`` of Airflow leaves the transaction, which is then rolled back.
"""

from __future__ import annotations

import getpass
from typing import Any, cast

from airflow.api_fastapi.app import create_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.api_fastapi.core_api.datamodels.hitl import UpdateHITLDetailPayload
from airflow.api_fastapi.core_api.routes.public.hitl import update_hitl_detail
from fastapi import HTTPException
from pydantic import ValidationError

from temporal_airflow_nb.errors import InvalidInputError, RunNotFoundError
from temporal_airflow_nb.gateway.lookup import find_run, find_try
from temporal_airflow_nb.messages.requests import RespondToTask
from temporal_airflow_nb.messages.runs import HumanAnswer
from temporal_airflow_nb.orchestration.outbox import outbox
from temporal_airflow_nb.tasks.database import reading, transaction

_NOT_FOUND = 404
_CONFLICT = 409


def respond(request: RespondToTask) -> HumanAnswer:
    """
    Answer a task, in the name of the user who runs this process.

    Returns
    -------
    dict
        The answer as Airflow has recorded it.

    Raises
    ------
    RunNotFoundError
        There is no such task, or it doesn't ask for an answer.
    InvalidInputError
        The task doesn't take this answer, or has been answered already.
    """
    dag_id, run_id, task_id = request.dag_id, request.run_id, request.task_id
    with reading() as session:
        find_try(find_run(dag_id, run_id, session), task_id, request.map_index, None, session)
    # The function needs the auth manager, which otherwise only Airflow's API server creates. Airflow caches it.
    create_auth_manager()
    # The stack's token has shown that the caller is the user who runs this process.
    user: Any = SimpleAuthManagerUser(username=getpass.getuser(), role="admin")
    where = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id}
    try:
        answer = UpdateHITLDetailPayload(
            chosen_options=list(request.options), params_input=request.params_input or {}
        )
        with transaction() as session:
            recorded = update_hitl_detail(
                dag_id=dag_id,
                dag_run_id=run_id,
                task_id=task_id,
                map_index=request.map_index,
                update_hitl_detail_payload=answer,
                user=user,
                session=session,
            )
            outbox.notify(dag_id, run_id, outbox.RESYNC, session)
    except ValidationError:
        raise InvalidInputError(
            f"Task {task_id!r} needs at least one option as its answer.",
            hint="Name one of its options.",
            **where,
        ) from None
    except HTTPException as error:
        if error.status_code == _NOT_FOUND:
            raise RunNotFoundError(
                f"Task {task_id!r} of run {run_id!r} doesn't ask for an answer.",
                hint="It can be answered as soon as its state is awaiting_input.",
                **where,
            ) from None
        if error.status_code == _CONFLICT:
            raise InvalidInputError(
                f"Task {task_id!r} of run {run_id!r} has been answered already.",
                hint="The first answer counts.",
                **where,
            ) from None
        raise InvalidInputError(
            f"Task {task_id!r} doesn't take this answer: {error.detail}.",
            hint="Choose one of its options.",
            **where,
        ) from None
    return cast("HumanAnswer", recorded.model_dump(mode="json"))
