"""The HTTP door of a stack: notebooks and the command line ask a process that has Airflow loaded."""

from __future__ import annotations

import asyncio
import hmac
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Literal

import structlog
import uvicorn
from airflow.models.serialized_dag import SerializedDagModel
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime, BaseModel, Field
from starlette.types import ASGIApp, Receive, Scope, Send
from temporalio.client import Client

from temporal_airflow_nb.errors import InvalidInputError, TemporalAirflowError
from temporal_airflow_nb.gateway import grid_routes, queries, run_actions, table_routes
from temporal_airflow_nb.gateway.long_poll import long_poll
from temporal_airflow_nb.gateway.submission import Submissions, import_stored, warnings_of
from temporal_airflow_nb.orchestration.schedules import records
from temporal_airflow_nb.orchestration.scheduling import airflow_queues
from temporal_airflow_nb.orchestration.workflow.models import FINAL_RUN_STATES
from temporal_airflow_nb.stack.services.ports import LOOPBACK
from temporal_airflow_nb.tasks.database import reading

log = structlog.get_logger(__name__)

_STATUS = {1: 500, 2: 400, 3: 503}


class _Path(BaseModel):
    path: str


class _Backfill(BaseModel):
    start: AwareDatetime = Field(alias="from")
    end: AwareDatetime = Field(alias="to")


class _Submit(_Path):
    dag_id: str | None = None
    launch: bool = True
    conf: dict[str, Any] | None = None
    params: dict[str, Any] | None = None
    worker_lost: Literal["rerun", "fail"] | None = None
    backfill: _Backfill | None = None
    run_id: str | None = None
    logical_date: AwareDatetime | None = None
    connections: str | None = None
    variables: str | None = None


class _RunRef(BaseModel):
    dag_id: str
    run_id: str


class _Watch(_RunRef):
    after: str | None = None
    timeout: float = 30.0
    until_ended: bool = False


class _Logs(_RunRef):
    task_id: str
    map_index: int = -1
    try_number: int | None = None


class _Action(BaseModel):
    dag_id: str
    run_id: str | None = None
    task_ids: list[str] | None = None
    map_indexes: list[int] | None = None
    upstream: bool = False
    downstream: bool = False

    @property
    def tasks(self) -> run_actions.Tasks | None:
        if self.task_ids is None:
            return None
        return run_actions.Tasks(
            self.task_ids, self.map_indexes, upstream=self.upstream, downstream=self.downstream
        )


class _Mark(_Action):
    state: str


class _Clear(_Action):
    only_failed: bool = False
    latest_version: bool | None = None


class _Respond(_RunRef):
    task_id: str
    map_index: int = -1
    options: list[str]
    params_input: dict[str, Any] = {}


class _Runs(BaseModel):
    dag_id: str | None = None
    limit: int = 100


def application(
    token: str,
    submissions: Submissions,
    pages: Callable[[], Mapping[str, str]],
    temporal: Client | None = None,
) -> FastAPI:
    """Return the gateway as an application; every request has to carry ``token``."""
    app = FastAPI(openapi_url=None)
    app.add_middleware(_Guard, token=token)

    @app.exception_handler(TemporalAirflowError)
    def _known(_: Request, error: TemporalAirflowError) -> JSONResponse:
        return JSONResponse({"error": error.to_dict()}, status_code=_STATUS[error.exit_code])

    @app.exception_handler(RequestValidationError)
    def _unfit(request: Request, unfit: RequestValidationError) -> JSONResponse:
        wrong = unfit.errors()[0]
        name = ".".join(str(part) for part in wrong["loc"][1:])
        error = InvalidInputError(
            f"`{request.url.path.rpartition('/')[2]}` can't take {wrong['input']!r} as {name}: {wrong['msg']}."
        )
        return JSONResponse({"error": error.to_dict()}, status_code=_STATUS[error.exit_code])

    @app.exception_handler(Exception)
    def _unknown(request: Request, error: Exception) -> JSONResponse:
        log.error("Request failed", path=request.url.path, exc_info=error)
        message = f"{type(error).__name__}: {error}"
        hint = "This is a fault of temporal_airflow_nb; the worker's log has the details."
        return JSONResponse({"error": {"code": "error", "message": message, "hint": hint}}, status_code=500)

    @app.post("/v1/ping")
    def ping() -> dict[str, Any]:
        from airflow import __version__

        return {"pid": os.getpid(), "airflow": __version__}

    @app.post("/v1/check")
    def check(body: _Path) -> dict[str, Any]:
        dags, findings = submissions.check(body.path)
        return {
            "dags": [
                {
                    "dag_id": dag.dag_id,
                    "task_count": len(dag.data["dag"]["tasks"]),
                    "serialized_hash": SerializedDagModel.hash(dag.data),
                }
                for dag in dags
            ],
            "warnings": warnings_of(dags),
            "findings": [finding.to_dict() for finding in findings],
        }

    @app.post("/v1/folders")
    def folders() -> dict[str, Any]:
        submissions.learn_folders()
        return {}

    @app.post("/v1/submit")
    def submit(body: _Submit) -> dict[str, Any]:
        for kind in ("connections", "variables"):
            if path := getattr(body, kind):
                import_stored(kind, path)
        chosen = {} if body.backfill else {"run_id": body.run_id, "logical_date": body.logical_date}
        done = submissions.submit(
            body.path,
            dag_id=body.dag_id,
            launch=body.launch,
            backfill=(body.backfill.start, body.backfill.end) if body.backfill else None,
            conf=body.conf,
            params=body.params,
            on_worker_lost=body.worker_lost,
            **chosen,
        )
        first = done.run_ids[0] if done.run_ids else None
        return {
            **asdict(done),
            "run_id": first,
            "workflow_id": queries.workflow_id(done.dag_id, first) if first else None,
        }

    @app.post("/v1/run")
    def run(body: _RunRef) -> dict[str, Any]:
        return queries.snapshot(body.dag_id, body.run_id, pages())

    @app.post("/v1/watch")
    async def watch(body: _Watch) -> dict[str, Any]:
        await long_poll(lambda: (None, _has_happened(body)), body.timeout)
        return await run_in_threadpool(queries.snapshot, body.dag_id, body.run_id, pages())

    @app.post("/v1/runs")
    def runs(body: _Runs) -> dict[str, Any]:
        return {"runs": queries.runs(body.dag_id, body.limit)}

    @app.post("/v1/xcoms")
    def xcoms(body: _RunRef) -> dict[str, Any]:
        return {"xcoms": queries.xcoms(body.dag_id, body.run_id)}

    @app.post("/v1/logs")
    def logs(body: _Logs) -> dict[str, Any]:
        return queries.logs(body.dag_id, body.run_id, body.task_id, body.map_index, body.try_number)

    @app.post("/v1/queues")
    async def waiting_queues() -> dict[str, Any]:
        waiting = await run_in_threadpool(airflow_queues.count_waiting_tasks)
        unserved = await airflow_queues.list_unserved(temporal, waiting) if temporal is not None else []
        return {"waiting": waiting, "unserved": unserved}

    @app.post("/v1/schedules")
    def schedules() -> dict[str, Any]:
        with reading() as session:
            return {
                "unscheduled": dict(records.list_unscheduled(session)),
                "report": records.describe(session),
            }

    @app.post("/v1/respond")
    def respond(body: _Respond) -> dict[str, Any]:
        from temporal_airflow_nb.gateway import human_input

        return human_input.respond(**body.model_dump())

    @app.post("/v1/cancel")
    def cancel(body: _Action) -> dict[str, Any]:
        return asdict(run_actions.cancel(body.dag_id, body.run_id))

    @app.post("/v1/mark")
    def mark(body: _Mark) -> dict[str, Any]:
        return asdict(run_actions.mark(body.dag_id, body.run_id, body.state, body.tasks))

    @app.post("/v1/clear")
    def clear(body: _Clear) -> dict[str, Any]:
        done = run_actions.clear(
            body.dag_id,
            body.run_id,
            body.tasks,
            only_failed=body.only_failed,
            latest_version=body.latest_version,
        )
        return asdict(done)

    table_routes.routes(app, temporal)
    grid_routes.routes(app, pages)
    return app


class _Guard:
    """Refuses who hasn't got the token before anything that he sends is read, be it a page that a browser shows."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not hmac.compare_digest(
            dict(scope["headers"]).get(b"authorization", b""), self._expected
        ):
            error = InvalidInputError(
                "This stack belongs to somebody else.", hint="Use a state folder of your own."
            )
            refusal = JSONResponse({"error": error.to_dict()}, status_code=401)
            await refusal(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _has_happened(watch: _Watch) -> bool:
    if watch.until_ended:
        return queries.run_state(watch.dag_id, watch.run_id) in FINAL_RUN_STATES
    return queries.version(watch.dag_id, watch.run_id) != watch.after


class Gateway:
    """The application on a loopback port, in a thread of its own."""

    def __init__(self, app: FastAPI, port: int) -> None:
        self._server = uvicorn.Server(
            uvicorn.Config(
                app, host=LOOPBACK, port=port, ws="none", log_level="warning", timeout_graceful_shutdown=1
            )
        )
        self._thread = threading.Thread(target=self._server.run, name="gateway", daemon=True)

    async def start(self) -> None:
        """Serve; return when the port answers."""
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise InvalidInputError("the gateway's port is taken", hint="Start the stack again.")
            await asyncio.sleep(0.01)

    def stop(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
