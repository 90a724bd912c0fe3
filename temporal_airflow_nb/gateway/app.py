"""The gateway, an HTTP server through which notebooks and commands use a process with Airflow.

The gateway runs in a thread of the worker process, with its own event loop; the worker's loop is in the main thread.
Routes that are plain functions run in the threads of FastAPI's pool, several at a time; what they share
(:class:`Submissions`, the grid's views, the tails of logs) is safe in threads. Each request carries the stack's
token, which is checked before the body is read. The shapes of requests and answers are in
:mod:`temporal_airflow_nb.messages`.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import threading
from collections.abc import Callable, Mapping

import structlog
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from temporalio.client import Client

from temporal_airflow_nb.errors import InvalidInputError, TemporalAirflowError
from temporal_airflow_nb.foreign_requests import ForeignRequestFilter
from temporal_airflow_nb.gateway import grid_routes, queries, run_actions, table_routes
from temporal_airflow_nb.gateway.long_poll import long_poll
from temporal_airflow_nb.gateway.request_limits import BodyLimit, TimedProtocol
from temporal_airflow_nb.gateway.routing import encoded, operation
from temporal_airflow_nb.gateway.submission import Submissions
from temporal_airflow_nb.messages.requests import (
    CancelRun,
    CheckFile,
    ClearTasks,
    ListRuns,
    MarkTasks,
    RespondToTask,
    RunRef,
    SubmitFile,
    TryRef,
    WatchRun,
)
from temporal_airflow_nb.messages.runs import RunList
from temporal_airflow_nb.messages.services import Pong, Queues, Schedules
from temporal_airflow_nb.messages.tasks import XComList
from temporal_airflow_nb.orchestration.schedules import records
from temporal_airflow_nb.orchestration.scheduling import airflow_queues
from temporal_airflow_nb.orchestration.workflow.models import FINAL_RUN_STATES
from temporal_airflow_nb.stack.services.ports import LOOPBACK
from temporal_airflow_nb.tasks.database import reading

log = structlog.get_logger(__name__)

_STATUS = {1: 500, 2: 400, 3: 503}


def application(
    token: str,
    submissions: Submissions,
    pages: Callable[[], Mapping[str, str]],
    temporal: Client | None = None,
) -> FastAPI:
    """Return the gateway's application.

    Parameters
    ----------
    token
        Every request must carry it.
    submissions
        Stores and runs DAG files.
    pages
        Returns the addresses of UIs, by name.
    temporal
        The worker's client of Temporal; None in a process that has no worker.
    """
    app = FastAPI(openapi_url=None)
    # The last one sees a request first.
    app.add_middleware(BodyLimit, refuse=_refusal)
    app.add_middleware(_TokenCheck, token=token)
    app.add_middleware(ForeignRequestFilter)
    _add_error_handlers(app)

    @operation(app, "ping")
    def ping() -> Response:
        from airflow import __version__

        answer: Pong = {"pid": os.getpid(), "airflow": str(__version__)}
        return encoded(answer)

    @operation(app, "check_file")
    def check_file(request: CheckFile) -> Response:
        return encoded(submissions.check(request.path))

    @operation(app, "reload_folders")
    def reload_folders() -> Response:
        submissions.reload_folders()
        return encoded({})

    @operation(app, "submit_file")
    def submit_file(request: SubmitFile) -> Response:
        return encoded(submissions.submit(request))

    @operation(app, "get_run")
    def get_run(request: RunRef) -> Response:
        return encoded(queries.snapshot(request.dag_id, request.run_id, pages()))

    # A coroutine, because it waits for seconds: as a plain function, it would keep a thread of the pool meanwhile.
    @operation(app, "watch_run")
    async def watch_run(request: WatchRun) -> Response:
        await long_poll(lambda: (None, _has_changed(request)), request.timeout)
        return await run_in_threadpool(get_run, request)

    @operation(app, "list_runs")
    def list_runs(request: ListRuns) -> Response:
        answer: RunList = {"runs": queries.runs(request.dag_id, request.limit)}
        return encoded(answer)

    @operation(app, "list_xcoms")
    def list_xcoms(request: RunRef) -> Response:
        answer: XComList = {"xcoms": queries.xcoms(request.dag_id, request.run_id)}
        return encoded(answer)

    @operation(app, "get_log")
    def get_log(request: TryRef) -> Response:
        return encoded(queries.log(request))

    @operation(app, "get_queues")
    async def get_queues() -> Response:
        waiting = await run_in_threadpool(airflow_queues.count_waiting_tasks)
        # The worker's loop connected this client. It may be used here: a request of the SDK belongs to the loop that
        # awaits it.
        unserved = await airflow_queues.list_unserved(temporal, waiting) if temporal is not None else []
        answer: Queues = {"waiting": waiting, "unserved": unserved}
        return encoded(answer)

    @operation(app, "get_schedules")
    def get_schedules() -> Response:
        with reading() as session:
            answer: Schedules = {
                "unscheduled": dict(records.list_unscheduled(session)),
                "report": records.describe(session),
            }
        return encoded(answer)

    @operation(app, "respond_to_task")
    def respond_to_task(request: RespondToTask) -> Response:
        # Not at the top: this imports the application of Airflow's API server, which few stacks need.
        from temporal_airflow_nb.gateway import human_input

        return encoded(human_input.respond(request))

    @operation(app, "cancel_run")
    def cancel_run(request: CancelRun) -> Response:
        return encoded(run_actions.cancel(request))

    @operation(app, "mark_tasks")
    def mark_tasks(request: MarkTasks) -> Response:
        return encoded(run_actions.mark(request))

    @operation(app, "clear_tasks")
    def clear_tasks(request: ClearTasks) -> Response:
        return encoded(run_actions.clear(request))

    table_routes.add_routes(app, temporal)
    grid_routes.add_routes(app, pages)
    return app


def _add_error_handlers(app: FastAPI) -> None:
    """Answer errors with JSON, from which the client makes an error of the same class."""

    def known(_: Request, error: Exception) -> Response:
        assert isinstance(error, TemporalAirflowError)
        return _error_response(error)

    def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        wrong = error.errors()[0]
        name = ".".join(str(part) for part in wrong["loc"][1:])
        called = request.url.path.rpartition("/")[2]
        return _error_response(
            InvalidInputError(
                f"`{called}` can't take {wrong['input']!r} as {name}: {wrong['msg']}.",
                hint="Correct the argument.",
            )
        )

    def unexpected(request: Request, error: Exception) -> Response:
        log.error("Request failed", path=request.url.path, exc_info=error)
        return _error_response(
            TemporalAirflowError(
                f"{type(error).__name__}: {error}",
                hint="This is a fault of temporal_airflow_nb; the worker's log has the details.",
            )
        )

    # The last one is for faults of this package: without it, the client would get a text instead of JSON.
    app.add_exception_handler(TemporalAirflowError, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, unexpected)


def _error_response(error: TemporalAirflowError, status: int | None = None) -> Response:
    return JSONResponse({"error": error.to_dict()}, status_code=status or _STATUS[error.exit_code])


def _refusal(status: int, why: str, hint: str) -> Response:
    return _error_response(InvalidInputError(why, hint=hint), status)


class _TokenCheck:
    """Refuses requests without the stack's token, before their body is read.

    Every user of this machine can reach the port, and so can every page in a browser on it.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The time of this comparison doesn't depend on the number of equal characters.
        if scope["type"] == "http" and not hmac.compare_digest(
            dict(scope["headers"]).get(b"authorization", b""), self._expected
        ):
            error = InvalidInputError("This stack belongs to another user.", hint="Use another state folder.")
            await _error_response(error, 401)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _has_changed(watched: WatchRun) -> bool:
    if watched.until_ended:
        return queries.run_state(watched.dag_id, watched.run_id) in FINAL_RUN_STATES
    return queries.version(watched.dag_id, watched.run_id) != watched.after


class Gateway:
    """Serves the application on a loopback port, in its own thread.

    :meth:`start` and :meth:`stop` are called in the worker's event loop, in the main thread.
    """

    def __init__(self, app: FastAPI, port: int) -> None:
        # Requests that wait for a change would delay the end of the process for longer than a second.
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                host=LOOPBACK,
                port=port,
                http=TimedProtocol,
                ws="none",
                log_level="warning",
                timeout_graceful_shutdown=1,
            )
        )
        # Outside the main thread, uvicorn handles no signals: they are left to `process.py`.
        self._thread = threading.Thread(target=self._server.run, name="gateway", daemon=True)

    async def start(self) -> None:
        """Start serving; return as soon as the port answers."""
        self._thread.start()
        while not self._server.started:
            # uvicorn ends its thread if it can't bind the port. The manager, which chose it, tries another one.
            if not self._thread.is_alive():
                raise InvalidInputError("The gateway's port is taken.", hint="Start the stack again.")
            await asyncio.sleep(0.01)

    def stop(self) -> None:
        """Ask the server to end; don't wait, because the process ends anyway."""
        self._server.should_exit = True
