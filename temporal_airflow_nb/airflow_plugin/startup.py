"""What each process of Airflow does at its start, by whether Temporal executes runs in it."""

from __future__ import annotations

import logging
import sys

from temporal_airflow_nb.airflow_plugin import scheduler_filters, session_listeners
from temporal_airflow_nb.errors import TemporalAirflowError

log = logging.getLogger(__name__)

_tested = False

_SCHEDULER = "airflow.jobs.scheduler_job_runner"


def on_settings_loaded() -> None:
    """Listen for changes of runs from the first session on, where the configuration says so."""
    from temporal_airflow_nb.orchestration.outbox.rollout import is_enabled

    if is_enabled():
        session_listeners.install()


def on_plugins_loaded() -> None:
    """
    Prepare the scheduler; refuse to go on in one whose configuration can't be used.

    Where Temporal is switched off, what it still executes ends with it.
    """
    if session_listeners.is_disabled():
        return
    is_scheduler = _SCHEDULER in sys.modules
    try:
        from temporal_airflow_nb.orchestration.outbox.rollout import configured_rollout

        is_on = configured_rollout() is not None
        if not is_on and not _some_are_unfinished():
            return
        session_listeners.install()
        if is_scheduler:
            scheduler_filters.install()
            scheduler_filters.call_before_scheduling(before_scheduling)
    except TemporalAirflowError as error:
        if _is_command("scheduler"):
            stop(error)
        log.error("%s", error)
    else:
        # Airflow makes a success of what ends the process later, in the scheduler's job.
        if _is_command("scheduler"):
            before_scheduling()


def _is_command(name: str) -> bool:
    return sys.argv[1:2] == [name]


def before_scheduling() -> None:
    """Test that the hooks hold, once before the scheduler's loop; end the process if not."""
    global _tested
    from temporal_airflow_nb.airflow_plugin import selftest
    from temporal_airflow_nb.orchestration.outbox.rollout import configured_rollout

    if _tested:
        return
    try:
        selftest.run()
        _tested = True
        chosen = configured_rollout()
    except TemporalAirflowError as error:
        stop(error)
    if chosen is None:
        log.warning("Temporal is switched off; the runs that it executes still end with it.")
    else:
        log.info("Temporal executes the runs of these DAGs: %s", chosen)


def stop(error: TemporalAirflowError) -> None:
    """End this process with an error message and the error's exit code."""
    print(f"Error: {error}", file=sys.stderr, flush=True)
    raise SystemExit(error.exit_code)


def _some_are_unfinished() -> bool:
    from airflow import settings
    from sqlalchemy import inspect

    from temporal_airflow_nb.orchestration.outbox import managed_runs, tables
    from temporal_airflow_nb.tasks.database import reading

    # A process of a task may not look at the database.
    engine = getattr(settings, "engine", None)
    if engine is None or not inspect(engine).has_table(tables.managed_runs.name):
        return False
    with reading() as session:
        return bool(managed_runs.list_unfinished_runs(session))
