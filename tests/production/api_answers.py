"""The answers of Airflow's API about a run, normalized so that two runs of the same DAG can be compared."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tests.compatibility.oracle.compare import compare

if TYPE_CHECKING:
    from tests.production.cluster import Cluster

NATIVE = "native_"
RUN = "/api/v2/dags/{dag}/dagRuns/{run}"
TASKS = f"{RUN}/taskInstances"

ANSWERS = {
    "run": RUN,
    "runs": "/api/v2/dags/{dag}/dagRuns?run_id_pattern={run}",
    "tasks": f"{TASKS}?limit=100",
    "mapped tasks": f"{TASKS}/group.mapped/listMapped?order_by=map_index",
    "xcoms": f"{TASKS}/~/xcomEntries?limit=100",
    "questions": f"{RUN}/hitlDetails",
    "produced asset events": "/api/v2/assets/events?source_dag_id={dag}&source_run_id={run}",
    "consumed asset events": f"{RUN}/upstreamAssetEvents",
    "audit": "/api/v2/eventLogs?dag_id={dag}&run_id={run}&limit=200&order_by=id",
    "versions": "/api/v2/dags/{dag}/dagVersions",
    "source": "/api/v2/dagSources/{dag}",
    "dag": "/api/v2/dags/{dag}/details",
    "definitions of tasks": "/api/v2/dags/{dag}/tasks",
    "dag stats": "/api/v2/dagStats?dag_ids={dag}",
    "pool": "/api/v2/pools/{dag}",
    "grid: runs": "/ui/grid/runs/{dag}?limit=10",
    "grid: structure": "/ui/grid/structure/{dag}",
    "grid: tasks": "/ui/grid/ti_summaries/{dag}?run_ids={run}",
    "gantt": "/ui/gantt/{dag}/{run}",
    "graph": "/ui/structure/structure_data?dag_id={dag}&external_dependencies=true",
    "dependencies": "/ui/dependencies?node_id=dag:{dag}",
    "home": "/ui/dags?dag_ids={dag}&dag_runs_limit=10",
    "latest run": "/ui/dags/{dag}/latest_run",
    "calendar": "/ui/calendar/{dag}?granularity=hourly",
    "run stats": "/ui/dags/{dag}/dagRuns/{run}/stats",
    "deadlines": "/ui/dags/{dag}/dagRuns/{run}/deadlines",
    "assets of the dag": "/ui/next_run_assets/{dag}",
}
OF_TASKS = {
    "task": f"{TASKS}/{{task}}",
    "tries": f"{TASKS}/{{task}}/tries",
    "unmet dependencies": f"{TASKS}/{{task}}/dependencies",
    "links": f"{TASKS}/{{task}}/links",
}

_TIME = re.compile(
    r"(?<!\d)\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\.\d+(?:Z|[+-]\d\d:?\d\d)?|datetime\.datetime\([^)]*\)"
)
_UUID = re.compile(r"\b[0-9a-f]{8}(?:-?[0-9a-f]{4}){3}-?[0-9a-f]{12}\b")
_TRACE = re.compile(r"\b00-[0-9a-f]{32}-[0-9a-f]{16}-\d\d\b")
_ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")
_ROW = re.compile(r"\b(asset:|ID )\d+\b")
_RANDOM = re.compile(r"(?<=<time>_)\w{8}\b")
# Ids of rows and processes, and durations: only their presence is compared.
_NUMBER = re.compile(r"(?:.+_)?id|pid|(?:.+_)?duration|mean|p\d\d|timestamp")

_NAMES = {
    _TIME: "<time>",
    _TRACE: "<trace>",
    _UUID: "<uuid>",
    _ADDRESS: "<address>",
    _RANDOM: "<random>",
}


class Side:
    """One of the two runs that are compared, through the API."""

    def __init__(self, cluster: Cluster, dag_id: str, run_id: str) -> None:
        self.cluster = cluster
        self.dag_id = dag_id
        self.run_id = run_id

    def ask(self, path: str, method: str = "GET", body: Mapping[str, Any] | None = None, **names: Any) -> Any:
        """Return the answer to a path, in which ``{dag}`` and ``{run}`` stand for the ids of this run."""
        run = urllib.parse.quote(self.run_id, safe="")
        return self.cluster.server.ask(method, path.format(dag=self.dag_id, run=run, **names), body)

    def states(self) -> dict[str, str | None]:
        """Return the state of each task instance."""
        found = self.ask(ANSWERS["tasks"])["task_instances"]
        return {_name(ti): ti["state"] for ti in found}

    def log(self, task: str, try_number: int = 1, map_index: int = -1) -> list[dict[str, Any]]:
        """Return the lines of a try's log, without those about the log's source."""
        path = f"{TASKS}/{{task}}/logs/{try_number}?full_content=true&map_index={map_index}"
        return [line for line in self.ask(path, task=task)["content"] if line.get("timestamp")]


def _name(ti: Mapping[str, Any]) -> str:
    return ti["task_id"] if ti["map_index"] < 0 else f"{ti['task_id']}[{ti['map_index']}]"


def normalize(value: Any, key: str = "") -> Any:
    """Return an answer without values that differ between runs, and without the prefix of native DAGs."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return {normalize(name): normalize(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return _ordered([normalize(item, key) for item in value])
    if isinstance(value, int | float) and not isinstance(value, bool) and _NUMBER.fullmatch(key):
        return "<number>"
    return value


def _text(text: str) -> str:
    text = text.replace(NATIVE, "")
    for pattern, name in _NAMES.items():
        text = pattern.sub(name, text)
    return _ROW.sub(r"\1<number>", text)


def _ordered(items: list[Any]) -> list[Any]:
    """Sort items by their task: the order is fixed within one task, but not between parallel tasks."""
    if all(isinstance(item, dict) and "task_id" in item for item in items):
        return sorted(items, key=lambda item: (item["task_id"] or "", item.get("map_index") or 0))
    return items


def find_differences(native: Any, managed: Any, allowed: Mapping[str, str]) -> list[str]:
    """Return the differences between two answers, except in fields of ``allowed``, which maps fields to reasons."""
    found = compare({"": normalize(native)}, {"": normalize(managed)})
    return [line for line in found if not any(re.search(rf"\b{field}: ", line) for field in allowed)]
