"""The page of a run in Airflow's UI that shows what Temporal does with it.

Airflow's API server serves it, and never asks Temporal: everything comes from Airflow's database, where the worker and
the outbox record it. The page is shown in a frame of Airflow's UI and reloads itself while the run may change.

Each request has a session of its own and writes nothing. Texts from the database are escaped where they become HTML.
"""

from __future__ import annotations

from datetime import datetime
from importlib.resources import files
from string import Template
from typing import Any, NamedTuple

from airflow._shared.timezones import timezone
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import DagAccessEntity, requires_access_dag
from airflow.models.dagrun import DagRun
from airflow.utils.state import DagRunState, State
from fastapi import Depends, FastAPI, HTTPException, Request, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from starlette.exceptions import HTTPException as AnyHTTPException

from temporal_airflow_nb.airflow_plugin.temporal_ui import ui_url, workflow_url
from temporal_airflow_nb.config.environment import workflow_id
from temporal_airflow_nb.display.templates import to_markup
from temporal_airflow_nb.errors import InvalidInputError
from temporal_airflow_nb.orchestration.outbox import outbox, tables, worker_registry, workflow_records
from temporal_airflow_nb.orchestration.outbox.managed_runs import is_managed
from temporal_airflow_nb.orchestration.outbox.tables import missing_columns

app = FastAPI(title="Temporal in Airflow", docs_url=None, redoc_url=None, openapi_url=None)


class _View(NamedTuple):
    """The content of a run's page; ``text`` and ``facts`` are HTML."""

    mood: str
    title: str
    text: str
    facts: dict[str, str]
    link: str
    live: bool


@app.get(
    "/run",
    response_class=HTMLResponse,
    dependencies=[Depends(requires_access_dag("GET", DagAccessEntity.RUN))],
)
def run_page(dag_id: str, run_id: str, session: SessionDep) -> HTMLResponse:
    """Return the page of a run."""
    run = session.scalar(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
    if run is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, f"DAG {dag_id!r} has no run {run_id!r}.")
    try:
        return _page(_view(run, session))
    except DBAPIError:
        # On PostgreSQL, the failed transaction accepts no further query.
        session.rollback()
        if not missing_columns(session.connection()):
            raise
    text = "The tables of temporal-airflow-nb are missing. Create them with <code>airflow db migrate</code>."
    return _page(_View("bad", "Not known", text, {}, "", live=False))


@app.exception_handler(AnyHTTPException)
def _show_error(_: Request, error: AnyHTTPException) -> HTMLResponse:
    title, text = {
        401: ("You are not logged in", "Log in to Airflow and open this page again."),
        403: ("You may not see this run", "Ask for the permission to read the runs of its DAG."),
        404: ("No such run", to_markup(error.detail)),
    }.get(error.status_code, ("This page can't be shown", to_markup(error.detail)))
    return _page(_View("bad", title, text, {}, "", live=False), error.status_code)


@app.exception_handler(RequestValidationError)
def _show_missing_parameters(_: Request, __: RequestValidationError) -> HTMLResponse:
    view = _View(
        "bad", "No run is named", "The address has to contain dag_id and run_id.", {}, "", live=False
    )
    return _page(view, status.HTTP_422_UNPROCESSABLE_ENTITY)


def _view(run: DagRun, session: Session) -> _View:
    execution = workflow_records.get_record(run.dag_id, run.run_id, session)
    managed = is_managed(run.dag_id, run.run_id, session)
    if execution is None and not managed:
        if run.state == DagRunState.QUEUED:
            text = "Temporal takes the run over when it starts, if it executes runs of this DAG."
            return _View("warn", "Queued in Airflow", text, {}, "", live=True)
        text = "Airflow's own scheduler executes this run, or has executed it."
        return _View(
            "", "Not executed by Temporal", text, {}, "", live=run.state not in State.finished_dr_states
        )
    worker = worker_registry.get_last_seen_worker(session)
    facts = {"Workflow": _code(workflow_id(run.dag_id, run.run_id))}
    if execution is not None:
        facts |= {
            "Temporal run": _code(execution.temporal_run_id),
            "Namespace": to_markup(execution.namespace),
            "Task queue": to_markup(execution.task_queue),
            "Started": _time(execution.started_at),
        }
        if execution.ended_at is not None:
            facts["Ended"] = _time(execution.ended_at)
    facts["Workers"] = _describe_workers(session) or _last_seen(worker)
    query = f'AirflowDagId="{run.dag_id}" AND AirflowRunId="{run.run_id}"'
    facts["In Temporal, search for"] = _code(query)
    link = ""
    if execution is not None:
        try:
            ui = ui_url(worker and worker.address)
            link = workflow_url(ui, execution._mapping) if ui else ""
        except InvalidInputError as error:
            facts["Link"] = to_markup(str(error))
    live = managed or run.state not in State.finished_dr_states
    mood, title, text = _describe_status(run, execution, managed, session)
    return _View(mood, title, text, facts, link, live)


def _describe_status(run: DagRun, execution: Any, managed: bool, session: Session) -> tuple[str, str, str]:
    if not managed and run.state in State.finished_dr_states:
        mood = "good" if run.state == DagRunState.SUCCESS else "bad"
        return mood, f"Ended: {run.state}", "Temporal has executed this run."
    if not managed:
        return (
            "warn",
            "Queued in Airflow",
            "Temporal has executed this run before, and takes it over when it starts again.",
        )
    waits_since = session.scalar(
        select(func.min(tables.outbox.c.created_at)).where(
            tables.outbox.c.dag_id == run.dag_id,
            tables.outbox.c.run_id == run.run_id,
            tables.outbox.c.kind == outbox.START,
        )
    )
    trouble = _find_trouble(session)
    if waits_since is not None:
        text = f"The run has waited in Airflow's database since {_time(waits_since)}. {trouble}"
        return "bad" if trouble else "warn", "Waits to be handed to Temporal", text
    if execution is None or execution.ended_at is not None:
        return "bad" if trouble else "warn", "Handed to Temporal", trouble or "A worker is about to start it."
    if trouble:
        return "bad", "Running, with trouble", trouble
    return "good", "Running", "Temporal executes this run."


def _find_trouble(session: Session) -> str:
    """Return the reason why runs make no progress, as HTML, or an empty string."""
    live = worker_registry.list_live_workers(session)
    if not live:
        return (
            "No worker is running. Last worker seen: "
            f"{_last_seen(worker_registry.get_last_seen_worker(session))}. "
            "Start one with <code>temporal-airflow worker</code>."
        )
    if any(worker.error is None for worker in live):
        return ""
    first = min(live, key=lambda worker: worker.error_since)
    return (
        f"Temporal at {to_markup(first.address)} has been out of reach since {_time(first.error_since)}: "
        f"{to_markup(first.error)}. The run goes on when Temporal answers."
    )


def _describe_workers(session: Session) -> str:
    return "<br>".join(
        f"{to_markup(worker.identity)} at {to_markup(worker.address)}, seen {_last_seen(worker)}"
        for worker in worker_registry.list_live_workers(session)
    )


def _last_seen(worker: Any) -> str:
    if worker is None:
        return "never"
    seconds = max(0, (timezone.utcnow() - worker.seen_at).total_seconds())
    return "just now" if seconds < worker_registry.LIVE_WITHIN.total_seconds() else _time(worker.seen_at)


def _time(moment: datetime) -> str:
    return f"<time>{moment:%Y-%m-%d %H:%M:%S} UTC</time>"


def _code(text: str) -> str:
    return f"<code>{to_markup(text)}</code>"


def _page(view: _View, code: int = status.HTTP_200_OK) -> HTMLResponse:
    facts = "\n".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in view.facts.items())
    content = [f'<h1 class="{view.mood}">{to_markup(view.title)}</h1>', f"<p>{view.text}</p>"]
    content += [f"<dl>{facts}</dl>"] if facts else []
    if view.link:
        content.append(
            f'<a href="{to_markup(view.link)}" target="_blank" rel="noopener noreferrer">Open in Temporal</a>'
        )
    source = files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    html = Template(source).substitute(content="\n".join(content), live=str(view.live).lower())
    return HTMLResponse(html, code, headers={"Cache-Control": "no-store"})
