"""Tasks that wait for a person, who answers."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.hitl import (
    ApprovalOperator,
    HITLBranchOperator,
    HITLEntryOperator,
    HITLOperator,
)
from airflow.sdk import DAG, BaseNotifier, Param, task
from oracle_lib.effects import leave, task_callback

callbacks = {
    "on_retry_callback": task_callback("retry"),
    "on_failure_callback": task_callback("failure"),
    "on_success_callback": task_callback("success"),
    "retry_delay": timedelta(seconds=0.2),
}


class Tells(BaseNotifier):
    """Writes a line."""

    template_fields = ("text",)

    def __init__(self, text):
        super().__init__()
        self.text = text

    def notify(self, context):
        leave(context, f"notified of {self.text}")


class FailsOnce(HITLOperator):
    """Fails on the first answer, and asks again."""

    def execute_complete(self, context, event):
        if context["ti"].try_number == 1:
            raise RuntimeError("ask again")
        return super().execute_complete(context, event)


with DAG("hitl_answers", schedule=None, default_args=callbacks, params={"of_the_dag": 1}):

    @task
    def topic():
        return "cats"

    question = {"subject": "About {{ ti.xcom_pull('topic') }}", "options": ["a", "b"]}
    one = HITLOperator(
        task_id="one",
        body="{{ ds_nodash | length }}",
        notifiers=[Tells("{{ ti.task_id }}"), Tells("it again")],
        **question,
    )
    topic() >> one
    HITLOperator(task_id="several", multiple=True, subject="Which?", options=["a", "b", "c"])
    form = {"what": Param("that", type="string"), "number": Param(3, type="integer", maximum=9)}
    entry = HITLEntryOperator(task_id="entry", subject="Say", params=form)
    HITLEntryOperator(task_id="entry_of_another_form", subject="Say", params=form)
    HITLEntryOperator(
        task_id="entry_out_of_range", subject="Say", params={"number": Param(3, type="integer", maximum=9)}
    )
    HITLOperator.partial(task_id="mapped", subject="Which?").expand(options=[["a", "b"], ["b", "c"]])
    FailsOnce(task_id="fails_once", retries=1, **question)
    HITLOperator(task_id="in_time", response_timeout=timedelta(minutes=5), defaults=["a"], **question)

    @task
    def entered(ti=None):
        answer = ti.xcom_pull("entry")
        return [answer["params_input"], answer["chosen_options"], type(answer["responded_at"]).__name__]

    entry >> entered()

with DAG("hitl_approvals", schedule=None, default_args=callbacks):
    approvals = [
        ApprovalOperator(task_id="approved", subject="May I?"),
        ApprovalOperator(task_id="rejected", subject="May I?", ignore_downstream_trigger_rules=True),
        ApprovalOperator(task_id="rejected_and_failed", subject="May I?", fail_on_reject=True),
    ]
    for approval in approvals:

        @task(task_id=f"after_{approval.task_id}")
        def after():
            return "after"

        @task(task_id=f"always_after_{approval.task_id}", trigger_rule="all_done")
        def always_after():
            return "always after"

        approval >> after() >> always_after()

with DAG("hitl_branches", schedule=None, default_args=callbacks):
    branch = HITLBranchOperator(
        task_id="branch",
        subject="Where?",
        options=["to the left", "to the right"],
        options_mapping={"to the left": "left", "to the right": "right"},
    )
    branches = HITLBranchOperator(
        task_id="branches", subject="Where?", options=["left_2", "right_2", "straight_2"], multiple=True
    )

    @task
    def leaf(ti=None):
        return ti.task_id

    branch >> [leaf.override(task_id=name)() for name in ("left", "right")]
    branches >> [leaf.override(task_id=name)() for name in ("left_2", "right_2", "straight_2")]
