"""Tasks that wait for a trigger instead of a worker."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator, TriggerRule, task
from airflow.sdk.exceptions import TaskDeferralTimeout
from airflow.triggers.base import StartTriggerArgs
from oracle_lib.effects import leave, task_callback

SHORT = timedelta(seconds=0.5)


class Waits(BaseOperator):
    """Defers a given number of times, and returns the events of its triggers."""

    template_fields = ("greeting",)

    def __init__(self, *, times: int = 1, greeting: str = "", timeout: timedelta | None = None, **kwargs):
        super().__init__(**kwargs)
        self.times = times
        self.greeting = greeting
        self.timeout = timeout

    def execute(self, context):
        leave(context, f"{self.task_id} begins, try {context['ti'].try_number}")
        self._defer(1)

    def _defer(self, number):
        self.defer(
            trigger=TimeDeltaTrigger(SHORT if self.timeout is None else timedelta(seconds=60)),
            method_name="resumed",
            kwargs={"number": number},
            timeout=self.timeout,
        )

    def resumed(self, context, number, event=None):
        leave(context, f"{self.task_id} resumed {number}, try {context['ti'].try_number}")
        if number < self.times:
            self._defer(number + 1)
        return {"number": number, "event": type(event).__name__, "greeting": self.greeting}


class FailsOnce(Waits):
    """Fails after the deferral of its first try, succeeds after that of its second try."""

    def resumed(self, context, number, event=None):
        if context["ti"].try_number == 1:
            raise RuntimeError("after the deferral")
        return super().resumed(context, number, event)


class GivesUp(Waits):
    """Catches its timeout."""

    def resume_execution(self, next_method, next_kwargs, context):
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout as error:
            leave(context, f"{self.task_id} timed out")
            return type(error).__name__


callbacks = {
    "on_retry_callback": task_callback("retry"),
    "on_failure_callback": task_callback("failure"),
    "on_success_callback": task_callback("success"),
    "retry_delay": timedelta(seconds=0.2),
}

with DAG("deferral", schedule=None, default_args=callbacks):
    once = Waits(task_id="once", greeting="{{ ti.task_id }} at {{ ds }}")
    thrice = Waits(task_id="thrice", times=3)
    fails_once = FailsOnce(task_id="fails_once", retries=1)

    @task
    def gather(results, ti=None):
        return [results, ti.xcom_pull(task_ids=["thrice", "fails_once"])]

    [thrice, fails_once] >> gather(once.output)

    Waits.partial(task_id="mapped").expand(times=[1, 2])

with DAG("deferral_timeout", schedule=None, default_args=callbacks):
    late = Waits(task_id="late", timeout=timedelta(seconds=0.7))
    late_twice = Waits(task_id="late_twice", timeout=timedelta(seconds=0.5), retries=1)
    caught = GivesUp(task_id="caught", timeout=timedelta(seconds=0.5))
    execution = Waits(
        task_id="execution_timeout", timeout=timedelta(seconds=1.5), execution_timeout=timedelta(seconds=1)
    )

    @task(trigger_rule=TriggerRule.ALL_DONE)
    def after():
        return "after"

    [late, late_twice, caught, execution] >> after()

with DAG("deferral_broken_triggers", schedule=None, default_args=callbacks):

    class Broken(BaseOperator):
        """Waits for a trigger that fails."""

        def __init__(self, *, trigger: str, **kwargs):
            super().__init__(**kwargs)
            self.trigger = trigger

        def execute(self, context):
            from airflow.triggers.testing import FailureTrigger, SuccessTrigger

            class Unimportable(SuccessTrigger):
                def serialize(self):
                    return "no.such.module.Trigger", {}

            self.defer(
                trigger=Unimportable() if self.trigger == "unimportable" else FailureTrigger(),
                method_name="resumed",
            )

        def resumed(self, context, event=None):
            return "never"

    Broken(task_id="unimportable", trigger="unimportable")
    Broken(task_id="silent", trigger="silent", retries=1)

with DAG("start_from_trigger", schedule=None, default_args=callbacks):

    class StartsInTrigger(BaseOperator):
        """Starts in its trigger, and needs a worker only after it fires."""

        start_trigger_args = StartTriggerArgs(
            trigger_cls="airflow.providers.standard.triggers.temporal.TimeDeltaTrigger",
            trigger_kwargs={"delta": SHORT},
            next_method="resumed",
            next_kwargs={"number": 7},
            timeout=None,
        )
        start_from_trigger = True

        def resumed(self, context, number, event=None):
            leave(context, f"{self.task_id} resumed, try {context['ti'].try_number}")
            return number

    class TimesOutInTrigger(StartsInTrigger):
        """Its trigger exceeds the timeout."""

        start_trigger_args = StartTriggerArgs(
            trigger_cls="airflow.providers.standard.triggers.temporal.TimeDeltaTrigger",
            trigger_kwargs={"delta": timedelta(seconds=60)},
            next_method="resumed",
            next_kwargs={"number": 7},
            timeout=timedelta(seconds=0.5),
        )

    class EndsInTrigger(BaseOperator):
        """Starts and ends in its trigger, without a worker."""

        start_trigger_args = StartTriggerArgs(
            trigger_cls="airflow.providers.standard.triggers.temporal.TimeDeltaTrigger",
            trigger_kwargs={"delta": SHORT, "end_from_trigger": True},
            next_method="never",
            next_kwargs=None,
            timeout=None,
        )
        start_from_trigger = True

    starts = StartsInTrigger(task_id="starts")
    times_out = TimesOutInTrigger(task_id="times_out")
    ends = EndsInTrigger(task_id="ends")

    @task(trigger_rule=TriggerRule.ALL_DONE)
    def end():
        return "end"

    [starts, times_out, ends] >> end()
