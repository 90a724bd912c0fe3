"""Tasks that start runs of other DAGs, and tasks that wait for them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.providers.standard.sensors.external_task import ExternalTaskMarker, ExternalTaskSensor
from airflow.sdk import DAG, Param, TaskGroup, TriggerRule, chain, task
from airflow.sdk.exceptions import AirflowSkipException

with DAG("target", schedule=None, params={"word": Param("default", type="string")}):

    @task
    def tells(*, dag_run, params):
        return {"conf": dag_run.conf, "type": dag_run.run_type, "word": params["word"]}

    tells()

with DAG("failing_target", schedule=None):

    @task
    def fails():
        raise RuntimeError("as it should")

    fails()

with DAG("one_at_a_time", schedule=None, max_active_runs=1):
    BashOperator(task_id="sleeps", bash_command="sleep 0.3")

waiting: dict[str, Any] = {"wait_for_completion": True, "poke_interval": 1}

with DAG("triggers", schedule=None, default_args={"trigger_rule": TriggerRule.ALL_DONE}):
    chain(
        TriggerDagRunOperator(
            task_id="with_conf",
            trigger_dag_id="target",
            trigger_run_id="with-conf",
            conf={"dag": "{{ dag.dag_id }}", "word": "given", "n": 1},
            note="a note",
            **waiting,
        ),
        TriggerDagRunOperator(
            task_id="exists", trigger_dag_id="target", trigger_run_id="with-conf", conf={"word": "other"}
        ),
        TriggerDagRunOperator(
            task_id="exists_and_skips",
            trigger_dag_id="target",
            trigger_run_id="with-conf",
            skip_when_already_exists=True,
        ),
        TriggerDagRunOperator(
            task_id="exists_and_resets",
            trigger_dag_id="target",
            trigger_run_id="with-conf",
            reset_dag_run=True,
            **waiting,
        ),
        TriggerDagRunOperator(
            task_id="conf_is_refused", trigger_dag_id="target", trigger_run_id="refused", conf={"word": 3}
        ),
        TriggerDagRunOperator(task_id="no_such_dag", trigger_dag_id="there_is_no_such_dag", retries=0),
        TriggerDagRunOperator(
            task_id="waits_for_failing",
            trigger_dag_id="failing_target",
            trigger_run_id="failing-1",
            **waiting,
        ),
        TriggerDagRunOperator(
            task_id="failing_is_fine",
            trigger_dag_id="failing_target",
            trigger_run_id="failing-2",
            allowed_states=["success", "failed"],
            failed_states=[],
            **waiting,
        ),
        TriggerDagRunOperator(
            task_id="deferred", trigger_dag_id="target", trigger_run_id="deferred", deferrable=True, **waiting
        ),
        TriggerDagRunOperator(
            task_id="deferred_for_failing",
            trigger_dag_id="failing_target",
            trigger_run_id="failing-3",
            deferrable=True,
            **waiting,
        ),
        TriggerDagRunOperator(
            task_id="without_logical_date",
            trigger_dag_id="target",
            trigger_run_id="without-date",
            logical_date=None,
            **waiting,
        ),
        TriggerDagRunOperator.partial(task_id="mapped", trigger_dag_id="one_at_a_time", **waiting).expand(
            trigger_run_id=["mapped-a", "mapped-b"]
        ),
        TriggerDagRunOperator(
            task_id="does_not_wait", trigger_dag_id="target", trigger_run_id="not-waited-for"
        ),
    )


def sensed(dag_id):
    """Return a DAG with a task for each final state."""
    with DAG(dag_id, schedule=None) as dag:
        ok = EmptyOperator(task_id="ok")

        @task
        def bad():
            raise RuntimeError("as it should")

        @task
        def skips():
            raise AirflowSkipException("as it should")

        with TaskGroup("group") as group:
            EmptyOperator(task_id="a") >> EmptyOperator(task_id="b")

        marker = ExternalTaskMarker(task_id="marker", external_dag_id="senses", external_task_id="one")
        ok >> [bad(), skips(), group, marker]
    return dag


def sensors(prefix, dag_id, **options):
    """Return a sensor for each of these tasks."""
    common = {"external_dag_id": dag_id, "timeout": 120, "check_existence": True, **options}
    return [
        ExternalTaskSensor(task_id=f"{prefix}one", external_task_id="ok", **common),
        ExternalTaskSensor(task_id=f"{prefix}some", external_task_ids=["ok", "marker"], **common),
        ExternalTaskSensor(task_id=f"{prefix}of_a_group", external_task_group_id="group", **common),
        ExternalTaskSensor(
            task_id=f"{prefix}failed_dag", allowed_states=["failed"], failed_states=["success"], **common
        ),
        ExternalTaskSensor(
            task_id=f"{prefix}failed_task", external_task_id="bad", failed_states=["failed"], **common
        ),
        ExternalTaskSensor(
            task_id=f"{prefix}failed_softly",
            external_task_id="bad",
            failed_states=["failed"],
            soft_fail=True,
            **common,
        ),
        ExternalTaskSensor(
            task_id=f"{prefix}skipped_task", external_task_id="skips", skipped_states=["skipped"], **common
        ),
    ]


sensed("sensed")

with sensed("sensed_late") as late:
    # On native Airflow, a trigger that fires at once can overtake the executor's report that its task is deferred.
    BashOperator(task_id="sleeps", bash_command="sleep 12") >> late.get_task("ok")

with DAG("slow", schedule=None):
    BashOperator(task_id="sleeps", bash_command="sleep 3")

with DAG("senses", schedule=None):
    sensors("", "sensed", poke_interval=0.5)
    sensors("rescheduled_", "sensed", poke_interval=0.5, mode="reschedule")
    ExternalTaskSensor(task_id="templated", external_dag_id="sensed", external_task_id="{{ 'o' ~ 'k' }}")
    ExternalTaskSensor(
        task_id="by_a_function",
        external_dag_id="sensed",
        external_task_id="ok",
        execution_date_fn=lambda logical_date, **_: [logical_date],
    )
    ExternalTaskSensor(
        task_id="of_another_date",
        external_dag_id="sensed",
        external_task_id="ok",
        execution_delta=timedelta(days=1),
        poke_interval=0.5,
        timeout=1,
    )
    ExternalTaskSensor(
        task_id="no_such_dag", external_dag_id="there_is_no_such_dag", poke_interval=0.5, timeout=1
    )

with DAG("waits", schedule=None):
    starts_late = TriggerDagRunOperator(
        task_id="starts_late",
        trigger_dag_id="sensed_late",
        trigger_run_id="late-1",
        logical_date="{{ logical_date }}",
    )
    starts_late >> sensors("deferred_", "sensed_late", poke_interval=0.5, deferrable=True)
    starts_slow = TriggerDagRunOperator(
        task_id="starts_slow",
        trigger_dag_id="slow",
        trigger_run_id="slow-1",
        logical_date="{{ logical_date }}",
    )
    slow: dict[str, Any] = {"external_dag_id": "slow", "external_task_id": "sleeps"}
    starts_slow >> [
        ExternalTaskSensor(task_id="poking", poke_interval=0.5, **slow),
        ExternalTaskSensor(task_id="rescheduled", poke_interval=12, mode="reschedule", **slow),
    ]
