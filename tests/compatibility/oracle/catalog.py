"""The DAG files that run on native Airflow and on an embedded stack."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CORE = "airflow.example_dags"
STANDARD = "airflow.providers.standard.example_dags"
DAGS = Path(__file__).parent.parent / "dags"
PLUGINS = Path(__file__).parent.parent / "plugins"
SHARED_PLUGINS = "examples"
RECORDED = Path(__file__).parent / "recorded"
_SECRETS = Path(__file__).parent / "secrets"


def _secrets_of(whose: str) -> str:
    kinds = ("variables", "connections")
    return json.dumps({f"{kind}_file_path": str(_SECRETS / f"{whose}_{kind}.json") for kind in kinds})


_LOCAL_FILES = "airflow.secrets.local_filesystem.LocalFilesystemBackend"

ENVIRONMENT = {
    "AIRFLOW_VAR_ORACLE_PLAIN": "a plain value",
    "AIRFLOW_VAR_ORACLE_JSON": json.dumps({"a": [1, 2], "b": None}),
    "AIRFLOW_VAR_ORACLE_SECRET_TOKEN": "tok3n-that-nobody-may-see",
    "AIRFLOW_CONN_ORACLE_HTTP": "http://someone:pass%2Fw0rd@host.example:8080/schema?timeout=3&mode=fast",
    "AIRFLOW_CONN_ORACLE_JSON": json.dumps(
        {"conn_type": "generic", "host": "json.example", "extra": {"deep": {"er": 1}}}
    ),
    "AIRFLOW__SECRETS__BACKEND": _LOCAL_FILES,
    "AIRFLOW__SECRETS__BACKEND_KWARGS": _secrets_of("server"),
    "AIRFLOW__WORKERS__SECRETS_BACKEND": _LOCAL_FILES,
    "AIRFLOW__WORKERS__SECRETS_BACKEND_KWARGS": _secrets_of("workers"),
}
POOLS = {
    name: {"slots": slots, "description": "for the oracle", "include_deferred": counts_deferred}
    for name, slots, counts_deferred in (
        ("oracle_no_slot", 0, False),
        ("oracle_one_slot", 1, False),
        ("oracle_two_slots", 2, False),
        ("oracle_slot_given_back", 1, False),
        ("oracle_slot_of_deferred", 1, True),
    )
}
"""What ``airflow pools import`` takes."""
LATER = "2024-03-06T06:07:08.901234+00:00"
NOW = "now"
IN_2026 = "2026-02-03T06:07:08.901234+00:00"


@dataclass(frozen=True)
class Choice:
    """A task that picks one of several equivalent branches at random.

    Any pick is correct, so the result is renamed before the comparison, as if the task had picked the first branch.

    Parameters
    ----------
    task_id
        Id of the task that picks.
    options
        Values that can replace ``{}`` in the names.
    names
        Task ids of a branch, the picked one first.
    dag_id
        The DAG of the file that contains the task; any DAG of the file if omitted.
    """

    task_id: str
    options: Sequence[str]
    names: Sequence[str]
    dag_id: str | None = None


@dataclass(frozen=True)
class Case:
    """One DAG file.

    Parameters
    ----------
    name
        The file's name without its suffix.
    package
        The installed package that contains it; ``None`` means this repository's ``tests/compatibility/dags``.
    conf
        The runs' conf, in addition to ``effects``.
    ordered
        Ids of the DAGs whose effects must have the recorded order.
    logs
        Whether the logs of the tasks are compared.
    choices
        Tasks that pick a branch at random.
    timeout
        Time limit for all runs of the file together, in seconds.
    brief
        Whether only the results of a run are compared and recorded, not the inputs of its tasks.
    place
        The folder of the file, if it is neither ``tests/compatibility/dags`` nor in a package.
    runs
        Number of runs of each DAG; each has its ``number`` in its conf. All write to the same file.
    needs
        Modules that the recording depends on.
    start
        The DAGs to run one after the other, each after all runs that the DAG before it caused have ended; all DAGs
        of the file at once if omitted.
    after
        Cases that run first. Their DAGs still exist, and runs of them that this case causes are part of its result.
    answers
        The answers of a person by task id, as bodies for Airflow's API.
    unpredictable
        ``(task_id, key of the XCom, …)``: values that differ in each run and aren't compared.
    logical_date
        The runs' logical date on both sides; if omitted, a fixed date on native Airflow and the current time on the
        embedded stack.
    serves
        JSON by path, for tasks that send requests to a server. Its address replaces ``<server>`` in ``conf``.
    on_days
        Days of the week on which the recording is valid; Monday is 0.
    plugins
        The folder of ``tests/compatibility/plugins`` that Airflow loads.
    scripted
        Whether a script acts on the runs: see :mod:`tests.compatibility.oracle.scenarios`.
    """

    name: str
    package: str | None = None
    conf: Mapping[str, Any] = field(default_factory=dict)
    ordered: frozenset[str] = frozenset()
    logs: bool = False
    choices: Sequence[Choice] = ()
    timeout: float = 180
    brief: bool = False
    place: Path = DAGS
    runs: int = 1
    needs: Sequence[str] = ()
    start: Sequence[str] = ()
    after: Sequence[str] = ()
    answers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    unpredictable: Sequence[tuple[str, ...]] = ()
    logical_date: str | None = None
    serves: Mapping[str, Any] = field(default_factory=dict)
    on_days: frozenset[int] = frozenset(range(7))
    plugins: str = SHARED_PLUGINS
    scripted: bool = False

    @property
    def path(self) -> Path:
        """Path of the installed DAG file."""
        return self.folder / f"{self.name}.py"

    @property
    def folder(self) -> Path:
        """The folder that contains the file."""
        if self.package is None:
            return self.place
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.origin:
            raise ModuleNotFoundError(f"{self.package} isn't installed")
        return Path(spec.origin).parent

    @property
    def recording(self) -> Path:
        """The file with the native results."""
        return RECORDED / f"{self.name}.json"

    def recorded(self) -> dict[str, Any]:
        """Return the native results by DAG id."""
        return json.loads(self.recording.read_text(encoding="utf-8"))["dags"]

    def steps(self, dag_ids: Sequence[str]) -> list[list[str]]:
        """Return the DAGs to start in each step."""
        return [[dag_id] for dag_id in self.start] if self.start else [list(dag_ids)]

    def hide(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return the result without the values that differ in each run."""
        for task_id, *path in self.unpredictable:
            for key, value in result["xcoms"].items():
                if key.partition("[")[0] == task_id:
                    place = value
                    for step in path[:-1]:
                        place = place[step]
                    if path[-1] in place:
                        place[path[-1]] = f"<a {type(place[path[-1]]).__name__}>"
        return result


OPTIONS = ("a", "b", "c", "d")

BRANCHES = [
    Choice("branching", OPTIONS, ["branch_{}", "follow_{}"]),
    Choice("branching_ext_python", OPTIONS, ["ext_py_{}"]),
    Choice("branching_venv", OPTIONS, ["venv_{}"]),
    Choice("branching_virtualenv", OPTIONS, ["venv_{}"]),
]

EXAMPLES = [
    # The slow cases come first, because the cases run in parallel.
    Case(
        "example_hitl_operator",
        STANDARD,
        answers={
            "wait_for_input": {"chosen_options": ["OK"], "params_input": {"information": "some"}},
            "wait_for_option": {"chosen_options": ["option 2"]},
            "wait_for_multiple_options": {"chosen_options": ["option 4", "option 6"]},
            "valid_input_and_options": {"chosen_options": ["Approve"]},
            "choose_a_branch_to_run": {"chosen_options": ["task_2"]},
        },
    ),
    Case("example_external_task_child_deferrable", STANDARD),
    Case(
        "example_external_task_parent_deferrable",
        STANDARD,
        after=["example_external_task_child_deferrable"],
        logical_date=LATER,
    ),
    Case(
        "example_asset_partition",
        CORE,
        start=[
            "ingest_team_a_player_stats",
            "team_b_player_stats",
            "team_c_player_stats",
            "ingest_regional_sales",
            "ingest_region_stats",
            "live_region_player_stats",
            "multi_region_player_stats",
            "train_weekly_model",
        ],
        timeout=300,
    ),
    Case("example_time_delta_sensor_async", CORE, logical_date=NOW),
    Case("example_python_decorator", STANDARD, timeout=300),
    Case("example_branch_operator_decorator", STANDARD, choices=BRANCHES, timeout=300),
    Case("example_branch_operator", STANDARD, choices=BRANCHES, timeout=300),
    Case("example_python_operator", STANDARD, timeout=300),
    Case("tutorial_taskflow_api_virtualenv", CORE, timeout=300),
    Case("example_assets", CORE, start=["asset_produces_1", "asset_produces_2"]),
    Case("tutorial", CORE, unpredictable=[("print_date", "return_value")], logical_date=LATER),
    Case("tutorial_dag", CORE),
    Case("tutorial_taskflow_api", CORE),
    Case("tutorial_taskflow_templates", CORE),
    Case("example_xcom", CORE),
    Case("example_xcomargs", CORE),
    Case("example_complex", CORE),
    Case("example_task_group", CORE),
    Case("example_task_group_decorator", CORE),
    Case("example_dynamic_task_mapping", CORE),
    Case("example_dynamic_task_mapping_with_no_taskflow_operators", CORE),
    Case("example_setup_teardown", CORE),
    Case("example_setup_teardown_taskflow", CORE),
    Case("example_skip_dag", CORE),
    Case("example_branch_labels", CORE),
    Case("example_custom_weight", CORE),
    Case("example_display_name", CORE),
    Case("example_failed_dag", CORE),
    Case("example_latest_only_with_trigger", CORE),
    Case("example_nested_branch_dag", CORE),
    Case("example_params_trigger_ui", CORE),
    Case("example_passing_params_via_test_command", CORE),
    Case("example_simplest_dag", CORE),
    Case("example_task_state_store_async", CORE, logical_date=IN_2026),
    Case("example_trigger_target_dag", CORE),
    Case("example_workday_timetable", CORE),
    Case(
        "example_asset_alias",
        CORE,
        start=["asset_s3_bucket_producer", "asset_alias_example_alias_producer"],
    ),
    Case(
        "example_asset_alias_with_no_taskflow",
        CORE,
        after=["example_asset_alias"],
        start=[
            "asset_s3_bucket_producer_with_no_taskflow",
            "asset_alias_example_alias_producer_with_no_taskflow",
        ],
    ),
    Case("example_asset_allow_teams", CORE, start=["team_analytics_producer"]),
    Case("example_asset_decorator", CORE, start=["asset1_producer", "asset2_producer"]),
    Case(
        "example_asset_state_store",
        CORE,
        start=["example_asset_state_store_producer"],
        unpredictable=[("load", "return_value")],
        logical_date=IN_2026,
    ),
    Case("example_asset_with_watchers", CORE),
    Case("example_branch_python_dop_operator_3", CORE, logical_date=LATER),
    Case(
        "example_dag_decorator",
        CORE,
        conf={"url": "<server>/get"},
        serves={"/get": {"origin": "203.0.113.5"}},
    ),
    Case("example_outlet_event_extra", CORE),
    Case("example_inlet_event_extra", CORE, after=["example_outlet_event_extra"]),
    Case(
        "example_params_ui_tutorial",
        CORE,
        conf={
            "required_field": "a given value",
            "date_time": "2026-01-02T03:04:05+00:00",
            "date": "2026-01-02",
        },
    ),
    Case(
        "example_task_state_store",
        CORE,
        unpredictable=[("run_job", "return_value")],
        logical_date=IN_2026,
    ),
    Case(
        "example_task_state_store_mapped",
        CORE,
        unpredictable=[("process_table", "return_value", "row_count"), ("process_table", "row_count")],
        logical_date=IN_2026,
    ),
    Case(
        "example_bash_decorator",
        STANDARD,
        # The date at which the DAG's file was created.
        unpredictable=[("get_file_stats", "return_value")],
        logical_date=LATER,
    ),
    Case("example_bash_operator", STANDARD),
    Case("example_latest_only", STANDARD),
    Case("example_measurement_correction_decorator", STANDARD),
    Case("example_measurement_correction_operator", STANDARD),
    Case("example_sensor_decorator", STANDARD),
    Case("example_short_circuit_decorator", STANDARD),
    Case("example_short_circuit_operator", STANDARD),
    Case(
        "example_branch_datetime_operator",
        STANDARD,
        choices=[
            Choice(
                "datetime_branch",
                ("date_in_range", "date_outside_range"),
                ["{}"],
                dag_id="example_branch_datetime_operator_2",
            )
        ],
    ),
    Case("example_branch_day_of_week_operator", STANDARD, on_days=frozenset({1, 2, 3, 4})),
    Case(
        "example_external_task_marker_dag",
        STANDARD,
        start=["example_external_task_marker_parent", "example_external_task_marker_child"],
        logical_date=LATER,
    ),
    Case("example_trigger_controller_dag", STANDARD, after=["example_trigger_target_dag"]),
]

EXCLUDED = {
    "example_kubernetes_executor": "its tasks are pods of a Kubernetes cluster",
    "example_local_kubernetes_executor": "its tasks are pods of a Kubernetes cluster",
    "example_retry_policy": "sends requests to the internet, and waits for minutes between its tries",
    "example_sensors": "one of its sensors waits for an hour",
    "tutorial_objectstorage": "sends requests to the internet, and writes to a bucket of S3",
}

SEMANTICS = [
    Case("assets", start=["assets_producer", "assets_alias_producer", "oracle_decorated"]),
    Case("branching"),
    Case("branching_more"),
    Case("callbacks"),
    Case("connections_variables"),
    Case("crashes"),
    Case("deadlines"),
    Case("deferrable_sensors"),
    Case("dagrun_timeouts"),
    Case("deferral"),
    Case("fail_fast"),
    Case(
        "hitl_answers",
        answers={
            "approved": {"chosen_options": ["Approve"]},
            "rejected": {"chosen_options": ["Reject"]},
            "rejected_and_failed": {"chosen_options": ["Reject"]},
            "one": {"chosen_options": ["b"]},
            "several": {"chosen_options": ["c", "a"]},
            "entry": {"chosen_options": ["OK"], "params_input": {"what": "an answer", "number": 7}},
            "entry_of_another_form": {"chosen_options": ["OK"], "params_input": {"unknown": 1}},
            "entry_out_of_range": {"chosen_options": ["OK"], "params_input": {"number": 70}},
            "branch": {"chosen_options": ["to the left"]},
            "branches": {"chosen_options": ["left_2", "right_2"]},
            "mapped": {"chosen_options": ["b"]},
            "fails_once": {"chosen_options": ["a"]},
            "in_time": {"chosen_options": ["b"]},
        },
    ),
    Case("hitl_timeouts"),
    Case(
        "limits",
        ordered=frozenset({"priority_in_a_pool_of_one", "one_instance_at_a_time", "one_task_at_a_time"}),
    ),
    Case(
        "limits_across_runs",
        runs=3,
        ordered=frozenset(
            {
                "downstream_of_the_past_decides",
                "one_of_a_task_at_a_time",
                "one_run_at_a_time",
                "one_slot_for_all_runs",
                "past_decides",
                "past_failed",
            }
        ),
    ),
    Case(
        "limits_more",
        ordered=frozenset(
            {
                "deferred_gives_its_slot_back",
                "deferred_keeps_its_slot",
                "few_of_each_task_in_a_run",
                "several_slots_each",
                "weighed_alone",
                "weighed_by_downstream",
                "weighed_by_upstream",
            }
        ),
    ),
    Case("listeners", plugins="listening"),
    Case("lifecycle", scripted=True, timeout=400),
    Case("lifecycle_edits", scripted=True, timeout=200),
    Case("mapping"),
    Case("mapping_arguments"),
    Case("mapping_rules", timeout=300),
    Case(
        "other_dags",
        start=["triggers", "sensed", "senses", "waits"],
        logical_date=LATER,
        timeout=300,
    ),
    Case("rendering", conf={"from_conf": "the conf", "extra": 1}),
    Case("retries"),
    Case("retries_more"),
    Case("secrets_backends", logs=True),
    Case("sensors", ordered=frozenset({"sensor_reschedule", "sensor_poke"})),
    Case("sensors_more"),
    Case("setup_teardown"),
    Case("setup_teardown_more"),
    Case("shells"),
    Case("small"),
    Case("state_stores"),
    Case("task_logs", logs=True),
    Case("templates", conf={"day": "2026-01-01", "who": "conf"}),
    Case("timeouts"),
    Case(
        "top_level",
        needs=["numpy", "pyarrow"],
        unpredictable=[
            ("draw", "return_value", name)
            for name in (
                *("own", "random", "generator", "numpy", "noise"),
                *("identifier", "folder", "output"),
            )
        ],
    ),
    Case("top_level_settings", logs=True, needs=["numpy"]),
    Case("trigger_rules"),
    Case("xcom_access"),
    Case("xcom_numpy", needs=["numpy"]),
    Case("xcom_pandas", needs=["pandas", "pyarrow"]),
    Case("xcom_values", timeout=300),
]

RANDOM = [Case(f"random_{index}", brief=True, timeout=900) for index in range(10)]

SUITES = {"examples": EXAMPLES, "semantics": SEMANTICS, "random": RANDOM}
CASES = {case.name: case for suite in SUITES.values() for case in suite}


def rename_choices(case: Case, result: dict[str, Any], dag_id: str) -> dict[str, Any]:
    """Return the result as if each random choice of the DAG had picked the first option."""
    for choice in case.choices:
        if choice.dag_id not in (None, dag_id):
            continue
        followed = result["xcoms"].get(choice.task_id, {}).get("skipmixin_key", {}).get("followed")
        chosen = next(
            (option for option in choice.options if [choice.names[0].format(option)] == followed), None
        )
        if chosen is not None:
            first = choice.options[0]
            swap = {name.format(chosen): name.format(first) for name in choice.names}
            swap |= {name.format(first): name.format(chosen) for name in choice.names}
            result = _renamed(result, swap)
    return result


def _renamed(value: Any, swap: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return swap.get(value, value)
    if isinstance(value, Mapping):
        return {_renamed(key, swap): _renamed(item, swap) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, swap) for item in value]
    return value
