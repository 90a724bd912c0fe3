"""The DAG files that are run natively and here."""

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
RECORDED = Path(__file__).parent / "recorded"

ENVIRONMENT = {
    "AIRFLOW_VAR_ORACLE_PLAIN": "a plain value",
    "AIRFLOW_VAR_ORACLE_JSON": json.dumps({"a": [1, 2], "b": None}),
    "AIRFLOW_VAR_ORACLE_SECRET_TOKEN": "tok3n-that-nobody-may-see",
    "AIRFLOW_CONN_ORACLE_HTTP": "http://someone:pass%2Fw0rd@host.example:8080/schema?timeout=3&mode=fast",
    "AIRFLOW_CONN_ORACLE_JSON": json.dumps(
        {"conn_type": "generic", "host": "json.example", "extra": {"deep": {"er": 1}}}
    ),
}
POOLS = {"oracle_one_slot": 1}


@dataclass(frozen=True)
class Choice:
    """A task that picks one of several alike branches at random.

    Any pick is right, so a result is renamed as if the first had been picked before it is compared.

    Parameters
    ----------
    task_id
        The task that picks.
    options
        What may stand for ``{}`` in the names.
    names
        Task ids of a branch, the picked one first.
    """

    task_id: str
    options: Sequence[str]
    names: Sequence[str]


@dataclass(frozen=True)
class Case:
    """One DAG file.

    Parameters
    ----------
    name
        The file's name without its suffix.
    package
        The installed package that holds it; ``None`` is this repository's ``tests/dags``.
    conf
        The runs' conf, besides ``effects``.
    ordered
        Ids of the DAGs whose effects must come in the recorded order.
    logs
        Whether what the tasks log is compared.
    choices
        Tasks that pick at random.
    timeout
        Seconds that all runs of the file may take together.
    needs, lacks
        Modules that were, and that weren't, installed when the recording was made, and that it depends on.
    """

    name: str
    package: str | None = None
    conf: Mapping[str, Any] = field(default_factory=dict)
    ordered: frozenset[str] = frozenset()
    logs: bool = False
    choices: Sequence[Choice] = ()
    timeout: float = 180
    needs: Sequence[str] = ()
    lacks: Sequence[str] = ()

    @property
    def path(self) -> Path:
        """The DAG file, where it is installed."""
        return self.folder / f"{self.name}.py"

    @property
    def folder(self) -> Path:
        """The folder that holds the file."""
        if self.package is None:
            return DAGS
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


OPTIONS = ("a", "b", "c", "d")

EXAMPLES = [
    Case("tutorial_dag", CORE),
    Case("tutorial_taskflow_api", CORE),
    Case("tutorial_taskflow_templates", CORE),
    Case("example_xcom", CORE),
    Case("example_xcomargs", CORE),
    Case("example_complex", CORE),
    Case("example_task_group", CORE),
    Case("example_dynamic_task_mapping", CORE),
    Case("example_setup_teardown_taskflow", CORE),
    Case("example_skip_dag", CORE),
    Case("example_branch_labels", CORE),
    Case("example_bash_operator", STANDARD),
    Case("example_python_operator", STANDARD, timeout=300),
    Case(
        "example_branch_operator",
        STANDARD,
        choices=[
            Choice("branching", OPTIONS, ["branch_{}", "follow_{}"]),
            Choice("branching_ext_python", OPTIONS, ["ext_py_{}"]),
            Choice("branching_venv", OPTIONS, ["venv_{}"]),
        ],
        timeout=300,
    ),
    Case("example_short_circuit_operator", STANDARD),
]

SEMANTICS = [
    Case("branching"),
    Case("callbacks"),
    Case("connections_variables"),
    Case("crashes"),
    Case("deadlines"),
    Case("deferrable_sensors"),
    Case("deferral"),
    Case("hitl_timeouts"),
    Case(
        "limits",
        ordered=frozenset({"priority_in_a_pool_of_one", "one_instance_at_a_time", "one_task_at_a_time"}),
    ),
    Case("mapping"),
    Case("retries"),
    Case("sensors", ordered=frozenset({"sensor_reschedule", "sensor_poke"})),
    Case("setup_teardown"),
    Case("small"),
    Case("task_logs", logs=True),
    Case("templates", conf={"day": "2026-01-01", "who": "conf"}),
    Case("timeouts"),
    Case("trigger_rules"),
    Case("xcom_access"),
    Case("xcom_numpy", needs=["numpy"]),
    Case("xcom_pandas", needs=["pandas"], lacks=["pyarrow"]),
    Case("xcom_values", timeout=300),
]

CASES = {case.name: case for case in [*EXAMPLES, *SEMANTICS]}


def rename_choices(case: Case, result: dict[str, Any]) -> dict[str, Any]:
    """Return the result as if every random choice of the case had fallen on its first option."""
    for choice in case.choices:
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
