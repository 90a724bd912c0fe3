"""Assets: the events that tasks create, and the runs that the events start."""

from __future__ import annotations

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Asset, AssetAlias, AssetAll, AssetAny, Metadata, TriggerRule, asset, task
from airflow.sdk.exceptions import AirflowSkipException

plain = Asset("oracle://plain", extra={"from": "the definition"})
rich = Asset(name="oracle_rich", uri="oracle://rich", group="oracle")
yielded = Asset("oracle://yielded")
classic = Asset("oracle://classic")
each = Asset("oracle://each")
left_out = Asset("oracle://left_out")
last = Asset("oracle://last")
first_of_two, second_of_two = Asset("oracle://first_of_two"), Asset("oracle://second_of_two")
never = Asset("oracle://never")
consumed = Asset("oracle://consumed")
alias = AssetAlias("oracle-alias")
silent_alias = AssetAlias("oracle-silent-alias")
dynamic = Asset("oracle://dynamic")


def _told(events):
    return {
        key.uri if isinstance(key, Asset) else key.name: [
            {
                "extra": event.extra,
                "task": event.source_task_id,
                "map_index": event.source_map_index,
                "dag": event.source_dag_id,
            }
            # The events have no fixed order.
            for event in sorted(found, key=lambda event: (event.source_task_id, event.source_map_index))
        ]
        for key, found in events.items()
    }


def _extra_afterwards(context, result):
    context["outlet_events"][classic].extra = {"result": result}


with DAG("assets_producer", schedule=None):

    @task(outlets=[plain])
    def without_extra():
        return "a value"

    @task(outlets=[rich])
    def with_extra(*, outlet_events):
        outlet_events[rich].extra = {"rows": 3, "nested": {"deep": [1, None]}}
        outlet_events[rich].extra["more"] = True

    @task(outlets=[yielded, plain])
    def by_metadata():
        yield Metadata(yielded, {"rows": 1, "kept": "yes"})
        yield Metadata(yielded, extra={"rows": 2})
        yield "returned"

    classic_operator = BashOperator(
        task_id="classic_operator",
        bash_command="echo done",
        outlets=[classic],
        post_execute=_extra_afterwards,
    )

    @task(outlets=[each], max_active_tis_per_dagrun=1)
    def mapped(number, *, outlet_events):
        outlet_events[each].extra = {"number": number}

    @task(outlets=[left_out])
    def skips():
        raise AirflowSkipException("no event")

    @task(outlets=[left_out])
    def fails():
        raise RuntimeError("no event")

    @task(outlets=[alias])
    def through_an_alias(*, outlet_events):
        outlet_events[alias].add(dynamic, extra={"by": "alias"})

    @task(outlets=[silent_alias])
    def alias_without_event():
        pass

    @task(outlets=[alias], trigger_rule=TriggerRule.ALL_DONE)
    def alias_by_metadata():
        yield Metadata(Asset("oracle://by_metadata"), extra={"by": "metadata"}, alias=alias)

    @task(outlets=[first_of_two, second_of_two])
    def two_at_once(*, outlet_events):
        outlet_events[second_of_two].extra = {"second": True}

    @task(inlets=[rich, dynamic, never, alias])
    def reads_inlets(*, inlet_events):
        return {
            "rich": inlet_events[rich][-1].extra,
            "dynamic": len(inlet_events[dynamic]),
            "never": len(inlet_events[never]),
            "alias": sorted(event.extra["by"] for event in inlet_events[alias]),
            "by_name": [event.extra for event in inlet_events[Asset.ref(name="oracle_rich")]],
        }

    @task(inlets=[rich])
    def reads_the_source(*, inlet_events):
        event = inlet_events[rich].limit(1)[0]
        return [event.source_dag_id, event.source_task_id, event.source_map_index]

    reading = BashOperator(
        task_id="reads_in_a_template",
        inlets=[classic],
        bash_command="echo '{{ inlet_events.for_asset(uri='oracle://classic/')[-1].extra | tojson }}'",
    )

    @task(outlets=[last], trigger_rule=TriggerRule.ALL_DONE)
    def ends():
        pass

    done = [
        without_extra() >> by_metadata(),
        with_extra(),
        classic_operator,
        mapped.expand(number=[10, 20, 30]),
        skips(),
        fails(),
        through_an_alias(),
        alias_without_event(),
        two_at_once(),
    ]
    done >> alias_by_metadata() >> reads_inlets() >> reads_the_source() >> reading >> ends()


def consumer(dag_id, schedule, **options):
    """Return a DAG whose task writes the events that started its run."""
    with DAG(dag_id, schedule=schedule, **options) as dag:

        @task
        def tells(*, triggering_asset_events, dag_run):
            return {
                "events": _told(triggering_asset_events),
                "conf": dag_run.conf,
                "dated": dag_run.logical_date is not None,
            }

        tells()
    return dag


consumer("assets_all", [plain, rich, each, last])
consumer("assets_any", AssetAny(first_of_two, second_of_two))
consumer("assets_expression", (never | last) & AssetAll(each, classic))
consumer("assets_never", [never, last])
consumer("assets_of_silent_alias", silent_alias)
consumer("assets_by_name", [Asset.ref(name="oracle_rich"), Asset.ref(uri="oracle://last/")])

with DAG("assets_chain", schedule=[last]):

    @task(outlets=[consumed])
    def passes_on(*, outlet_events):
        outlet_events[consumed].extra = {"link": 2}

    passes_on()

consumer("assets_chain_end", [consumed])

with DAG("assets_alias_producer", schedule=None):

    @task(outlets=[AssetAlias("oracle-late-alias")])
    def resolves(*, outlet_events):
        outlet_events[AssetAlias("oracle-late-alias")].add(Asset("oracle://late"), extra={"late": True})
        outlet_events[AssetAlias("oracle-late-alias")].add(Asset("oracle://late"), extra={"again": True})

    resolves()

consumer("assets_of_alias", AssetAlias("oracle-late-alias"))


@asset(uri="oracle://decorated", schedule=None)
def oracle_decorated(self, context):
    return {"name": self.name, "uri": self.uri, "dag": context["dag"].dag_id}


@asset.multi(schedule=oracle_decorated, outlets=[Asset("oracle://multi_a"), Asset(name="multi_b")])
def oracle_multi(context, oracle_decorated):
    events = context["inlet_events"][oracle_decorated]
    return [event.source_dag_id for event in events]
