"""A DAG that passes through every state, once for Temporal and once for Airflow's executor; gates delay it."""

from __future__ import annotations

import time
from datetime import timedelta

from _tracing import TRACES, trace
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.providers.standard.triggers.file import FileTrigger
from airflow.sdk import (
    DAG,
    Asset,
    BaseOperator,
    Metadata,
    Param,
    TaskGroup,
    TriggerRule,
    get_current_context,
    task,
)

# The time until the next try or poke: long enough to find both runs waiting and to query them.
LONG_ENOUGH = timedelta(seconds=25)


def gate(name):
    return TRACES / get_current_context()["dag"].dag_id / name


def wait_at(name):
    while not gate(name).exists():
        time.sleep(0.05)


def print_callback(context):
    print(f"callback of {context['ti'].task_id}")


class WaitsForFile(BaseOperator):
    """Waits in a trigger until the gate is open."""

    template_fields = ("name",)

    def __init__(self, *, name, **kwargs):
        super().__init__(**kwargs)
        self.name = name

    def execute(self, context):
        self.log.info("deferring")
        trigger = FileTrigger(filepath=str(gate(self.name)), poke_interval=0.2)
        self.defer(trigger=trigger, method_name="resume")

    def resume(self, context, event):
        self.log.info("resumed")
        return event


def define(prefix):
    made = Asset(f"{prefix}ui_truth_made", uri=f"production://{prefix}ui_truth/made", extra={"kind": "test"})
    read = Asset(f"{prefix}ui_truth_read", uri=f"production://{prefix}ui_truth/read")

    with DAG(
        f"{prefix}ui_truth",
        schedule=None,
        tags=["truth"],
        params={"colour": Param("red", type="string")},
        user_defined_macros={"twice": lambda text: text * 2},
        default_args={"owner": "someone"},
        on_failure_callback=print_callback,
        doc_md="# Every state",
    ):

        @task
        def begins():
            trace()
            print("a line to stdout")
            return {"letters": ["a", "b"], "none": None}

        @task(task_id="held", doc_md="*Held*")
        def held():
            import logging

            log = logging.getLogger("of.the.dag")
            log.info("before the gate")
            log.warning("a warning")
            print("printed before the gate")
            wait_at("held")
            log.error("after the gate")
            return "held"

        @task(pool=f"{prefix}ui_truth", on_success_callback=print_callback, priority_weight=5)
        def takes_the_slot():
            print("has the slot")
            wait_at("slot")

        @task(pool=f"{prefix}ui_truth")
        def waits_for_the_slot():
            pass

        @task(retries=1, retry_delay=LONG_ENOUGH, on_retry_callback=print_callback)
        def fails_once():
            print(f"try {get_current_context()['ti'].try_number}")
            wait_at("wait")
            if get_current_context()["ti"].try_number == 1:
                raise ValueError("the first try fails")
            return "second"

        @task.sensor(mode="reschedule", poke_interval=LONG_ENOUGH.seconds, timeout=600)
        def pokes():
            wait_at("wait")
            return gate("poke").exists()

        @task(on_failure_callback=print_callback)
        def fails():
            raise RuntimeError("always fails")

        @task.branch
        def chooses():
            return "chosen"

        @task(multiple_outputs=True)
        def several():
            ti = get_current_context()["ti"]
            ti.xcom_push("number", 1.5)
            ti.xcom_push("long", "x" * 3000)
            return {"one": 1, "two": [2, 2]}

        @task(map_index_template="{{ letter }}")
        def mapped(letter):
            get_current_context()["letter"] = f"letter {letter}"
            print(letter)
            if letter == "b":
                wait_at("mapped")
            return letter * 2

        @task
        def reduces(letters):
            return sorted(letters)

        @task(outlets=[made], inlets=[read])
        def makes(*, outlet_events):
            outlet_events[made].extra = {"rows": 3}
            yield Metadata(made, {"more": "said"})

        @task
        def skips():
            from airflow.sdk.exceptions import AirflowSkipException

            raise AirflowSkipException("not today")

        start = begins()
        slots = takes_the_slot()
        start >> slots >> EmptyOperator(task_id="after_the_slot")
        start >> waits_for_the_slot()
        start >> [fails_once(), pokes(), several(), skips()]
        start >> held()
        start >> fails() >> EmptyOperator(task_id="never") >> EmptyOperator(task_id="nor_this")
        start >> chooses() >> [EmptyOperator(task_id="chosen"), EmptyOperator(task_id="not_chosen")]
        start >> WaitsForFile(task_id="defers", name="{{ 'defer' }}") >> makes()
        asks = HITLOperator(
            task_id="asks",
            subject="Which, {{ params.colour }}?",
            body="**Well**",
            options=["this", "that"],
            params={"comment": Param("", type="string")},
        )
        approves = ApprovalOperator(task_id="approves", subject="May it?", fail_on_reject=False)
        start >> asks
        start >> approves >> EmptyOperator(task_id="not_approved")

        with TaskGroup("group", tooltip="A group"):
            reduces(mapped.expand(letter=["a", "b"]))
            EmptyOperator.partial(task_id="empty").expand(doc=[])

        shell = BashOperator(
            task_id="shell",
            bash_command="echo {{ run_id }} {{ ds }} $COLOUR; echo {{ twice('ab') }}",
            env={"COLOUR": "{{ params.colour }}"},
            append_env=True,
        )
        opens = EmptyOperator(task_id="opens").as_setup()
        opens >> shell >> EmptyOperator(task_id="closes").as_teardown(setups=opens)
        triggers = TriggerDagRunOperator(
            task_id="triggers",
            trigger_dag_id=f"{prefix}ui_truth_triggered",
            trigger_run_id="{{ run_id }}-triggered",
            conf={"by": "{{ run_id }}"},
        )
        [start, shell] >> triggers
        last = EmptyOperator(task_id="last", trigger_rule=TriggerRule.ALL_DONE)
        [triggers, asks, slots] >> last

    with DAG(f"{prefix}ui_truth_triggered", schedule=None):
        EmptyOperator(task_id="nothing")

    with DAG(f"{prefix}ui_truth_consumer", schedule=[made]):

        @task(inlets=[made])
        def reads(*, inlet_events, triggering_asset_events):
            print([event.extra for event in inlet_events[made]])
            return {asset.uri: len(events) for asset, events in triggering_asset_events.items()}

        reads()


for prefix in ("", "native_"):
    define(prefix)
