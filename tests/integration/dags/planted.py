"""Two DAGs with a planted text in every place that a user can put one; ids and names of classes are left out."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, Asset, BaseOperator, Param, TaskGroup, Variable, get_current_context, task
from airflow.sdk.bases.hook import BaseHook
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

SIZES = ["PLANTED-element"]
BASKET = Asset(name="planted_basket", uri="file:///planted", extra={"of": "PLANTED-asset-extra"})


def complain(context):
    raise RuntimeError("PLANTED-callback")


class Waits(BaseOperator):
    def execute(self, context):
        self.defer(
            trigger=TimeDeltaTrigger(timedelta(seconds=0.5)),
            method_name="resume",
            kwargs={"greeting": "PLANTED-next-kwargs"},
        )

    def resume(self, context, event, greeting):
        return greeting


with DAG(
    "planted",
    schedule=None,
    description="PLANTED-description",
    doc_md="PLANTED-dag-doc",
    dag_display_name="PLANTED-dag-name",
    tags=["PLANTED-tag"],
    owner_links={"PLANTED-owner": "https://example.com/PLANTED-link"},
    params={"size": Param("PLANTED-param", description="PLANTED-param-description")},
    default_args={"owner": "PLANTED-owner"},
    user_defined_macros={"greeting": "PLANTED-macro"},
    on_failure_callback=complain,
):

    @task(
        doc_md="PLANTED-task-doc",
        task_display_name="PLANTED-task-name",
        map_index_template="PLANTED-label {{ task.op_kwargs['size'] }}",
        retries=1,
        retry_delay=timedelta(milliseconds=50),
    )
    def cut(size):
        context = get_current_context()
        print("PLANTED-log", Variable.get("planted"), BaseHook.get_connection("planted").password)
        context["ti"].xcom_push("piece", "PLANTED-pushed")
        if context["ti"].try_number == 1:
            raise ValueError("PLANTED-exception")
        return {"piece": "PLANTED-xcom"}

    @task(on_failure_callback=complain)
    def fail():
        raise AirflowFailException("PLANTED-failure") from KeyError("PLANTED-cause")

    @task
    def skip():
        raise AirflowSkipException("PLANTED-skip")

    @task(trigger_rule="all_done")
    def misshapen():
        return "PLANTED-not-a-list"

    @task
    def never(piece):
        pass

    @task(outlets=[BASKET])
    def sell(*, outlet_events):
        outlet_events[BASKET].extra = {"for": "PLANTED-event-extra"}

    with TaskGroup("group", tooltip="PLANTED-tooltip", group_display_name="PLANTED-group-name"):
        Waits(task_id="waits")
        BashOperator(
            task_id="says",
            bash_command="echo $PLANTED PLANTED-command {{ greeting }} >&2; exit 3",
            env={"PLANTED": "PLANTED-environment"},
            append_env=True,
        )
        ApprovalOperator(
            task_id="asks",
            subject="PLANTED-subject",
            body="PLANTED-body",
            defaults="Approve",
            params={"why": Param("PLANTED-answer", type="string")},
            execution_timeout=timedelta(seconds=2),
        )

    cut.expand(size=SIZES)
    fail()
    skip()
    sell()
    never.expand(piece=misshapen())
    TriggerDagRunOperator(
        task_id="passes_on",
        trigger_dag_id="planted_too",
        trigger_run_id="passed_on",
        conf={"size": "PLANTED-passed-conf"},
        note="PLANTED-passed-note",
    )

with DAG("planted_too", schedule=None, description="PLANTED-second-description"):

    @task
    def receive():
        return get_current_context()["dag_run"].conf["size"]

    receive()
