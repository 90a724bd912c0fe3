"""Answers to tasks that wait for a person, given as Airflow's REST API takes them."""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence
from typing import Any

from airflow.api_fastapi.app import create_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.api_fastapi.core_api.datamodels.hitl import UpdateHITLDetailPayload
from airflow.api_fastapi.core_api.routes.public.hitl import update_hitl_detail
from fastapi import HTTPException
from pydantic import ValidationError

from temporal_airflow_nb.errors import InvalidInputError, RunNotFoundError
from temporal_airflow_nb.gateway.lookup import find_run, find_try
from temporal_airflow_nb.orchestration.outbox import outbox
from temporal_airflow_nb.tasks.database import reading, transaction

_NOT_FOUND = 404
_CONFLICT = 409


def respond(
    dag_id: str,
    run_id: str,
    task_id: str,
    map_index: int,
    options: Sequence[str],
    params_input: Mapping[str, Any],
) -> dict[str, Any]:
    """
    Answer the question of a task, in the name of the user who runs this process.

    Returns
    -------
    dict
        The answer as Airflow has recorded it.

    Raises
    ------
    RunNotFoundError
        There is no such task, or it hasn't asked anything.
    InvalidInputError
        The answer isn't one of those that the task allows, or it has one already.
    """
    with reading() as session:
        find_try(find_run(dag_id, run_id, session), task_id, map_index, None, session)
    create_auth_manager()
    user: Any = SimpleAuthManagerUser(username=getpass.getuser(), role="admin")
    where = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id}
    try:
        answer = UpdateHITLDetailPayload(chosen_options=list(options), params_input=dict(params_input))
        with transaction() as session:
            recorded = update_hitl_detail(
                dag_id=dag_id,
                dag_run_id=run_id,
                task_id=task_id,
                map_index=map_index,
                update_hitl_detail_payload=answer,
                user=user,
                session=session,
            )
            outbox.notify(dag_id, run_id, outbox.RESYNC, session)
    except ValidationError:
        raise InvalidInputError(
            f"task {task_id!r} needs at least one option as its answer",
            hint="Name one of its options.",
            **where,
        ) from None
    except HTTPException as error:
        if error.status_code == _NOT_FOUND:
            raise RunNotFoundError(
                f"task {task_id!r} of run {run_id!r} doesn't ask anything",
                hint="It can be answered as soon as its state is awaiting_input.",
                **where,
            ) from None
        if error.status_code == _CONFLICT:
            raise InvalidInputError(
                f"task {task_id!r} has been answered already", hint="The first answer counts.", **where
            ) from None
        raise InvalidInputError(
            f"task {task_id!r} doesn't take this answer: {error.detail}",
            hint="Choose one of its options.",
            **where,
        ) from None
    return recorded.model_dump(mode="json")
