"""The links between the UIs of Airflow and Temporal, and ``airflow temporal``, in an Airflow below a path."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

import pytest

from temporal_airflow_nb.stack.services import ports
from tests.production.cluster import TIMEOUT
from tests.production.cluster_behind_path import link_of, new_cluster
from tests.production.services import Service
from tests.support.waiting import until

# Processes start slowly on a busy machine.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def airflow(tmp_path_factory):
    with new_cluster(tmp_path_factory.mktemp("pages")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def ended_run(airflow):
    """Return the id of a run that Temporal has executed."""
    (airflow.traces / "before").touch()
    airflow.trigger("lasting", "before")
    assert airflow.wait_for_end("lasting", "before") == "success"
    return "before"


def page_of(cluster, dag_id: str, run_id: str, address: str | None = None) -> tuple[int, str]:
    query = urllib.parse.urlencode({"dag_id": dag_id, "run_id": run_id})
    url = f"{address or cluster.url}/temporal-airflow/run?{query}"
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def command(cluster, name: str, **environment: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "temporal", name, "--output", "json"],
        env={**cluster.environment, **environment},
        cwd=cluster.folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def doctor(cluster, **environment: str) -> tuple[int, dict[str, dict[str, str]]]:
    code, output, _ = command(cluster, "doctor", **environment)
    return code, {check["check"]: check for check in json.loads(output)["checks"]}


def status(cluster) -> dict:
    code, output, errors = command(cluster, "status")
    assert code == 0, errors
    return json.loads(output)


def test_the_workflow_links_to_the_run_in_airflow(airflow, ended_run):
    async def details(client):
        description = await client.get_workflow_handle(f"airflow-lasting-{ended_run}").describe()
        return await description.static_details()

    assert f"({airflow.url}/dags/lasting/runs/{ended_run})" in airflow.temporal(details)


def test_a_run_of_airflow_has_no_link_to_temporal(airflow):
    airflow.trigger("native_one", "native")
    assert airflow.wait_for_end("native_one", "native") == "success"
    assert link_of(airflow, "native_one", "native", "ends") is None
    code, page = page_of(airflow, "native_one", "native")
    assert code == 200
    assert "Not executed by Temporal" in page
    assert "Open in Temporal" not in page


def test_a_deleted_run_leaves_no_record(airflow):
    (airflow.traces / "deleted").touch()
    airflow.trigger("lasting", "deleted")
    assert airflow.wait_for_end("lasting", "deleted") == "success"
    airflow.api("DELETE", "dags/lasting/dagRuns/deleted")
    code, page = page_of(airflow, "lasting", "deleted")
    assert code == 404
    assert "No such run" in page
    airflow.restart("worker")
    rows = "SELECT run_id FROM temporal_airflow_workflow WHERE run_id = 'deleted'"
    until(lambda: airflow.query(rows) == [], "the deletion of the run's row", TIMEOUT)


def test_only_users_with_the_right_to_read_the_run_see_its_page(airflow, ended_run):
    port = ports.choose(["closed"])["closed"]
    environment = {**airflow.environment, "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False"}
    address = ("--host", ports.LOOPBACK, "--port", str(port))
    server = Service(
        "closed-api-server",
        [sys.executable, "-m", "airflow", "api-server", *address],
        environment,
        airflow.folder,
    )
    server.start()
    url = f"http://{ports.LOOPBACK}:{port}/behind/a/path"

    def answer() -> tuple[int, str] | None:
        assert server.is_running, server.tail()
        try:
            return page_of(airflow, "lasting", ended_run, url)
        except OSError:
            return None

    try:
        code, page = until(answer, "the API server", TIMEOUT)
    finally:
        server.kill()
    assert code == 401
    assert "You are not logged in" in page
    assert ended_run not in page


def test_runs_wait_visibly_while_temporal_is_out_of_reach(airflow):
    def audit_lines() -> list:
        found = airflow.api("GET", "eventLogs?dag_id=lasting&run_id=waits&event=temporal%20unreachable")
        return found["event_logs"]

    (airflow.traces / "waits").touch()
    airflow.stop("temporal")
    try:
        airflow.trigger("lasting", "waits")
        airflow.wait_for(audit_lines, "a line of the audit log about the run")
        seen = airflow.query("SELECT seen_at FROM temporal_airflow_worker ORDER BY seen_at DESC LIMIT 1")
        later = "SELECT seen_at FROM temporal_airflow_worker WHERE seen_at > :seen"
        airflow.wait_for(
            lambda: airflow.query(later, seen=seen[0]["seen_at"]), "another heartbeat of the worker"
        )
        assert len(audit_lines()) == 1
        assert "can't be reached" in audit_lines()[0]["extra"]
        airflow.wait_for(
            lambda: "has been out of reach since" in page_of(airflow, "lasting", "waits")[1],
            "the outage on the page of the run",
        )
        facts = status(airflow)
        assert [worker["state"] for worker in facts["workers"]].count("unreachable") == 1
        assert facts["outbox"]["messages"] >= 1
        code, checks = doctor(airflow)
        assert code == 3
        assert {name for name, check in checks.items() if check["state"] == "problem"} >= {
            "temporal",
            "worker",
        }
    finally:
        airflow.start("temporal")
    airflow.wait_until_ready()
    assert airflow.wait_for_end("lasting", "waits") == "success"


def test_the_doctor_finds_no_problem_and_status_shows_the_counts(airflow, ended_run):
    def finds_no_problem() -> bool:
        code, checks = doctor(airflow)
        return code == 0 and all(check["state"] == "ok" for check in checks.values())

    until(finds_no_problem, "a doctor without problems", TIMEOUT)
    facts = status(airflow)
    assert (facts["orchestrator"], facts["dags"], facts["runs"]) == ("on", "*, !native_*", 0)
    assert [worker["task_queues"] for worker in facts["workers"] if worker["state"] == "running"] == [
        "airflow-tasks, airflow-tasks-triggers"
    ]


def test_the_doctor_names_wrong_settings_and_the_remedy(airflow):
    create_namespace(airflow, "bare")
    code, checks = doctor(
        airflow,
        AIRFLOW__CORE__ORCHESTRATOR="no.such.Orchestrator",
        AIRFLOW__TEMPORAL_AIRFLOW__DAGS="a,,b",
        AIRFLOW__TEMPORAL_AIRFLOW__UI_URL="javascript:x",
        TEMPORAL_NAMESPACE="bare",
    )
    assert code == 2
    for check, text in {
        "orchestrator": "temporal_airflow_nb.orchestrator.TemporalOrchestrator",
        "dags": "empty pattern",
        "links": "https://",
        "temporal": "search-attribute create --namespace bare --name AirflowDagId",
    }.items():
        assert checks[check]["state"] == "problem"
        assert text in checks[check]["detail"] + checks[check]["next_step"]


def test_the_doctor_names_a_missing_namespace(airflow):
    code, checks = doctor(airflow, TEMPORAL_NAMESPACE="absent")
    assert code == 3
    assert "absent" in checks["temporal"]["detail"]


def create_namespace(cluster, name: str) -> None:
    from google.protobuf.duration_pb2 import Duration
    from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
    from temporalio.service import RPCError

    async def create(client) -> bool:
        request = RegisterNamespaceRequest(
            namespace=name, workflow_execution_retention_period=Duration(seconds=86_400)
        )
        await client.workflow_service.register_namespace(request)
        return True

    async def exists(client) -> bool:
        from temporalio.client import Client

        of_namespace = await Client.connect(client.service_client.config.target_host, namespace=name)
        try:
            await of_namespace.count_workflows()
        except RPCError:
            return False
        return True

    assert cluster.temporal(create)
    until(lambda: cluster.temporal(exists), "the namespace", TIMEOUT)


def test_status_names_the_remedy_for_missing_tables(airflow, tmp_path):
    database = f"sqlite:///{tmp_path / 'empty.db'}"
    code, _, errors = command(airflow, "status", AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=database)
    assert code == 2
    assert "airflow db migrate" in errors
    assert "Traceback" not in errors
