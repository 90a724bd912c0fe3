"""Reads the results of a run from an Airflow metadata database, in a form that two machines can compare.

Both sides are read by the same code, so that a difference can't come from the reading.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.compatibility.oracle.normalise import Normaliser

USER_LOGGERS = ("oracle", "task.stdout", "task.stderr")
TRIGGERER = re.compile(r"\.trigger\.[^/]+\.log$")


@dataclass(frozen=True)
class Source:
    """The database and logs of a run.

    Parameters
    ----------
    database
        The SQLite file.
    logs
        Airflow's ``base_log_folder``.
    places
        Name to show for each path that can occur in values (``{"/tmp/x/airflow": "airflow_home"}``).
    """

    database: Path
    logs: Path
    places: Mapping[str, str] = field(default_factory=dict)


def read_result(
    source: Source,
    dag_id: str,
    run_id: str,
    *,
    effects: Path,
    ordered: bool = False,
    logs: bool = False,
    brief: bool = False,
) -> dict[str, Any]:
    """Return a finished run as plain, comparable data.

    Parameters
    ----------
    effects
        The file that the DAG's tasks and callbacks write to.
    ordered
        Whether the order of its lines is compared.
    logs
        Whether to include the lines of the tasks' own loggers.
    brief
        Whether to omit empty values and the inputs of the tasks.

    Returns
    -------
    dict
        ``state``, ``note``, ``tasks``, ``xcoms``, ``mapped_lengths``, ``asset_events``, ``effects``; perhaps
        ``clear_number``, ``logs``.
    """
    with _reading(source) as database:
        run = database.execute(
            "SELECT * FROM dag_run WHERE dag_id = ? AND run_id = ?", (dag_id, run_id)
        ).fetchone()
        clean = Normaliser(dict(run), source.places)
        result: dict[str, Any] = {
            "state": run["state"],
            "note": _first(database, "SELECT content FROM dag_run_note WHERE dag_run_id = ?", run["id"]),
            "tasks": _tasks(database, dag_id, run_id, clean),
            "xcoms": _xcoms(database, dag_id, run_id, clean),
            "mapped_lengths": {
                row["task_id"]: row["length"]
                for row in database.execute(
                    "SELECT * FROM task_map WHERE dag_id = ? AND run_id = ? ORDER BY task_id",
                    (dag_id, run_id),
                )
            },
            "asset_events": _asset_events(database, dag_id, run_id, clean),
        }
    if run["clear_number"]:
        result["clear_number"] = run["clear_number"]
    lines = effects.read_text(encoding="utf-8").splitlines() if effects.exists() else []
    result["effects"] = [clean(line) for line in (lines if ordered else sorted(lines))]
    if logs:
        result["logs"] = _logs(source.logs / f"dag_id={dag_id}" / f"run_id={run_id}", clean)
    return _brief(result) if brief else result


def _brief(result: dict[str, Any]) -> dict[str, Any]:
    tasks = {key: _in_words(**task) for key, task in result["tasks"].items()}
    return {name: value for name, value in {**result, "tasks": tasks}.items() if value not in (None, [], {})}


def _in_words(
    state: str,
    try_number: int,
    max_tries: int = 0,
    earlier_tries: Sequence[Any] = (),
    rendered: Any = None,
    **others: Any,
) -> str:
    words = [str(state)]
    if max_tries or try_number != int(state in ("success", "failed")):
        words.append(f"try {try_number} of {max_tries + 1}")
    words += [f"{earlier} in try {number}" for number, earlier in earlier_tries]
    words += [f"{name}: {value}" for name, value in others.items()]
    return ", ".join(words)


def run_facts(source: Source, dag_id: str, run_id: str) -> dict[str, Any]:
    """Return the facts about a run that other runs caused: its trigger and its inputs."""
    with _reading(source) as database:
        run = database.execute(
            "SELECT * FROM dag_run WHERE dag_id = ? AND run_id = ?", (dag_id, run_id)
        ).fetchone()
        clean = Normaliser(dict(run), source.places)
        facts = {name: run[name] for name in ("triggered_by", "partition_key")}
        facts["conf"] = clean(json.loads(run["conf"] or "{}"))
        rows = database.execute(
            "SELECT source_dag_id, source_task_id, source_map_index, asset.name, asset_event.extra,"
            " asset_event.partition_key FROM dagrun_asset_event JOIN asset_event ON asset_event.id = event_id"
            " JOIN asset ON asset.id = asset_event.asset_id WHERE dag_run_id = ?",
            (run["id"],),
        )
        consumed = [
            {
                "task": f"{row['source_dag_id']}.{key_of(row['source_task_id'], row['source_map_index'])}",
                "asset": clean(row["name"]),
                "extra": clean(json.loads(row["extra"] or "{}")),
                "partition_key": row["partition_key"],
            }
            for row in rows
        ]
        facts["consumed"] = sorted(consumed, key=json.dumps)
    return {name: value for name, value in facts.items() if value}


def queued_assets(source: Source, dag_id: str) -> list[str]:
    """Return the assets with events that haven't started a run of the DAG yet."""
    with _reading(source) as database:
        rows = database.execute(
            "SELECT asset.name FROM asset_dag_run_queue JOIN asset ON asset.id = asset_id"
            " WHERE target_dag_id = ? ORDER BY asset.name",
            (dag_id,),
        ).fetchall()
    return [row["name"] for row in rows]


@contextlib.contextmanager
def _reading(source: Source) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(
        sqlite3.connect(f"file:{source.database}?mode=ro", uri=True, timeout=30)
    ) as database:
        database.row_factory = sqlite3.Row
        yield database


def key_of(task_id: str, map_index: int) -> str:
    """Return the name of a task instance in a result: ``task_id`` or ``task_id[map_index]``."""
    return task_id if map_index < 0 else f"{task_id}[{map_index}]"


def _tasks(database: sqlite3.Connection, dag_id: str, run_id: str, clean: Normaliser) -> dict[str, Any]:
    earlier: dict[tuple[str, int], list[list[Any]]] = {}
    for row in database.execute(
        "SELECT task_id, map_index, try_number, state FROM task_instance_history"
        " WHERE dag_id = ? AND run_id = ? ORDER BY try_number",
        (dag_id, run_id),
    ):
        earlier.setdefault((row["task_id"], row["map_index"]), []).append([row["try_number"], row["state"]])
    rendered = {
        (row["task_id"], row["map_index"]): dict(sorted(json.loads(row["rendered_fields"]).items()))
        for row in database.execute(
            "SELECT * FROM rendered_task_instance_fields WHERE dag_id = ? AND run_id = ?", (dag_id, run_id)
        )
    }
    tasks = {}
    for row in database.execute(
        "SELECT * FROM task_instance WHERE dag_id = ? AND run_id = ? ORDER BY task_id, map_index",
        (dag_id, run_id),
    ).fetchall():
        key = (row["task_id"], row["map_index"])
        task = {
            "state": row["state"],
            "try_number": row["try_number"],
            "max_tries": row["max_tries"],
            "earlier_tries": earlier.get(key, []),
            "label": clean(row["rendered_map_index"]),
            "reschedules": _first(
                database, "SELECT count(*) FROM task_reschedule WHERE ti_id = ?", row["id"]
            ),
            "note": _first(database, "SELECT content FROM task_instance_note WHERE ti_id = ?", row["id"]),
            "rendered": clean(rendered.get(key)),
        }
        # People read the recordings: default values are omitted.
        usual = {
            "max_tries": 0,
            "earlier_tries": [],
            "label": None,
            "reschedules": 0,
            "note": None,
            "rendered": None,
        }
        tasks[key_of(*key)] = {
            name: value for name, value in task.items() if name not in usual or value != usual[name]
        }
    return tasks


def _xcoms(database: sqlite3.Connection, dag_id: str, run_id: str, clean: Normaliser) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {}
    for row in database.execute(
        "SELECT task_id, map_index, key, value FROM xcom WHERE dag_id = ? AND run_id = ?"
        " ORDER BY task_id, map_index, key",
        (dag_id, run_id),
    ):
        # SQLite's JSON column returns a plain number as a number.
        value = json.loads(row["value"]) if isinstance(row["value"], str) else row["value"]
        if row["key"] == "skipmixin_key":
            # The list was made from a set, so its order is random.
            value = {name: sorted(task_ids) for name, task_ids in value.items()}
        if isinstance(value, dict) and value.get("responded_by_user"):
            # The user who runs the tests gets the name that a user of the REST API has on native Airflow.
            value["responded_by_user"] = {"id": "Anonymous", "name": "Anonymous"}
        found.setdefault(key_of(row["task_id"], row["map_index"]), {})[clean(row["key"])] = clean(value)
    return found


def _asset_events(database: sqlite3.Connection, dag_id: str, run_id: str, clean: Normaliser) -> list[Any]:
    rows = database.execute(
        "SELECT source_task_id, source_map_index, uri, asset.name, asset_event.extra, partition_key"
        " FROM asset_event"
        " JOIN asset ON asset.id = asset_event.asset_id WHERE source_dag_id = ? AND source_run_id = ?",
        (dag_id, run_id),
    )
    events = [
        {
            "task": key_of(row["source_task_id"], row["source_map_index"]),
            "asset": clean(row["name"]),
            "uri": clean(row["uri"]),
            "extra": clean(json.loads(row["extra"] or "{}")),
            **({"partition_key": row["partition_key"]} if row["partition_key"] is not None else {}),
        }
        for row in rows
    ]
    return sorted(events, key=json.dumps)


def _logs(folder: Path, clean: Normaliser) -> dict[str, list[str]]:
    said = {}
    for file in sorted(folder.rglob("attempt=*.log")):
        lines = []
        for entry in _entries(file.read_text(encoding="utf-8").splitlines()):
            raised = [
                f"{error['exc_type']}: {error['exc_value']}" for error in entry.get("error_detail") or []
            ]
            if raised or str(entry.get("logger")).startswith(USER_LOGGERS):
                text = " ".join([entry["event"], *raised])
                lines.append(f"{entry['level']} {entry.get('logger')}: {clean(text)}")
        name = TRIGGERER.sub(".trigger.log", str(file.relative_to(folder)))
        said[name] = _stable(lines)
    return said


def _entries(lines: Iterable[str]) -> Iterable[dict[str, Any]]:
    for line in lines:
        with contextlib.suppress(json.JSONDecodeError):
            yield json.loads(line)


def _stable(lines: list[str]) -> list[str]:
    """Order lines by stream, because lines of a pipe and of a logger can overtake each other."""
    streams = Counter(line.partition(":")[0].split()[-1] for line in lines)
    return [line for stream in sorted(streams) for line in lines if line.split(":")[0].endswith(f" {stream}")]


def _first(database: sqlite3.Connection, statement: str, *values: Any) -> Any:
    row = database.execute(statement, values).fetchone()
    return row[0] if row else None
