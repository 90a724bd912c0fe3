"""More ways to choose a branch, and to end one."""

from __future__ import annotations

import datetime
import sys

from airflow.providers.standard.operators.datetime import BranchDateTimeOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.latest_only import LatestOnlyOperator
from airflow.providers.standard.operators.python import (
    BranchExternalPythonOperator,
    BranchPythonOperator,
    ShortCircuitOperator,
)
from airflow.providers.standard.operators.weekday import BranchDayOfWeekOperator
from airflow.sdk import DAG, BaseBranchOperator, Label, task, task_group
from airflow.sdk.exceptions import AirflowFailException

JOIN = "none_failed_min_one_success"


def leaves(prefix, *names):
    return [EmptyOperator(task_id=f"{prefix}_{name}") for name in names]


with DAG("branch_operators", schedule=None, start_date=datetime.datetime(2024, 1, 1)):

    class ChooseByContext(BaseBranchOperator):
        def choose_branch(self, context):
            return f"own_{context['params']['side']}"

    own = ChooseByContext(task_id="own", params={"side": "right"})
    (
        own
        >> Label("a label")
        >> leaves("own", "left", "right")
        >> EmptyOperator(task_id="join", trigger_rule=JOIN)
    )

    # These branch on the run's logical date, 2024-03-05 in a recording, or on the current day.
    past = {"target_lower": datetime.datetime(2000, 1, 1), "target_upper": datetime.datetime(2001, 1, 1)}
    inside = {"target_lower": datetime.datetime(2001, 1, 1), "target_upper": datetime.datetime(3001, 1, 1)}
    for name, window in {"past": past, "inside": inside}.items():
        (
            BranchDateTimeOperator(
                task_id=name,
                follow_task_ids_if_true=[f"{name}_in"],
                follow_task_ids_if_false=[f"{name}_out"],
                **window,
            )
            >> leaves(name, "in", "out")
        )
    every_day = {"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"}
    (
        BranchDayOfWeekOperator(
            task_id="weekday",
            week_day=every_day,
            follow_task_ids_if_true="weekday_yes",
            follow_task_ids_if_false="weekday_no",
        )
        >> leaves("weekday", "yes", "no")
    )

    def choose_in_python(ti):
        ti.xcom_push(key="seen", value="pushed before choosing")
        return ["python_a", "python_c"]

    BranchPythonOperator(task_id="python", python_callable=choose_in_python) >> leaves(
        "python", "a", "b", "c"
    )

    def choose_elsewhere():
        return "external_b"

    (
        BranchExternalPythonOperator(
            task_id="external", python=sys.executable, python_callable=choose_elsewhere
        )
        >> leaves("external", "a", "b")
    )
    LatestOnlyOperator(task_id="latest") >> leaves("latest", "only")

with DAG("branch_oddly", schedule=None):

    @task.branch
    def to_empty_list():
        return []

    @task.branch
    def to_a_number():
        return 7

    @task.branch
    def to_a_task_further_down():
        return "further_down"

    @task.branch
    def to_both_and_a_group():
        return ["a_group", "beside_the_group"]

    @task.branch
    def fails():
        raise AirflowFailException("cannot decide")

    @task_group
    def a_group():
        @task_group
        def deeper():
            EmptyOperator(task_id="one") >> EmptyOperator(task_id="two")

        deeper()
        EmptyOperator(task_id="three")

    to_empty_list() >> leaves("empty", "one", "two")
    to_a_number() >> leaves("number", "one")
    below = EmptyOperator(task_id="further_down")
    start = to_a_task_further_down()
    start >> EmptyOperator(task_id="directly_below") >> below
    start >> EmptyOperator(task_id="not_chosen")
    to_both_and_a_group() >> [a_group(), *leaves("beside", "the_group"), *leaves("not", "chosen_either")]
    fails() >> leaves("failed", "one")

with DAG("branch_below_branch", schedule=None):

    @task.branch
    def outer():
        return "inner"

    @task.branch
    def inner():
        return "inner_b"

    @task.branch
    def other():
        return "other_a"

    first, second, third = outer(), inner(), other()
    first >> [second, third]
    join = EmptyOperator(task_id="join", trigger_rule=JOIN)
    second >> leaves("inner", "a", "b") >> join
    third >> leaves("other", "a", "b") >> join
    join >> EmptyOperator(task_id="end")

with DAG("branch_within_a_mapped_group", schedule=None):

    @task_group
    def per_number(number):
        @task.branch
        def pick(number):
            return "per_number.odd" if number % 2 else "per_number.even"

        picked = pick(number)
        joined = EmptyOperator(task_id="joined", trigger_rule=JOIN)
        picked >> [EmptyOperator(task_id="odd"), EmptyOperator(task_id="even")] >> joined

    per_number.expand(number=[1, 2, 3])

    @task.branch
    def pick_mapped(number):
        return "chosen_odd" if number % 2 else "chosen_even"

    pick_mapped.expand(number=[1, 3]) >> leaves("chosen", "odd", "even")

with DAG("short_circuit_more", schedule=None):
    teardown_after = EmptyOperator(task_id="clean_up").as_teardown()
    (
        ShortCircuitOperator(task_id="stop", python_callable=lambda: 0)
        >> EmptyOperator(task_id="stopped")
        >> teardown_after
    )

    @task.short_circuit
    def stop_in_group():
        return None

    @task_group
    def beside():
        EmptyOperator(task_id="a") >> EmptyOperator(task_id="b", trigger_rule="always")

    stop_in_group() >> beside() >> EmptyOperator(task_id="after_group", trigger_rule="all_done")

    @task.short_circuit
    def stop_some(number):
        return number > 1

    stop_some.expand(number=[1, 2]) >> EmptyOperator(task_id="below_some")

    @task.short_circuit(ignore_downstream_trigger_rules=False)
    def stop_broken():
        raise ValueError("as planned")

    stop_broken() >> EmptyOperator(task_id="below_broken", trigger_rule="one_failed")
