"""No user data enters Temporal: a text is planted in every place that a user can put one, then Temporal is searched."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from temporal_airflow_nb.orchestration.workflow.grid_encoding import UnreadableGridError, unpack
from tests.support.stack_helpers import DAGS, with_client
from tests.support.waiting import until

MARK = "PLANTED"
# Three alignments of the same text in base64, each without the characters that depend on its neighbours.
ENCODED = [base64.b64encode(b"\0" * shift + MARK.encode())[4 * (shift > 0) + 1 : -4] for shift in range(3)]
PLACE = re.compile(rf"{MARK}-[a-z-]+")


@pytest.fixture(scope="module")
def run(ui_stack, airflow_api, tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    (folder / "connections.json").write_text(
        json.dumps({"planted": {"conn_type": "http", "password": f"{MARK}-password", "host": f"{MARK}-host"}})
    )
    (folder / "variables.json").write_text(json.dumps({"planted": f"{MARK}-variable"}))
    run = ui_stack.run(
        DAGS / "planted.py",
        dag_id="planted",
        conf={"size": f"{MARK}-conf"},
        connections=folder / "connections.json",
        variables=folder / "variables.json",
    )
    airflow_api.unpause("planted_too")
    path = f"dags/planted/dagRuns/{run.run_id.replace('+', '%2B')}"
    airflow_api.patch(path, {"note": f"{MARK}-run-note"})
    airflow_api.patch(f"{path}/taskInstances/skip", {"note": f"{MARK}-task-note"})
    assert run.wait(timeout=120) == "failed"
    # A user's actions afterwards: the second workflow of the run reads all of it again.
    run.clear("fail")
    until(lambda: run.state == "failed" and run.tasks.set_index("task_id").loc["fail", "try_number"] == 2)
    assert run.tasks.set_index("task_id").loc["passes_on", "state"] == "success", run.tasks
    assert airflow_api.wait("planted_too", "passed_on") == "success"
    return run


def planted_in(text: str | bytes) -> set[str]:
    text = text.decode("latin-1") if isinstance(text, bytes) else text
    return set(PLACE.findall(text)) | ({MARK} if MARK in text else set())


def values(message: Any) -> Iterator[str]:
    """Yield each text of a message, with the contents of payloads and of packed grids."""
    if isinstance(message, dict):
        for key, value in message.items():
            yield key
            yield from values(value)
    elif isinstance(message, list):
        for value in message:
            yield from values(value)
    elif isinstance(message, str):
        yield message
        try:
            decoded = base64.b64decode(message, validate=True)
        except ValueError:
            return
        yield decoded.decode("latin-1")
        with contextlib.suppress(ValueError):
            yield from values(json.loads(decoded))
        with contextlib.suppress(UnreadableGridError):
            yield json.dumps(unpack(message))


def test_the_texts_were_planted(ui_stack, run):
    """Otherwise the search below would find nothing because there is nothing to find."""
    with sqlite3.connect(f"file:{ui_stack.home}/airflow/airflow.db?mode=ro", uri=True) as database:
        stored = "\n".join(database.iterdump())
    found = planted_in(stored)
    wanted = set(PLACE.findall((DAGS / "planted.py").read_text()))
    # Airflow encrypts passwords and the arguments of triggers, stores no messages of exceptions, and no macros.
    unseen = {
        "log",
        "exception",
        "failure",
        "cause",
        "skip",
        "callback",
        "macro",
        "not-a-list",
        "next-kwargs",
    }
    assert wanted - found <= {f"{MARK}-{place}" for place in unseen}
    assert {f"{MARK}-{place}" for place in ("conf", "run-note", "task-note", "host", "label")} <= found
    logs = "\n".join(path.read_text() for path in (ui_stack.home / "airflow" / "logs").rglob("*.log"))
    messages = {"log", "exception", "failure", "skip"}
    assert {f"{MARK}-{place}" for place in messages} <= planted_in(logs)


def test_the_server_s_files_contain_none_of_them(ui_stack, run):
    files = sorted(ui_stack.home.glob("temporal.db*"))
    assert files
    for path in files:
        content = path.read_bytes()
        assert planted_in(content) == set(), path.name
        assert not any(encoded in content for encoded in ENCODED), path.name


def test_no_history_and_no_answer_of_a_workflow_contains_one(ui_stack, run):
    async def read(client):
        found = []
        async for execution in client.list_workflows():
            handle = client.get_workflow_handle(execution.id, run_id=execution.run_id)
            description = await handle.describe()
            found.append(MessageToDict(description.raw_description))
            found.append(json.loads((await handle.fetch_history()).to_json()))
            if execution.id == run.workflow_id:
                found += [await handle.query(name) for name in ("grid", "progress", "task_states")]
        return found

    messages = with_client(ui_stack, read)
    texts = "\n".join(text for message in messages for text in values(message))
    assert "cut" in texts
    assert '"label": "receive"' in texts, "packed structures are searched"
    assert planted_in(texts) == set()
