"""Tests that the private parts of Airflow which this package uses are unchanged.

A failure names the part of Airflow and the module that uses it. Check that module before supporting an Airflow release.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

SUPERVISOR = "airflow.sdk.execution_time.supervisor"
SCHEDULER = "airflow.jobs.scheduler_job_runner:SchedulerJobRunner"
TRIGGERER = "airflow.jobs.triggerer_job_runner"
CALLBACKS = "airflow.sdk.execution_time.callback_supervisor"
SERVICES = "airflow.api_fastapi.core_api.services.public"
TASK_ROUTES = "airflow.api_fastapi.execution_api.routes.task_instances"
XCOM_ROUTES = "airflow.api_fastapi.execution_api.routes.xcoms"

# part of Airflow, parameters that are passed to it, module that passes them
CALLABLES = [
    (f"{SUPERVISOR}:_fork_main", "requests child_stdout child_stderr log_fd target", "tasks/targets.py"),
    (f"{SUPERVISOR}:_child_exec_main", "", "tasks/supervisor.py"),
    (f"{SUPERVISOR}:_configure_logging", "log_path client", "tasks/attempt.py"),
    (f"{SUPERVISOR}:_configure_logs_over_json_channel", "log_fd", "tasks/preload.py"),
    (f"{SUPERVISOR}:ProcessTracker.wait", "self timeout", "tasks/zygotes.py"),
    (
        f"{SUPERVISOR}:ActivitySubprocess._register_pipe_readers",
        "stdout stderr requests logs data",
        "tasks/supervisor.py",
    ),
    (
        f"{SUPERVISOR}:ActivitySubprocess._on_child_started",
        "ti dag_rel_path bundle_info sentry_integration",
        "tasks/supervisor.py",
    ),
    (f"{SUPERVISOR}:ActivitySubprocess._monitor_subprocess", "self", "tasks/supervisor.py"),
    (f"{SUPERVISOR}:ActivitySubprocess._send_heartbeat_if_needed", "self", "tasks/supervisor.py"),
    (f"{SUPERVISOR}:ActivitySubprocess._send_terminal_state_msg", "self msg", "tasks/supervisor.py"),
    (f"{SUPERVISOR}:ActivitySubprocess.update_task_state_if_needed", "self", "tasks/supervisor.py"),
    (f"{SUPERVISOR}:ActivitySubprocess._upload_logs", "self", "tasks/supervisor.py"),
    (f"{SUPERVISOR}:ActivitySubprocess.kill", "signal_to_send escalation_delay force", "tasks/supervisor.py"),
    ("airflow.sdk.execution_time.coordinator:get_coordinator_manager", "", "tasks/attempt.py"),
    ("airflow.dag_processing.processor:_parse_file_entrypoint", "", "tasks/targets.py"),
    (
        "airflow.dag_processing.processor:DagFileProcessorProcess._on_child_started",
        "callbacks path bundle_path bundle_name",
        "tasks/supervisor.py",
    ),
    (
        "airflow.dag_processing.collection:update_dag_parsing_results_in_db",
        "bundle_name bundle_version dags import_errors parse_duration warnings session files_parsed version_data",
        "gateway/submission.py",
    ),
    ("airflow.dag_processing.bundles.base:unpack_bundle_version", "result bundle", "gateway/submission.py"),
    ("airflow.dag_processing.dagbag:_validate_executor_fields", "dag bundle_name", "tasks/preload.py"),
    ("airflow.utils.db_manager:BaseDBManager.check_migration", "self", "airflow_plugin/tables.py"),
    ("airflow.utils.db_manager:BaseDBManager.initdb", "self", "airflow_plugin/tables.py"),
    ("airflow.utils.db_manager:BaseDBManager.upgradedb", "self", "airflow_plugin/tables.py"),
    ("airflow.utils.db_manager:BaseDBManager.drop_tables", "self connection", "airflow_plugin/tables.py"),
    (
        "airflow.api_fastapi.core_api.security:requires_access_dag",
        "method access_entity",
        "airflow_plugin/run_page.py",
    ),
    ("airflow.cli.commands.connection_command:_import_helper", "overwrite", "gateway/submission.py"),
    (
        f"{TASK_ROUTES}:ti_run",
        "task_instance_id ti_run_payload response session dag_bag services token",
        "tasks/client.py",
    ),
    (
        f"{TASK_ROUTES}:ti_update_state",
        "task_instance_id ti_patch_payload session dag_bag",
        "tasks/client.py",
    ),
    (f"{TASK_ROUTES}:ti_heartbeat", "task_instance_id ti_payload session", "tasks/client.py"),
    (f"{TASK_ROUTES}:ti_put_rtif", "task_instance_id put_rtif_payload session", "tasks/client.py"),
    (f"{TASK_ROUTES}:ti_skip_downstream", "task_instance_id ti_patch_payload session", "tasks/client.py"),
    (f"{XCOM_ROUTES}:set_xcom", "dag_id run_id task_id key session value", "tasks/client.py"),
    (f"{XCOM_ROUTES}:get_xcom", "dag_id run_id task_id key session params", "tasks/client.py"),
    (f"{XCOM_ROUTES}:delete_xcom", "dag_id run_id task_id key session", "tasks/client.py"),
    (
        f"{XCOM_ROUTES}:get_mapped_xcom_by_index",
        "dag_id run_id task_id key offset session",
        "tasks/client.py",
    ),
    (
        f"{XCOM_ROUTES}:get_mapped_xcom_by_slice",
        "dag_id run_id task_id key params session",
        "tasks/client.py",
    ),
    (
        f"{SCHEDULER}.process_executor_events",
        "executor job_id scheduler_dag_bag session",
        "tasks/callbacks.py",
    ),
    (
        f"{SCHEDULER}._executable_task_instances_to_queued",
        "max_tis session",
        "orchestration/scheduling/scheduling_pass.py",
    ),
    ("airflow.models.pool:Pool.slots_stats", "lock_rows session", "orchestration/scheduling/pool_slots.py"),
    (f"{SCHEDULER}._start_queued_dagruns", "session", "orchestration/run_creation/launch.py"),
    (
        f"{SCHEDULER}._create_dagruns_for_partitioned_asset_dags",
        "session",
        "orchestration/run_creation/triggered_runs.py",
    ),
    (
        f"{SCHEDULER}._create_dag_runs_asset_triggered",
        "dag_models session",
        "orchestration/run_creation/triggered_runs.py",
    ),
    (
        "airflow.models.dag:DagModel.dags_needing_dagruns",
        "session",
        "orchestration/run_creation/triggered_runs.py",
    ),
    (f"{SCHEDULER}._create_dag_runs", "dag_models session", "orchestration/schedules/due_runs.py"),
    (f"{SCHEDULER}._set_exceeds_max_active_runs", "dag_model session", "orchestration/schedules/due_runs.py"),
    (
        f"{SCHEDULER}._get_current_dag",
        "dag_id session",
        "orchestration/schedules/due_runs.py, synchronizer.py",
    ),
    (
        "airflow.dag_processing.collection:_RunInfo.calculate",
        "dag session",
        "orchestration/schedules/due_runs.py",
    ),
    (
        "airflow.models.dag:DagModel.calculate_dagrun_date_fields",
        "dag reference_run",
        "orchestration/schedules/due_runs.py",
    ),
    (
        "airflow.timetables.interval:CronDataIntervalTimetable._get_prev",
        "current",
        "orchestration/schedules/timetables.py",
    ),
    (f"{SCHEDULER}._schedule_dag_run", "dag_run session", "orchestration/activities/sync_activities.py"),
    (
        f"{SCHEDULER}._verify_integrity_if_dag_changed",
        "dag_run session",
        "orchestration/activities/sync_activities.py",
    ),
    (
        f"{SCHEDULER}._try_to_load_executor",
        "workload session team_name",
        "orchestration/scheduling/airflow_scheduler.py",
    ),
    (
        "airflow.models.dagrun:DagRun._get_ready_tis",
        "schedulable_tis finished_tis session",
        "orchestration/scheduling/scheduling_pass.py",
    ),
    (
        "airflow.models.dagrun:DagRun.schedule_tis",
        "schedulable_tis session",
        "orchestration/scheduling/scheduling_pass.py",
    ),
    (
        "airflow.api.common.trigger_dag:_trigger_dag",
        "dag_id dag_bag triggered_by run_after run_id conf logical_date replace_microseconds session",
        "orchestration/run_creation/launch.py",
    ),
    (
        "airflow.api.common.mark_tasks:set_dag_run_state_to_failed",
        "dag run_id commit session",
        "orchestration/activities/sync_activities.py",
    ),
    (
        "airflow.api_fastapi.core_api.routes.public.hitl:update_hitl_detail",
        "dag_id dag_run_id task_id map_index update_hitl_detail_payload user session",
        "gateway/human_input.py",
    ),
    ("airflow.api_fastapi.app:create_auth_manager", "", "gateway/human_input.py"),
    (f"{SCHEDULER}.check_trigger_timeouts", "session", "orchestration/scheduling/scheduling_pass.py"),
    (f"{SCHEDULER}.check_awaiting_input_timeouts", "session", "orchestration/scheduling/scheduling_pass.py"),
    (f"{TRIGGERER}:TriggerRunner.run_trigger", "trigger_id trigger", "tasks/trigger_runner.py"),
    (f"{TRIGGERER}:TriggerRunnerSupervisor.build_trigger_workloads", "new_trigger_ids", "tasks/triggers.py"),
    (f"{TRIGGERER}:TriggerRunnerSupervisor.on_trigger_event", "trigger_id event", "tasks/triggers.py"),
    (f"{TRIGGERER}:TriggerRunnerSupervisor.on_trigger_failure", "trigger_id exc", "tasks/triggers.py"),
    (f"{TRIGGERER}:TriggerRunnerSupervisor.handle_events", "self", "tasks/triggers.py"),
    (f"{TRIGGERER}:TriggerRunnerSupervisor.handle_failed_triggers", "self", "tasks/triggers.py"),
    (f"{TRIGGERER}:TriggerRunnerSupervisor.make_client", "self", "tasks/triggers.py"),
    (f"{TRIGGERER}:TriggerRunnerSupervisor._handle_request", "msg log req_id", "tasks/triggers.py"),
    ("airflow.models.trigger:Trigger.submit_event", "trigger_id event session", "tasks/triggers.py"),
    ("airflow.models.trigger:Trigger.submit_failure", "trigger_id exc session", "tasks/triggers.py"),
    ("airflow.models.trigger:Trigger.clean_unused", "session", "tasks/triggers.py"),
    ("airflow.models.deadline:Deadline.handle_miss", "session", "tasks/deadlines.py"),
    (
        "airflow.executors.workloads:ExecuteCallback.make",
        "callback dag_run",
        "tasks/deadlines.py",
    ),
    (
        f"{CALLBACKS}:CallbackSubprocess.start",
        "id callback_path callback_kwargs dag_rel_path bundle_info client",
        "tasks/targets.py",
    ),
    (f"{CALLBACKS}:_configure_logging", "log_path client", "tasks/deadlines.py"),
    (f"{SERVICES}.dag_run:patch_dag_run_state", "dag dag_run state session", "gateway/run_actions.py"),
    (
        f"{SERVICES}.task_instances:_patch_task_instance_state",
        "task_id dag_run_id dag task_instance_body data session",
        "gateway/run_actions.py",
    ),
    (
        "airflow.models.taskinstance:clear_task_instances",
        "tis session dag_run_state run_on_latest_version",
        "gateway/run_actions.py",
    ),
    (
        "airflow.models.taskinstance:find_relevant_relatives",
        "normal_tasks mapped_tasks dag run_id direction session",
        "gateway/run_actions.py",
    ),
    (
        "airflow.api_fastapi.common.dagbag:resolve_run_on_latest_version",
        "explicit_value dag_id session",
        "gateway/run_actions.py",
    ),
    (
        "airflow.serialization.definitions.dag:SerializedDAG.clear",
        "dry_run task_ids run_id only_failed session",
        "gateway/run_actions.py",
    ),
    ("airflow.utils.log.file_task_handler:_interleave_logs", "log_streams", "gateway/log_reader.py"),
    (
        "airflow.utils.log.file_task_handler:FileTaskHandler._render_filename",
        "self ti try_number",
        "gateway/log_reader.py",
    ),
]

# part of Airflow, module that uses it
ATTRIBUTES = [
    (f"{SUPERVISOR}:ActivitySubprocess.decoder", "tasks/supervisor.py"),
    (f"{SUPERVISOR}:SERVER_TERMINATED", "tasks/supervisor.py"),
    ("airflow.sdk.execution_time.coordinator:_PythonCoordinator", "tasks/attempt.py"),
    ("airflow.api_fastapi.execution_api.security:_jwt_bearer", "tasks/execution_api.py"),
    ("airflow.api_fastapi.execution_api.routes:execution_api_router", "tasks/execution_api.py"),
    ("airflow.api_fastapi.execution_api.datamodels.taskinstance:ti_state_discriminator", "tasks/client.py"),
    ("airflow.api_fastapi.execution_api.datamodels.taskinstance:TIStateUpdate", "tasks/client.py"),
    ("airflow.models.db_callback_request:DbCallbackRequest.data", "tasks/callbacks.py"),
    ("airflow._shared.logging.structlog:PER_LOGGER_LEVELS", "gateway/process.py"),
    ("airflow.sdk.execution_time.comms:ToTask", "tasks/preload.py"),
    ("airflow.utils.db:DBLocks.SCHEDULER_CRITICAL_SECTION", "orchestration/outbox/locks.py"),
]

# part of Airflow, text that its source must contain, module that relies on it
SOURCES = [
    (
        "airflow.utils.log.file_task_handler:FileTaskHandler._read_from_local",
        'worker_log_path.parent.glob(worker_log_path.name + "*")',
        "gateway/log_reader.py finds the files of a log in the same way",
    ),
    (
        "airflow.sdk.execution_time.task_runner:_run_task_and_map_outcome",
        'log.exception("Task failed with exception")',
        "logs/task_error.py recognizes the exception of the task by it",
    ),
    (
        f"{TRIGGERER}:TriggerRunner.arun",
        "stop_event = self._stop_event = anyio.Event()",
        "tasks/trigger_runner.py replaces the event by one that ends with the wait",
    ),
    (f"{TRIGGERER}:TriggerRunner.arun", "with anyio.move_on_after(1):", "tasks/trigger_runner.py"),
    (
        f"{TRIGGERER}:TriggerRunnerSupervisor._process_log_messages_from_subprocess",
        "from airflow.sdk.log import configure_logging",
        "tasks/triggers.py replaces it where it is imported",
    ),
    (
        f"{TRIGGERER}:TriggerRunnerSupervisor._handle_request",
        "to_cancel=self.cancelling_triggers",
        "tasks/triggers.py",
    ),
    (f"{CALLBACKS}:CallbackSubprocess.start", "target=_target", "tasks/targets.py"),
    (
        "airflow.sdk._shared.plugins_manager.plugins_manager:_load_entrypoint_plugins",
        "EntryPointSource(entry_point, dist)",
        "tasks/preload.py",
    ),
    (
        "airflow.dag_processing.importers.python_importer:PythonDagImporter._load_modules_from_file",
        "signal.signal(signal.SIGSEGV, sigsegv_handler)",
        "tasks/preload.py",
    ),
    (
        "airflow.sdk.execution_time.task_runner:parse",
        "from airflow.dag_processing.dagbag import BundleDagBag",
        "tasks/imports.py replaces it where it is imported",
    ),
    (
        f"{SUPERVISOR}:WatchedSubprocess._service_subprocess",
        "socket_handler, on_close = key.data",
        "tasks/supervisor.py",
    ),
    (
        f"{SUPERVISOR}:ActivitySubprocess._send_heartbeat_if_needed",
        "self._terminal_state = SERVER_TERMINATED",
        "tasks/supervisor.py ends a cleared or marked task by it",
    ),
    (
        f"{SCHEDULER}.process_executor_events",
        "if ti.state == TaskInstanceState.RESTARTING and state == TaskInstanceState.SUCCESS:",
        "tasks/attempt.py relies on it to run a cleared task again",
    ),
    (
        f"{SCHEDULER}._executable_task_instances_to_queued",
        "executor.slots_available",
        "orchestration/scheduling/airflow_scheduler.py",
    ),
    (
        f"{SCHEDULER}._executable_task_instances_to_queued",
        '"queued_by_job_id": self.job.id',
        "orchestration/scheduling/airflow_scheduler.py",
    ),
    (
        f"{SCHEDULER}._executable_task_instances_to_queued",
        "pg_try_advisory_xact_lock(:id)",
        "orchestration/outbox/locks.py waits for the same lock first",
    ),
    (
        f"{SCHEDULER}._create_dag_runs",
        "if dag_model.exceeds_max_non_backfill:",
        "orchestration/schedules/due_runs.py counts again before",
    ),
    (
        "airflow.models.dag:DagModel.dags_needing_dagruns",
        "select(cls)",
        "airflow_plugin/scheduler_filters.py narrows it by the class alone",
    ),
    (
        "airflow.serialization.definitions.dag:SerializedDAG.next_dagrun_info",
        "self._time_restriction",
        "orchestration/schedules/synchronizer.py",
    ),
    (
        "airflow.timetables._cron:CronMixin.__init__",
        "self._expression",
        "orchestration/schedules/timetables.py",
    ),
    (
        "airflow.timetables._cron:CronMixin.__init__",
        "self._timezone",
        "orchestration/schedules/timetables.py",
    ),
    ("airflow.timetables._delta:DeltaMixin.__init__", "self._delta", "orchestration/schedules/timetables.py"),
    (
        "airflow.timetables.trigger:MultipleCronTriggerTimetable.__init__",
        "self._timetables",
        "orchestration/schedules/timetables.py",
    ),
    (
        f"{SCHEDULER}._executable_task_instances_to_queued",
        "self._multi_team",
        "orchestration/scheduling/pool_slots.py",
    ),
    (
        "airflow.ti_deps.deps.prev_dagrun_dep:PrevDagrunDep._get_dep_statuses",
        "DagRun.get_previous_scheduled_dagrun(dr.id",
        "orchestration/scheduling/past_dependencies.py follows the same relation in the other direction",
    ),
    (
        "airflow.models.dagrun:DagRun.get_previous_scheduled_dagrun",
        "DagRun.run_type != DagRunType.MANUAL",
        "orchestration/scheduling/past_dependencies.py follows the same relation in the other direction",
    ),
]

LOOK = """
import importlib, inspect, json, sys
found = {}
for piece in json.loads(sys.stdin.read()):
    module, _, path = piece.partition(":")
    try:
        thing = importlib.import_module(module)
        for name in path.split("."):
            thing = getattr(thing, name)
    except (ImportError, AttributeError) as error:
        found[piece] = {"missing": str(error)}
        continue
    found[piece] = {}
    if inspect.isroutine(thing):
        thing = inspect.unwrap(thing)
        parameters = inspect.signature(thing).parameters
        found[piece] = {
            "parameters": list(parameters),
            "required": [name for name, p in parameters.items() if p.default is p.empty and p.kind not in (2, 4)],
            "source": inspect.getsource(thing),
        }
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def airflow(tmp_path_factory):
    """The parts of Airflow, read in a separate process with an empty ``AIRFLOW_HOME``."""
    pieces = sorted({row[0] for row in (*CALLABLES, *ATTRIBUTES, *SOURCES)})
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOOK],
        input=json.dumps(pieces),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow"))},
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout[result.stdout.index("{") :])


@pytest.mark.parametrize(("piece", "parameters", "user"), CALLABLES, ids=[row[0] for row in CALLABLES])
def test_a_private_function_accepts_the_parameters(airflow, piece, parameters, user):
    found = airflow[piece]
    assert "missing" not in found, f"{user} uses {piece}: {found}"
    takes = set(found["parameters"])
    assert set(parameters.split()) <= takes, (
        f"{user} passes {parameters!r} to {piece}, which takes {sorted(takes)}"
    )


@pytest.mark.parametrize(("piece", "user"), ATTRIBUTES, ids=[row[0] for row in ATTRIBUTES])
def test_a_private_attribute_exists(airflow, piece, user):
    assert "missing" not in airflow[piece], f"{user} uses {piece}: {airflow[piece]}"


@pytest.mark.parametrize(("piece", "source", "user"), SOURCES, ids=[f"{row[0]} {row[1]}" for row in SOURCES])
def test_a_private_function_contains_the_expected_source(airflow, piece, source, user):
    assert source in airflow[piece].get("source", ""), f"{piece} has changed: {user}"


def test_the_named_modules_exist():
    users = [row[-1] for row in (*CALLABLES, *ATTRIBUTES, *SOURCES)]
    named = {name for user in users for name in re.findall(r"\w+(?:/\w+)+\.py", user)}
    assert named
    assert [name for name in sorted(named) if not (ROOT / "temporal_airflow_nb" / name).is_file()] == []
