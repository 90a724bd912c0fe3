"""Setups and teardowns in groups, mapped, nested, and with trigger rules."""

from __future__ import annotations

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, setup, task, task_group, teardown
from airflow.sdk.exceptions import AirflowSkipException
from oracle_lib.effects import run_callback

run_callbacks = {
    "on_success_callback": run_callback("run success"),
    "on_failure_callback": run_callback("run failure"),
}


def empty(task_id, **kwargs):
    return EmptyOperator(task_id=task_id, **kwargs)


@task
def fails():
    raise ValueError("as planned")


@task
def skips():
    raise AirflowSkipException("as planned")


with DAG("teardown_scopes", schedule=None, **run_callbacks):
    for name, work in {"well": empty, "failed": None, "skipped": None}.items():
        create = empty(f"create_{name}").as_setup()
        if name == "failed":
            worked = fails.override(task_id="work_failed")()
        elif name == "skipped":
            worked = skips.override(task_id="work_skipped")()
        else:
            worked = work("work_well")
        delete = empty(f"delete_{name}").as_teardown(setups=create)
        create >> worked >> empty(f"more_{name}") >> delete
        delete >> empty(f"after_{name}")
    with empty("create_with").as_setup() >> empty("delete_with").as_teardown():
        empty("inside_one") >> fails.override(task_id="inside_two")() >> empty("inside_three")

with DAG("teardown_several", schedule=None, **run_callbacks):
    good_setup = empty("good_setup").as_setup()
    bad_setup = fails.override(task_id="bad_setup")().as_setup()
    good_teardown = empty("good_teardown").as_teardown(setups=good_setup)
    bad_teardown = empty("bad_teardown").as_teardown(setups=bad_setup)
    both_teardown = empty("both_teardown").as_teardown(setups=[good_setup, bad_setup])
    work = empty("work")
    [good_setup, bad_setup] >> work >> [good_teardown, bad_teardown, both_teardown]
    good_setup >> empty("only_needs_the_good_one") >> good_teardown

with DAG("teardown_nested", schedule=None, **run_callbacks):
    outer_setup, inner_setup = empty("outer_setup").as_setup(), empty("inner_setup").as_setup()
    inner_teardown = fails.override(task_id="inner_teardown")().as_teardown(setups=inner_setup)
    outer_teardown = empty("outer_teardown").as_teardown(setups=outer_setup)
    outer_setup >> inner_setup >> empty("work") >> inner_teardown >> outer_teardown
    outer_setup >> empty("beside") >> outer_teardown

with DAG("teardown_of_skipped_setup", schedule=None, **run_callbacks):
    skipped_setup = skips.override(task_id="skipped_setup")().as_setup()
    skipped_setup >> empty("work") >> empty("teardown").as_teardown(setups=skipped_setup)

with DAG("teardown_without_setup", schedule=None, **run_callbacks):
    fails() >> empty("more") >> empty("teardown").as_teardown()

with DAG("teardown_fails_and_counts_among_leaves", schedule=None, **run_callbacks):
    counting = fails.override(task_id="counting")().as_teardown(on_failure_fail_dagrun=True)
    ignored = fails.override(task_id="ignored")().as_teardown()
    empty("work") >> [counting, ignored]
    empty("other_leaf")

with DAG("teardown_in_groups", schedule=None, **run_callbacks):

    @task_group
    def with_cluster():
        @setup
        def create():
            return "a cluster"

        @teardown
        def delete(cluster):
            return f"deleted {cluster}"

        created = create()
        created >> fails.override(task_id="work")() >> delete(created)

    @task_group
    def after():
        empty("one") >> empty("two")

    with_cluster() >> after()

with DAG("teardown_mapped", schedule=None, **run_callbacks):

    @setup
    def make(name):
        if name == "b":
            raise ValueError("as planned")
        return name

    @task
    def use(name):
        return f"used {name}"

    @teardown
    def remove(name):
        return f"removed {name}"

    made = make.expand(name=["a", "b"])
    made >> use.expand(name=["x", "y"]) >> remove.expand(name=made)

with DAG("teardown_in_mapped_group", schedule=None, **run_callbacks):

    @task_group
    def each(name):
        @setup
        def open_one(name):
            if name == "closed":
                raise ValueError("as planned")
            return name

        @task
        def work_in(name):
            if name == "broken":
                raise ValueError("as planned")
            return name

        @teardown
        def close_one(name):
            return f"closed {name}"

        opened = open_one(name)
        closed = close_one(opened).as_teardown(setups=opened)
        opened >> work_in(name) >> closed

    each.expand(name=["fine", "broken", "closed"]) >> empty("after_all")

with DAG("teardown_and_fail_fast", schedule=None, fail_fast=True, **run_callbacks):
    begun = empty("begun").as_setup()
    ended = empty("ended").as_teardown(setups=begun)
    begun >> fails() >> empty("never") >> ended
