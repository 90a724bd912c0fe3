"""Airflow's execution API as an application in this process, without HTTP and without API versions.

Airflow's own ``InProcessExecutionAPI`` builds the routes of every API version at its first request, which takes ten
seconds. The client here always has the newest version, so that one version is enough.
"""

from __future__ import annotations

import asyncio
import threading
from functools import cached_property
from uuid import UUID

import httpx
import svcs
from a2wsgi import ASGIMiddleware
from airflow.api_fastapi.common.dagbag import create_dag_bag
from airflow.api_fastapi.common.exceptions import init_error_handlers
from airflow.api_fastapi.execution_api.datamodels.token import TIClaims, TIToken
from airflow.api_fastapi.execution_api.routes import execution_api_router
from airflow.api_fastapi.execution_api.routes.connections import has_connection_access
from airflow.api_fastapi.execution_api.routes.variables import has_variable_access
from airflow.api_fastapi.execution_api.routes.xcoms import has_xcom_access
from airflow.api_fastapi.execution_api.security import _jwt_bearer
from fastapi import FastAPI, Request

TASK_HEADER = "temporal-airflow-task"
_NO_TASK_ID = "00000000-0000-0000-0000-000000000000"


async def _always_allow(request: Request) -> TIToken:
    asking = request.headers.get(TASK_HEADER, _NO_TASK_ID)
    return TIToken(
        id=UUID(request.path_params.get("task_instance_id", asking)), claims=TIClaims(scope="execution")
    )


def build_application() -> FastAPI:
    """Return the API application. It checks no token: only this process can call it, for tasks of this worker."""
    app = FastAPI(openapi_url=None)
    app.include_router(execution_api_router)
    init_error_handlers(app)
    app.state.dag_bag = create_dag_bag()
    app.state.svcs_registry = svcs.Registry()
    for dependency in (_jwt_bearer, has_connection_access, has_variable_access, has_xcom_access):
        app.dependency_overrides[dependency] = _always_allow
    return app


class InProcessTransport(httpx.BaseTransport):
    """Passes the requests of a synchronous client to the application, which is built at the first request."""

    # FastAPI is asynchronous, the supervisors are threads: the application has an event loop in one daemon thread, and
    # each request blocks its caller's thread until the loop has the answer.

    @cached_property
    def _transport(self) -> httpx.WSGITransport:
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, name="execution-api", daemon=True).start()
        return httpx.WSGITransport(app=ASGIMiddleware(build_application(), loop=loop))  # type: ignore[arg-type]

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the application's response to a request."""
        return self._transport.handle_request(request)
