"""Install the hooks in the processes of a stock Airflow, at two points of their start.

``on_settings_loaded`` runs in every process, before Airflow's models are loaded: it makes changes of runs visible to
the worker. ``on_plugins_loaded`` runs where Airflow loads plugins: in the scheduler it also installs the filters, and
runs the self-test before the first loop. A worker process calls ``session_listeners.disable`` before: its listeners
write nothing, and it gets no filters.
"""

from __future__ import annotations

import logging
import sys
from typing import NoReturn

from temporal_airflow_nb.airflow_plugin import scheduler_filters, session_listeners
from temporal_airflow_nb.errors import TemporalAirflowError

log = logging.getLogger(__name__)

_tested = False

_SCHEDULER = "airflow.jobs.scheduler_job_runner"


def on_settings_loaded() -> None:
    """Listen for changes of runs from the first session on, if Temporal is configured."""
    from temporal_airflow_nb.orchestration.outbox.rollout import is_enabled

    if is_enabled():
        session_listeners.install()


def on_plugins_loaded() -> None:
    """
    Install the hooks of this process; end a scheduler whose configuration is invalid.

    If Temporal is switched off, it still finishes the runs that it executes: until then the hooks stay installed.
    """
    if session_listeners.is_disabled():
        return
    # A process that has loaded this module may run a scheduler, whatever its command is.
    is_scheduler = _SCHEDULER in sys.modules
    try:
        from temporal_airflow_nb.orchestration.outbox.rollout import configured_rollout

        is_on = configured_rollout() is not None
        if not is_on and not _has_unfinished_runs():
            return
        session_listeners.install()
        if is_scheduler:
            scheduler_filters.install()
            scheduler_filters.call_before_scheduling(before_scheduling)
    except TemporalAirflowError as error:
        # A scheduler without the hooks would run tasks a second time. It ends by SystemExit, because Airflow only logs
        # an Exception of a plugin. Other commands go on: a user may need them to correct the configuration.
        if _is_command("scheduler"):
            exit_with_error(error)
        log.error("%s", error)
    else:
        # Now rather than in the scheduler's job: `execute_job` treats SystemExit as success, and the process would end
        # with exit code 0.
        if _is_command("scheduler"):
            before_scheduling()


def _is_command(name: str) -> bool:
    return sys.argv[1:2] == [name]


def before_scheduling() -> None:
    """Run the self-test once, before the scheduler's loop; end the process if it fails."""
    global _tested
    from temporal_airflow_nb.airflow_plugin import selftest
    from temporal_airflow_nb.orchestration.outbox.rollout import configured_rollout

    if _tested:
        return
    try:
        selftest.run()
        _tested = True
        rollout = configured_rollout()
    except TemporalAirflowError as error:
        exit_with_error(error)
    if rollout is None:
        log.warning("Temporal is switched off; it still finishes the runs that it executes.")
    else:
        log.info("Temporal executes the runs of these DAGs: %s", rollout)


def exit_with_error(error: TemporalAirflowError) -> NoReturn:
    """End this process with an error message and the error's exit code."""
    print(f"Error: {error}", file=sys.stderr, flush=True)
    raise SystemExit(error.exit_code)


def _has_unfinished_runs() -> bool:
    from airflow import settings
    from sqlalchemy import inspect

    from temporal_airflow_nb.orchestration.outbox import managed_runs, tables
    from temporal_airflow_nb.tasks.database import reading

    # In the process of a task, Airflow's `block_orm_access` has removed the engine.
    engine = getattr(settings, "engine", None)
    if engine is None or not inspect(engine).has_table(tables.managed_runs.name):
        return False
    with reading() as session:
        return bool(managed_runs.list_unfinished_runs(session))
