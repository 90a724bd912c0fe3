"""Tasks that wait for a person, without an answer in time."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.hitl import (
    ApprovalOperator,
    HITLBranchOperator,
    HITLEntryOperator,
    HITLOperator,
)
from airflow.sdk import DAG, Param, TriggerRule, task
from oracle_lib.effects import task_callback

callbacks = {
    "on_retry_callback": task_callback("retry"),
    "on_failure_callback": task_callback("failure"),
    "on_success_callback": task_callback("success"),
    "retry_delay": timedelta(seconds=0.2),
}
SHORT = {"response_timeout": timedelta(seconds=0.7)}

with DAG("hitl_timeouts", schedule=None, default_args=callbacks):
    defaults = HITLOperator(
        task_id="defaults",
        subject="Which?",
        options=["a", "b"],
        defaults=["b"],
        params={"n": Param(3)},
        **SHORT,
    )
    several = HITLOperator(
        task_id="several", subject="Which?", options=["a", "b"], defaults=["a", "b"], multiple=True, **SHORT
    )
    nothing = HITLOperator(task_id="nothing", subject="Which?", options=["a", "b"], retries=1, **SHORT)
    entry = HITLEntryOperator(
        task_id="entry",
        subject="Say",
        options=["OK"],
        defaults=["OK"],
        params={"what": Param("that")},
        **SHORT,
    )
    rejected = ApprovalOperator(task_id="rejected", subject="May I?", defaults="Reject", **SHORT)
    approved = ApprovalOperator(task_id="approved", subject="May I?", defaults="Approve", **SHORT)
    branch = HITLBranchOperator(
        task_id="branch", subject="Where?", options=["left", "right"], defaults=["right"], **SHORT
    )

    @task
    def left():
        return "left"

    @task
    def right():
        return "right"

    @task
    def after_rejection():
        return "never"

    @task
    def after_approval():
        return "approved"

    @task(trigger_rule=TriggerRule.ALL_DONE)
    def end(ti=None):
        chosen = ti.xcom_pull(task_ids=["defaults", "several", "entry"])
        return [answer["chosen_options"] for answer in chosen]

    rejected >> after_rejection()
    approved >> after_approval()
    branch >> [left(), right()]
    [defaults, several, nothing, entry] >> end()
    mapped = HITLOperator.partial(task_id="mapped", subject="Which?", options=["a", "b"], **SHORT).expand(
        defaults=[["a"], ["b"]]
    )
