"""Mapped tasks."""

from __future__ import annotations

import time

from airflow.sdk import DAG, task, task_group
from airflow.sdk.exceptions import AirflowSkipException

with DAG("mapped_over_xcom", schedule=None):

    @task
    def numbers():
        return [3, 4, 5]

    @task(map_index_template="{{ task.op_kwargs['x'] if task.op_kwargs else task.op_args[0] }} squared")
    def square(x):
        return x * x

    @task
    def total(values):
        return sum(values)

    total(square.expand(x=numbers()))

with DAG("mapped_over_dict", schedule=None):

    @task
    def words():
        return {"a": 1, "b": 2}

    @task
    def pair(item):
        return list(item)

    pair.expand(item=words())

with DAG("mapped_zero", schedule=None):

    @task
    def nothing():
        return []

    @task
    def each(x):
        return x

    @task
    def join(values):
        return list(values)

    @task(trigger_rule="none_failed")
    def join_anyway(values):
        return list(values or [])

    @task(trigger_rule="all_done")
    def finish():
        return "finished"

    mapped = each.expand(x=nothing())
    join(mapped) >> finish()
    join_anyway(mapped)

with DAG("mapped_product", schedule=None):

    @task
    def letters():
        return ["a", "b"]

    @task
    def combine(x, y, sep):
        return f"{x}{sep}{y}"

    @task
    def spread(a, b=0):
        return a + b

    @task
    def upper(text):
        return text.upper()

    combined = combine.partial(sep="-").expand(x=[1, 2], y=letters())
    spread.expand_kwargs([{"a": 1}, {"a": 2, "b": 3}])
    upper.expand(text=combined)
    upper.override(task_id="exclaim").expand(text=letters().map(lambda letter: f"{letter}!"))
    upper.override(task_id="zipped").expand(text=letters().zip(letters()).map(lambda both: both[0] + both[1]))

with DAG("mapped_unequal", schedule=None):

    @task
    def inputs():
        return ["good", "skip", "bad"]

    @task
    def act(word):
        if word == "skip":
            raise AirflowSkipException("as planned")
        if word == "bad":
            # After the skip: all_success is skipped or upstream_failed, depending on which the scheduler sees first.
            time.sleep(3)
            raise ValueError("as planned")
        return word

    acted = act.expand(word=inputs())
    for rule in ("all_success", "all_done", "one_success", "one_failed", "none_failed", "none_skipped"):

        @task(task_id=rule, trigger_rule=rule)
        def collect(values):
            return list(values)

        collect(acted)

with DAG("mapped_skip_some", schedule=None):

    @task
    def some():
        return [1, 2, 3, 4]

    @task
    def only_even(x):
        if x % 2:
            raise AirflowSkipException("odd")
        return x

    @task(trigger_rule="none_failed_min_one_success")
    def gather(values):
        return list(values)

    gather(only_even.expand(x=some()))

with DAG("mapped_not_a_list", schedule=None):

    @task
    def wrong():
        return 3

    @task
    def per_item(x):
        return x

    per_item.expand(x=wrong())

with DAG("mapped_group", schedule=None):

    @task
    def tables():
        return ["users", "orders"]

    @task_group
    def copy(table):
        @task
        def extract(table):
            return f"{table} rows"

        @task(retries=1, retry_delay=0)
        def load(rows, ti=None):
            if ti.map_index == 1 and ti.try_number == 1:
                raise ValueError("once")
            return f"loaded {rows}"

        return load(extract(table))

    @task
    def report(loaded):
        return list(loaded)

    report(copy.expand(table=tables()))
