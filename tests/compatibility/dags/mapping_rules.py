"""Every trigger rule below mapped tasks whose instances end differently."""

from __future__ import annotations

import time

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, TriggerRule, task, task_group
from airflow.sdk.exceptions import AirflowSkipException

RULES = sorted(rule.value for rule in TriggerRule if rule != TriggerRule.ALL_DONE_SETUP_SUCCESS)
MIXES = {
    "good_bad": ["good", "bad"],
    "good_skip": ["good", "skip"],
    "skip_bad": ["skip", "late bad"],
    "all_three": ["good", "skip", "late bad"],
    "only_bad": ["bad", "bad"],
    "only_skip": ["skip", "skip"],
    "none": [],
}


class Word(EmptyOperator):
    """A mapped task that needs no process."""

    def __init__(self, *, word: str, **kwargs):
        super().__init__(**kwargs)
        self.word = word


def end_as(word):
    if word == "skip":
        raise AirflowSkipException("as planned")
    if word == "late bad":
        # After the skip: all_success is skipped or upstream_failed, depending on which the scheduler sees first.
        time.sleep(3)
    if word.endswith("bad"):
        raise ValueError("as planned")
    return word


for name, words in MIXES.items():
    with DAG(f"mapping_rules_{name}", schedule=None):

        @task
        def act(word):
            return end_as(word)

        @task
        def none():
            return []

        acted = act.expand(word=words or none())
        for rule in RULES:
            acted >> EmptyOperator(task_id=f"plain_{rule}", trigger_rule=rule)
            mapped = Word.partial(task_id=f"mapped_{rule}", trigger_rule=rule).expand(word=["a", "b"])
            acted >> mapped >> EmptyOperator(task_id=f"below_mapped_{rule}")

with DAG("mapping_rules_group", schedule=None):

    @task
    def words():
        return MIXES["all_three"]

    @task_group
    def act_and_follow(word):
        @task
        def act_in_group(word):
            return end_as(word)

        acted = act_in_group(word)
        for rule in RULES:
            if rule != "always":  # Airflow doesn't allow this rule here.
                acted >> EmptyOperator(task_id=f"in_group_{rule}", trigger_rule=rule)
        acted >> EmptyOperator(task_id="last")

    group = act_and_follow.expand(word=words())
    for rule in RULES:
        group >> EmptyOperator(task_id=f"below_group_{rule}", trigger_rule=rule)
