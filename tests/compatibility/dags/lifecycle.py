"""DAGs whose runs are cleared, marked and cancelled: see the script of the same name in ``oracle/scenarios.py``."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, TriggerRule, get_current_context, setup, task, task_group, teardown
from oracle_lib.effects import run_callback, task_callback
from oracle_lib.holding import FAR, Hold, Waits, hold, is_open

callbacks = {
    "on_failure_callback": task_callback("failure"),
    "on_retry_callback": task_callback("retry"),
    "on_success_callback": task_callback("success"),
}
run_callbacks = {
    "on_success_callback": run_callback("run success"),
    "on_failure_callback": run_callback("run failure"),
}
RETRIES = {"retries": 2, "retry_delay": FAR}


def fails_unless(name):
    if not is_open(get_current_context(), name):
        raise RuntimeError(f"{name} is closed")
    return name


with DAG("clear_running", schedule=None, default_args=callbacks, **run_callbacks):
    before = EmptyOperator(task_id="before")
    before >> Hold(task_id="plain") >> EmptyOperator(task_id="after")
    before >> Hold(task_id="retries", retries=1, retry_delay=timedelta(seconds=0.2))
    before >> Hold(task_id="stubborn", stubborn=True)
    quiet = {"on_failure_callback": None, "on_retry_callback": None}
    before >> Hold(task_id="no_callbacks", **RETRIES, **quiet)

with DAG("clear_finished", schedule=None, default_args=callbacks, **run_callbacks):

    @task
    def once_fails():
        return fails_unless("second")

    @task(trigger_rule=TriggerRule.ALL_DONE)
    def end():
        return "end"

    begin = EmptyOperator(task_id="begin")
    begin >> once_fails() >> EmptyOperator(task_id="blocked") >> end()
    begin >> Hold(task_id="holds")

with DAG("clear_mapped_instance", schedule=None, default_args=callbacks):

    @task
    def each(x):
        return fails_unless("mapped") if x == 1 else x

    @task
    def follow(values):
        return list(values)

    follow(each.expand(x=[0, 1, 2]))

with DAG("clear_changes_length", schedule=None):

    @task
    def numbers():
        context = get_current_context()
        return list(range(next(n for n in (4, 1, 0, 3) if n == 3 or is_open(context, str(n)))))

    @task
    def one(n):
        return n

    @task(trigger_rule=TriggerRule.ALL_DONE)
    def total(values):
        return sum(values)

    @task_group
    def group(n):
        @task
        def inner(m):
            return m

        inner(n) >> EmptyOperator(task_id="leaf")

    values = numbers()
    total(one.expand(n=values))
    group.expand(n=values)

with DAG("clear_upstream_of_running", schedule=None):
    EmptyOperator(task_id="up") >> task(lambda: 1, task_id="value")() >> Hold(task_id="down")

with DAG("clear_waiting", schedule=None, default_args=callbacks):
    waiting = [Waits(task_id=how, how=how, **RETRIES) for how in ("retry", "reschedule", "defer")]
    asks = ApprovalOperator(task_id="asks", subject="May I?")
    [*waiting, asks] >> EmptyOperator(task_id="after")

with DAG("clear_with_setup", schedule=None):

    @setup
    def open_it():
        return "open"

    @task
    def work():
        return fails_unless("work")

    @teardown
    def close_it():
        return "closed"

    opened = open_it()
    worked = work()
    opened >> worked >> close_it().as_teardown(setups=opened)
    worked >> EmptyOperator(task_id="after")

with DAG("clear_branch", schedule=None):

    @task.branch
    def choose():
        return "right" if is_open(get_current_context(), "right") else "left"

    join = EmptyOperator(task_id="join", trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS)
    choose() >> [EmptyOperator(task_id="left"), EmptyOperator(task_id="right")] >> join


def slow_callback(context):
    hold(context, "callback")
    run_callback("run success")(context)


with DAG("clear_while_finishing", schedule=None, on_success_callback=slow_callback):
    task(lambda: 1, task_id="a")() >> EmptyOperator(task_id="b")

with DAG("mark_running", schedule=None, default_args=callbacks, **run_callbacks):
    for name in ("good", "bad"):
        Hold(task_id=name, **RETRIES) >> EmptyOperator(task_id=f"after_{name}")
    Hold.partial(task_id="mapped").expand(name=["mapped 0", "mapped 1", "mapped 2"])
    EmptyOperator(task_id="seldom", trigger_rule=TriggerRule.ONE_FAILED) << Hold(task_id="skipped")

with DAG("mark_waiting", schedule=None, default_args=callbacks):
    for how in ("retry", "reschedule", "defer"):
        Waits(task_id=how, how=how, **RETRIES) >> EmptyOperator(task_id=f"after_{how}")
    ApprovalOperator(task_id="asks", subject="May I?") >> EmptyOperator(task_id="after_asks")

with DAG("mark_relatives", schedule=None):
    first = Hold(task_id="first")
    first >> Hold(task_id="middle") >> Hold(task_id="last") >> EmptyOperator(task_id="end")
    Hold(task_id="side") >> Hold(task_id="side_next") >> EmptyOperator(task_id="side_end")

with DAG("mark_reopens", schedule=None, default_args=callbacks, **run_callbacks):

    @task
    def never():
        raise RuntimeError("never")

    @task
    def follows():
        return "follows"

    never() >> follows() >> EmptyOperator(task_id="last")
    EmptyOperator(task_id="fine") >> EmptyOperator(task_id="fine_too")

with DAG("mark_run_success", schedule=None, default_args=callbacks):
    Hold(task_id="holds") >> EmptyOperator(task_id="after")
    Waits(task_id="defer", how="defer")
    Waits(task_id="retry", how="retry", **RETRIES)

with DAG("mark_run_failed", schedule=None, default_args=callbacks):
    Hold(task_id="holds", **RETRIES) >> EmptyOperator(task_id="after")
    Hold.partial(task_id="mapped").expand(name=["mapped 0", "mapped 1"])
    Hold(task_id="stubborn", stubborn=True)
    Waits(task_id="defer", how="defer")
    Waits(task_id="reschedule", how="reschedule")
    Waits(task_id="retry", how="retry", **RETRIES)
    EmptyOperator(task_id="done")

with DAG("fail_with_teardown", schedule=None, default_args=callbacks, **run_callbacks):

    @setup
    def create():
        return "created"

    @teardown
    def destroy():
        return "destroyed"

    created = create()
    created >> Hold(task_id="holds") >> destroy().as_teardown(setups=created)

with DAG(
    "times_out",
    schedule=None,
    dagrun_timeout=timedelta(seconds=20),
    default_args=callbacks,
    **run_callbacks,
):
    Hold(task_id="holds") >> EmptyOperator(task_id="after")
    Waits(task_id="defer", how="defer")
    Waits(task_id="retry", how="retry", **RETRIES)

with DAG("clear_timed_out", schedule=None, dagrun_timeout=timedelta(seconds=20), **run_callbacks):
    Hold(task_id="holds") >> EmptyOperator(task_id="after")
