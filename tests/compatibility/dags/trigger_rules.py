"""Every trigger rule below every pair of upstream states."""

from __future__ import annotations

import time
from itertools import combinations

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, TriggerRule, task
from airflow.sdk.exceptions import AirflowSkipException

# This rule is for teardown tasks, which have their own file.
RULES = sorted(rule.value for rule in TriggerRule if rule != TriggerRule.ALL_DONE_SETUP_SUCCESS)

with DAG("trigger_rules", schedule=None):

    @task
    def good():
        return "fine"

    @task
    def bad():
        # After the skip: all_success is skipped or upstream_failed, depending on which the scheduler sees first.
        time.sleep(3)
        raise ValueError("as planned")

    @task
    def skipping():
        raise AirflowSkipException("as planned")

    states = {"good": good(), "bad": bad(), "skipping": skipping()}
    states["blocked"] = EmptyOperator(task_id="blocked")
    states["bad"] >> states["blocked"]

    for first, second in combinations(states, 2):
        for rule in RULES:
            [states[first], states[second]] >> EmptyOperator(
                task_id=f"{rule}.{first}.{second}".replace(".", "--"), trigger_rule=rule
            )
    for only in states:
        for rule in RULES:
            states[only] >> EmptyOperator(task_id=f"{rule}--{only}", trigger_rule=rule)

with DAG("trigger_rules_running", schedule=None):
    # The same rules with a leaf that runs in a process and has a downstream task.

    @task
    def one():
        return 1

    @task
    def none():
        # After the failure, for the same reason.
        time.sleep(3)
        raise AirflowSkipException("as planned")

    @task
    def broken():
        raise ValueError("as planned")

    upstream = [one(), none(), broken()]
    for rule in RULES:

        @task(task_id=rule, trigger_rule=rule)
        def leaf(ti=None):
            return ti.task_id

        upstream >> leaf() >> EmptyOperator(task_id=f"after_{rule}")
