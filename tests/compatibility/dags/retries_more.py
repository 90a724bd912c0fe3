"""When a task is tried again, and when it isn't."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

from airflow.sdk import (
    DAG,
    BaseOperator,
    ExceptionRetryPolicy,
    RetryAction,
    RetryDecision,
    RetryPolicy,
    RetryRule,
    task,
)
from airflow.sdk.exceptions import AirflowFailException
from oracle_lib.effects import leave, task_callback

callbacks = {
    "on_retry_callback": task_callback("retry"),
    "on_failure_callback": task_callback("failure"),
    "on_success_callback": task_callback("success"),
}


def waited(context) -> float:
    """Return the seconds since this task's previous try began."""
    mark = Path(f"{context['dag_run'].conf['effects']}.{context['ti'].task_id}")
    before, now = (float(mark.read_text()) if mark.exists() else None), time.time()
    mark.write_text(str(now))
    return 0.0 if before is None else now - before


with DAG("retry_delays", schedule=None, default_args=callbacks):

    @task(retries=1, retry_delay=timedelta(seconds=3))
    def plain(**context):
        if (seconds := waited(context)) == 0:
            raise ValueError("not yet")
        return seconds >= 3

    @task(
        retries=1,
        retry_delay=timedelta(seconds=60),
        retry_exponential_backoff=2.0,
        max_retry_delay=timedelta(seconds=2),
    )
    def exponential_with_a_limit(**context):
        if (seconds := waited(context)) == 0:
            raise ValueError("not yet")
        return 2 <= seconds < 60

    @task(retries=2, retry_delay=timedelta(seconds=1), retry_exponential_backoff=2.0)
    def exponential(**context):
        seconds = waited(context)
        if context["ti"].try_number <= 2:
            raise ValueError("not yet")
        # One second doubled, plus up to the same again.
        return seconds >= 2

    @task(retries=1, retry_delay=timedelta(seconds=0))
    def at_once(ti=None):
        if ti.try_number == 1:
            raise ValueError("not yet")
        return ti.try_number

    @task(retries=1, retry_delay=timedelta(seconds=0.5))
    def mapped(x, ti=None):
        if x == 2 and ti.try_number == 1:
            raise ValueError("not yet")
        if x == 3:
            raise AirflowFailException("never")
        return ti.try_number

    plain() >> at_once()
    exponential_with_a_limit()
    exponential()
    mapped.expand(x=[1, 2, 3])


class UpToTheTry(RetryPolicy):
    """A retry policy that decides by the try number."""

    def evaluate(self, exception, try_number, max_tries, context=None):
        if try_number == 1:
            return RetryDecision.retry(delay=timedelta(seconds=0.2), reason="the first time")
        if try_number == 2:
            return RetryDecision.default()
        return RetryDecision.fail("enough")


class Broken(RetryPolicy):
    """A retry policy that raises an error."""

    def evaluate(self, exception, try_number, max_tries, context=None):
        raise RuntimeError("no idea")


class OwnError(ConnectionError):
    """An error that belongs to a known kind."""


policy = ExceptionRetryPolicy(
    rules=[
        RetryRule(exception=ValueError, action=RetryAction.FAIL, reason="no use"),
        RetryRule(exception=["builtins.ConnectionError", KeyError], retry_delay=timedelta(seconds=0.2)),
        RetryRule(exception=ArithmeticError, match_subclasses=False, action=RetryAction.FAIL),
    ]
)

with DAG("retry_policies", schedule=None, default_args=callbacks):
    kinds = {
        "fails_at_once": ValueError,
        "subclass_is_tried_again": OwnError,
        "listed_is_tried_again": KeyError,
        "subclass_is_not_meant": ZeroDivisionError,
        "meant_exactly": ArithmeticError,
        "unknown_to_the_policy": TypeError,
        "never_asked": AirflowFailException,
    }
    for name in kinds:

        @task(
            task_id=name,
            retries=2,
            # The delay of the rule overrides this one.
            retry_delay=timedelta(hours=1) if "again" in name else timedelta(seconds=0.2),
            retry_policy=policy,
        )
        def raises(name, ti=None, **context):
            leave(context, f"{ti.task_id} try={ti.try_number}")
            raise kinds[name]("as planned")

        raises(name)

    @task(retries=5, retry_delay=timedelta(seconds=0.2), retry_policy=UpToTheTry())
    def up_to_the_try():
        raise RuntimeError("as planned")

    @task(retries=1, retry_delay=timedelta(seconds=0.2), retry_policy=Broken())
    def broken_policy():
        raise RuntimeError("as planned")

    @task(retry_policy=ExceptionRetryPolicy([RetryRule(exception=RuntimeError)]))
    def no_retries_left():
        raise RuntimeError("as planned")

    up_to_the_try()
    broken_policy()
    no_retries_left()


class Slow(BaseOperator):
    """Exceeds its timeout, and has an ``on_kill``."""

    def execute(self, context):
        leave(context, f"{self.task_id} try={context['ti'].try_number}")
        time.sleep(60)

    def on_kill(self):
        with Path(self.mark).open("a") as file:
            file.write("killed\n")

    def pre_execute(self, context):
        self.mark = context["dag_run"].conf["effects"]


class Insists(BaseOperator):
    """Continues after its timeout."""

    def execute(self, context):
        try:
            time.sleep(60)
        except BaseException as error:
            leave(context, f"{self.task_id} sees {type(error).__name__}")
            return "in spite of it"


with DAG("timeouts_and_kills", schedule=None, default_args=callbacks):
    Slow(
        task_id="slow",
        execution_timeout=timedelta(seconds=1),
        retries=1,
        retry_delay=timedelta(seconds=0.2),
    )
    Insists(task_id="insists", execution_timeout=timedelta(seconds=1))
