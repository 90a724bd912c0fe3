"""Everything that a template can refer to."""

from __future__ import annotations

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, Param, get_current_context, task

FIELDS = {
    "param": "{{ params.who }} {{ params.count + 1 }}",
    "conf": "{{ dag_run.conf['day'] }}",
    "dates": "{{ ds }} {{ ds_nodash }} {{ ts }} {{ ts_nodash }} {{ logical_date }}",
    "interval": "{{ data_interval_start }} {{ data_interval_end }}",
    "ids": "{{ dag.dag_id }} {{ task.task_id }} {{ ti.map_index }} {{ ti.try_number }} {{ run_id }}",
    "key": "{{ task_instance_key_str }}",
    "run": "{{ dag_run.run_type }} {{ dag_run.dag_id }} {{ dag_run.state }}",
    "macros": "{{ macros.ds_add('2024-01-30', 3) }} {{ macros.datetime(2020, 1, 2) }}",
    "mine": "{{ shout('quiet') }} {{ 'abc' | backwards }}",
    "variable": "{{ var.value.oracle_plain }} {{ var.json.oracle_json.a[1] }}",
    "default": "{{ var.value.get('oracle_no', 'none') }}",
    "connection": "{{ conn.oracle_http.host }}:{{ conn.oracle_http.port }}",
    "previous": "{{ prev_data_interval_start_success }} {{ prev_start_date_success }}",
    "nested": [{"deep": ("{{ params.who }}", 3)}, None, 4.5],
}

with DAG(
    "templates",
    schedule="@daily",
    params={"who": "nobody", "count": Param(3, type="integer", minimum=0)},
    user_defined_macros={"shout": str.upper},
    user_defined_filters={"backwards": lambda text: text[::-1]},
):
    PythonOperator(
        task_id="fields",
        python_callable=lambda **kwargs: {name: kwargs[name] for name in FIELDS},
        op_kwargs=FIELDS,
    )

    BashOperator(
        task_id="script",
        bash_command="templates_script.sh",
        env={"WHO": "{{ params.who }}"},
        append_env=True,
    )

    @task(params={"who": "the task itself"})
    def context_names(who):
        context = get_current_context()
        return {
            "who": [who, context["params"]["who"], context["params"]["count"]],
            "names": sorted(context),
            "conf_day": context["dag_run"].conf["day"],
            "triggering": dict(context["triggering_asset_events"]),
        }

    context_names("{{ params.who }}")

    @task
    def shout(words):
        return [word.upper() for word in words]

    shout(["{{ params.who }}", "plain"])

with DAG("templates_undefined", schedule=None):
    PythonOperator(
        task_id="undefined",
        python_callable=lambda value: value,
        op_kwargs={"value": "{{ params.nothing }} {{ nobody.knows }}"},
    )

    PythonOperator(task_id="syntax", python_callable=lambda value: value, op_kwargs={"value": "{{ oops"})

with DAG("templates_native", schedule=None, render_template_as_native_obj=True):

    @task
    def push():
        return {"rows": [1, 2, 3]}

    @task
    def kinds(rows, number, flag):
        return [type(value).__name__ for value in (rows, number, flag)]

    push() >> kinds("{{ ti.xcom_pull('push')['rows'] }}", "{{ 3 + 4 }}", "{{ 1 == 1 }}")
