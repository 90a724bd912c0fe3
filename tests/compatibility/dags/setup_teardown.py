"""Setup and teardown, with failures in either of them."""

from __future__ import annotations

from airflow.sdk import DAG, setup, task, teardown
from oracle_lib.effects import run_callback

run_callbacks = {
    "on_success_callback": run_callback("run success"),
    "on_failure_callback": run_callback("run failure"),
}


def fail():
    raise ValueError("as planned")


def build(work_fails=False, setup_fails=False, teardown_fails=False, fail_dagrun=False, last=False):
    @setup
    def create():
        if setup_fails:
            fail()
        return "a cluster"

    @task
    def work():
        if work_fails:
            fail()
        return "worked"

    @task
    def more_work():
        return "worked more"

    @teardown(on_failure_fail_dagrun=fail_dagrun)
    def delete(cluster):
        if teardown_fails:
            fail()
        return f"deleted {cluster}"

    @task
    def after():
        return "after"

    created = create()
    deleted = delete(created)
    created >> work() >> more_work() >> deleted
    if not last:
        deleted >> after()


CASES = {
    "teardown_all_well": {},
    "teardown_after_failed_work": {"work_fails": True},
    "teardown_after_failed_setup": {"setup_fails": True},
    "teardown_fails": {"teardown_fails": True},
    "teardown_fails_last": {"teardown_fails": True, "last": True},
    "teardown_fails_and_counts": {"teardown_fails": True, "fail_dagrun": True, "last": True},
    "teardown_hides_no_failure": {"work_fails": True, "last": True},
}

for name, choices in CASES.items():
    with DAG(name, schedule=None, **run_callbacks):
        build(**choices)
