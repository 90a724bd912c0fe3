"""A run through Temporal alone, beside the same run through the database."""

from __future__ import annotations

import subprocess
import sys
import threading

import pandas as pd
import pytest

import temporal_airflow_nb as ta
from temporal_airflow_nb.client.temporal.client import WorkflowClient
from temporal_airflow_nb.config.environment import workflow_id
from temporal_airflow_nb.dag_runs.run import Run
from temporal_airflow_nb.errors import (
    DagNotFoundError,
    InvalidInputError,
    RunNotFoundError,
    ServiceUnavailableError,
    UnavailableHereError,
)
from temporal_airflow_nb.live_grid.grid_state import GridState
from temporal_airflow_nb.live_grid.poller import GridPoller
from temporal_airflow_nb.orchestration.workflow.models import DEEP_WORKFLOW, DagRunInput
from tests.support.paths import INTEGRATION_DAGS
from tests.support.proxy import Authority, Proxy
from tests.support.stack_helpers import with_client
from tests.support.waiting import until

FILE = INTEGRATION_DAGS / "two_clients.py"
DAG = "two_doors"
# SQLite reckons durations in days, as floating point numbers.
MILLISECONDS = pd.Timedelta("2ms")


@pytest.fixture(scope="module")
def client(stack):
    environment = stack.status()["env"]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE"):
            if name in environment:
                patch.setenv(name, environment[name])
        client = WorkflowClient()
        client.connect()
        yield client
        client.close()


class Follower(threading.Thread):
    """Merges a client's changes of a run until it has ended."""

    def __init__(self, client, run_id: str) -> None:
        super().__init__(daemon=True)
        self.client, self.run_id = client, run_id
        self.state = GridState(DAG, run_id)
        self.seen: list[dict[str, set]] = []
        self.full = 0

    def run(self) -> None:
        ended = False
        while not ended:
            answer = self.client.get_grid_changes(DAG, self.run_id, after=self.state.cursor, timeout=10)
            self.full += answer["full"]
            self.state.apply(answer)
            merged = self.state.full_state()
            self.seen.append({task["task_id"]: task["state"] for task in merged["tasks"]})
            ended = focus(merged)["state"] in ("success", "failed")


def focus(grid: dict) -> dict:
    return next(run for run in grid["runs"] if run["run_id"] == grid["run_id"])


@pytest.fixture(scope="module")
def followed(stack, client, tmp_path_factory):
    """A run that has ended, the follower that merged its changes through Temporal, and an answer halfway."""
    folder = tmp_path_factory.mktemp("two doors")
    run = stack.run(FILE, conf={"folder": str(folder)})
    until(lambda: knows(client, run.run_id), "the workflow has begun")
    follower = Follower(client, run.run_id)
    follower.start()
    until(lambda: any(seen.get("sew.finish.iron") == "skipped" for seen in follower.seen), "the rest is done")
    halfway = [client.get_grid_changes(DAG, run.run_id, timeout=0)]
    (folder / "go").touch()
    assert run.wait(timeout=60) == "failed"
    follower.join(60)
    assert not follower.is_alive()
    return run, follower, halfway[0]


def knows(client, run_id: str) -> bool:
    try:
        return bool(client.get_run(DAG, run_id)["tasks"])
    except RunNotFoundError:
        return False


def test_frames_of_tasks_agree(client, followed):
    run, *_ = followed
    seen = Run(client, DAG, run.run_id).tasks
    assert seen[["pool", "label"]].isna().all().all(), "the workflow isn't told pools and labels"
    known = ["pool", "label", "duration"]
    pd.testing.assert_frame_equal(seen.drop(columns=known), run.tasks.drop(columns=known))
    assert (seen["duration"] - run.tasks["duration"]).abs().max() < MILLISECONDS
    assert list(seen["duration"].isna()) == list(run.tasks["duration"].isna())


def check_grids(stack, client, run_id: str) -> dict:
    """Check that the grids through Temporal and through the database agree; return the first."""
    ours, theirs = (one.get_grid_changes(DAG, run_id, timeout=0) for one in (client, stack.client))
    for node in theirs["structure"]["nodes"]:
        node["doc"] = None
    assert ours["structure"] == theirs["structure"]
    assert focus(ours) == focus(theirs)
    for task in theirs["tasks"]:
        task["pool"] = task["label"] = None
    for mine, other in zip(ours["tasks"], theirs["tasks"], strict=True):
        assert mine.pop("duration") == pytest.approx(other.pop("duration"), abs=0.002)
    assert ours["tasks"] == theirs["tasks"]
    assert ours["workflow_id"] == theirs["workflow_id"]
    return ours


def test_grids_agree(stack, client, followed):
    run, *_ = followed
    ours = check_grids(stack, client, run.run_id)
    assert {len(task["tries"]) for task in ours["tasks"] if task["task_id"] == "cut"} == {0, 1}


def test_merged_changes_equal_the_whole_grid(client, followed):
    run, follower, _ = followed
    assert follower.full == 1
    fresh = GridState(DAG, run.run_id)
    fresh.apply(client.get_grid_changes(DAG, run.run_id, timeout=0))
    merged, whole = follower.state.full_state(), fresh.full_state()
    for name in ("structure", "tasks"):
        assert merged[name] == whole[name]
    assert focus(merged) == focus(whole)


def test_states_of_an_unfinished_run(followed):
    _, follower, halfway = followed
    assert focus(halfway)["state"] == "running"
    assert focus(halfway)["end_date"] is None
    tasks = {(task["task_id"], task["map_index"]): task for task in halfway["tasks"]}
    waiting = tasks["wait", -1]
    assert (waiting["state"], waiting["try_number"], waiting["end_date"]) == ("running", 1, None)
    assert waiting["start_date"] is not None
    assert tasks["sell", -1]["state"] is None
    assert tasks["cut", 1]["state"] == "success"
    assert [tried[:2] for tried in tasks["cut", 1]["tries"]] == [[1, "failed"]]
    assert follower.seen[-1]["count"] == "upstream_failed"


def test_other_runs_are_counted(stack, client, followed, tmp_path):
    run, *_ = followed
    (tmp_path / "go").touch()
    later = stack.run(FILE, conf={"folder": str(tmp_path)})
    assert later.wait(timeout=60) == "failed"

    def counted():
        answer = client.get_grid_changes(DAG, later.run_id, timeout=0)
        return answer if run.run_id in answer["cells"] else None

    answer = until(counted, "the other run is counted")
    theirs = stack.client.get_grid_changes(DAG, later.run_id, timeout=0)
    assert answer["cells"][run.run_id] == theirs["cells"][run.run_id]
    assert [one["run_id"] for one in answer["runs"]][:2] == [later.run_id, run.run_id]


def test_runs_are_listed(stack, client, followed):
    run, *_ = followed
    mine = ta.runs(DAG, client=client).set_index("run_id")
    assert mine.loc[run.run_id, "state"] == "failed"
    assert mine.loc[run.run_id, "run_type"] == "manual"
    assert len(ta.runs(DAG, state="success", client=client)) == 0
    assert client.list_runs(DAG, limit=1)[0]["dag_id"] == DAG
    with pytest.raises(DagNotFoundError, match="has no run of a DAG 'nowhere'"):
        ta.runs("nowhere", client=client)
    with pytest.raises(InvalidInputError, match="There is no run state 'lost'"):
        ta.runs(DAG, state="lost", client=client)


def test_events_are_those_of_the_gateway(client, followed):
    run, *_ = followed
    pd.testing.assert_frame_equal(Run(client, DAG, run.run_id).events, run.events)


def test_a_run_is_cancelled(stack, client, tmp_path):
    run = stack.run(FILE, conf={"folder": str(tmp_path)})
    until(lambda: knows(client, run.run_id), "the workflow has begun")
    seen = Run(client, DAG, run.run_id)
    until(lambda: "running" in set(seen.tasks["state"]), "a task runs")
    assert seen.cancel() == "failed"
    assert seen.wait(timeout=30) == run.wait(timeout=30) == "failed"
    by_task = dict(zip(seen.tasks["task_id"], seen.tasks["state"], strict=True))
    assert by_task["wait"] == "failed"
    assert list(seen.tasks["state"]) == list(run.tasks["state"])


def test_a_run_that_was_cleared_has_its_former_tries(stack, client, tmp_path):
    (tmp_path / "go").touch()
    run = stack.run(FILE, conf={"folder": str(tmp_path)})
    assert run.wait(timeout=60) == "failed"
    check_grids(stack, client, run.run_id)
    run.clear("sell", downstream=True)
    assert run.wait(timeout=60) == "failed"
    sold = until(lambda: ended_again(client, run.run_id), "the second execution has ended")
    assert [tried[:2] for tried in sold["tries"]] == [[1, "failed"]]
    check_grids(stack, client, run.run_id)


def ended_again(client, run_id: str) -> dict | None:
    answer = client.get_grid_changes(DAG, run_id, timeout=0)
    (sold,) = [task for task in answer["tasks"] if task["task_id"] == "sell"]
    return sold if focus(answer)["state"] == "failed" and sold["try_number"] == 2 else None


def test_an_error_says_that_no_worker_answers(stack, client):
    async def begin(temporal):
        return await temporal.start_workflow(
            DEEP_WORKFLOW, DagRunInput(DAG, "unserved"), id=workflow_id(DAG, "unserved"), task_queue="nobody"
        )

    async def end(temporal):
        await temporal.get_workflow_handle(workflow_id(DAG, "unserved")).terminate()

    with_client(stack, begin)
    try:
        with pytest.raises(ServiceUnavailableError, match="No worker answers for two_doors unserved"):
            client.without_retries().get_run(DAG, "unserved")
    finally:
        with_client(stack, end)


def test_a_refusal_says_what_an_operation_needs(client, followed):
    run = Run(client, DAG, followed[0].run_id)
    assert {"clear_tasks", "mark_tasks"} <= client.refusals.keys()
    with pytest.raises(UnavailableHereError, match="To read a log, Airflow's database or its API is needed"):
        run.logs("sizes")
    with pytest.raises(UnavailableHereError, match="To ask for Airflow's version") as caught:
        client.ping()
    assert "AIRFLOW_HOME" in caught.value.hint
    assert "cut" in repr(run.plot()), "a chart needs no former tries"


def test_an_error_names_an_unknown_run_and_the_known_runs(client, followed):
    run, *_ = followed
    with pytest.raises(RunNotFoundError, match=f"no run 'gone' of DAG '{DAG}'") as caught:
        client.get_run(DAG, "gone")
    assert run.run_id in caught.value.hint


def test_an_error_names_a_temporal_that_cannot_be_reached(monkeypatch):
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:9")
    client = WorkflowClient(retry_for=0)
    with pytest.raises(ServiceUnavailableError, match=r"127\.0\.0\.1:9 can't be reached"):
        client.list_runs()
    client.close()


def test_an_error_names_a_missing_namespace(client, monkeypatch):
    monkeypatch.setenv("TEMPORAL_NAMESPACE", "nowhere")
    with pytest.raises(InvalidInputError, match="has no namespace 'nowhere'"):
        WorkflowClient().connect()


def test_client_and_server_check_certificates(client, stack, tmp_path, monkeypatch):
    authority = Authority(tmp_path)
    certificate, key = authority.issue("client")
    with Proxy(stack.status()["env"]["TEMPORAL_ADDRESS"], authority.context()) as proxy:
        where = f'address = "{proxy.address}"\n'
        ours = f'client_cert_path = "{certificate}"\nclient_key_path = "{key}"\n'
        theirs = f'server_ca_cert_path = "{authority.certificate}"\n'
        profiles = {"good": ours + theirs, "doubtful": ours, "anonymous": theirs}
        text = "".join(
            f"[profile.{name}]\n{where}[profile.{name}.tls]\n{tls}" for name, tls in profiles.items()
        )
        (tmp_path / "temporal.toml").write_text(text)
        monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(tmp_path / "temporal.toml"))
        monkeypatch.delenv("TEMPORAL_ADDRESS")
        WorkflowClient("good").list_runs()
        with pytest.raises(ServiceUnavailableError, match="isn't signed by a trusted authority"):
            WorkflowClient("doubtful").connect()
        with pytest.raises(ServiceUnavailableError, match="client certificate"):
            WorkflowClient("anonymous").connect()


def test_a_poller_notices_that_temporal_is_gone_and_back(stack, followed, monkeypatch):
    run, *_ = followed
    with Proxy(stack.status()["env"]["TEMPORAL_ADDRESS"]) as proxy:
        monkeypatch.setenv("TEMPORAL_ADDRESS", proxy.address)
        poller = GridPoller(WorkflowClient(), DAG, run.run_id)
        poller.poll(retry=True)
        proxy.cut()

        def lost():
            try:
                poller.poll(0.5)
            except ServiceUnavailableError:
                return not poller.is_connected
            return False

        until(lost, "the connection is lost")
        proxy.mend()

        def back():
            try:
                poller.poll()
            except ServiceUnavailableError:
                return False
            return poller.is_connected

        until(back, "the connection is back")


def test_an_error_names_an_unknown_profile():
    with pytest.raises(InvalidInputError, match="no profile 'nowhere'"):
        WorkflowClient("nowhere").list_runs()


def test_no_airflow_is_imported():
    code = "import sys; import temporal_airflow_nb.client.temporal.client; sys.exit('airflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
