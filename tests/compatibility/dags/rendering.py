"""Params of every kind, and everything that changes how templates are rendered."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import ClassVar

import jinja2
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, BaseOperator, Param, literal, task


class Renders(BaseOperator):
    """Returns its rendered fields."""

    template_fields = ("value", "script")
    template_ext = (".txt", ".json")
    template_fields_renderers: ClassVar[dict[str, str]] = {"script": "sql"}

    def __init__(self, *, value=None, script="", **kwargs):
        super().__init__(**kwargs)
        self.value, self.script = value, script

    def execute(self, context):
        return [self.value, type(self.value).__name__, self.script]


def kinds(params):
    return {name: [params[name], type(params[name]).__name__] for name in params}


with DAG(
    "params_of_all_kinds",
    schedule=None,
    params={
        "plain": 5,
        "text": Param("default", type="string", minLength=2, description="Some text"),
        "number": Param(1.5, type="number", minimum=0, maximum=10),
        "maybe": Param(None, type=["null", "integer"]),
        "choice": Param("b", enum=["a", "b", 3]),
        "several": Param([1, 2], type="array", items={"type": "integer"}, uniqueItems=True),
        "nested": Param({"a": {"b": 1}}, type="object"),
        "day": Param("2024-02-29", type="string", format="date"),
        "moment": Param("2024-02-29T12:00:00+01:00", type="string", format="date-time"),
        "fixed": Param("const", const="const"),
        "flag": Param(True, type="boolean"),
        "from_conf": Param("not this", type="string"),
    },
):

    @task
    def of_the_dag(params=None):
        return kinds(params)

    @task(params={"plain": "of the task", "number": Param(2, type="integer"), "new": [None]})
    def of_the_task(params=None):
        return kinds(params)

    @task(params={"from_conf": Param(7, type="integer")})
    def refused():
        return "the conf isn't an integer"

    @task(params={"number": Param("not a number", type="number")})
    def wrong_default():
        return "never"

    @task
    def changes(params=None):
        return ["none" in params, params.get("none", "missing"), len(params)]

    of_the_dag()
    of_the_task()
    refused()
    wrong_default()
    changes()
    Renders(
        task_id="in_templates",
        value={
            "typed": "{{ params.several }} {{ params.nested.a.b + 1 }} {{ params['maybe'] is none }}",
            "loop": "{% for item in params.several if item > 1 %}<{{ item }}>{% endfor %}",
            "{{ params.text }}": ("{{ params.flag }}", ["{{ params.choice }}"]),
        },
    )

with DAG(
    "native_templates",
    schedule=None,
    params={"items": [1, 2], "who": "me", "none": None},
    render_template_as_native_obj=True,
    user_defined_macros={"numbers": {"one": 1}, "make": lambda *args: list(args), "Path": Path},
    user_defined_filters={"twice": lambda value: value * 2},
):
    for name, template in {
        "params": "{{ params['items'] }}",
        "number": "{{ numbers.one + 1 }}",
        "text_of_a_number": "{{ '7' }}",
        "two_expressions": "{{ 1 }}{{ 2 }}",
        "mixed": "a {{ params['items'] }}",
        "made": "{{ make(1, 'a', none) | twice }}",
        "none": "{{ params.none }}",
        "object": "{{ Path('/a') / 'b' }}",
        "date": "{{ logical_date.date() }}",
        "literal_text": "[1, 2]",
        "nested": ["{{ numbers }}", {"k": "{{ params['items'][0] }}"}],
    }.items():
        PythonOperator(
            task_id=name,
            python_callable=lambda value: [str(value), type(value).__name__],
            op_kwargs={"value": template},
        )
    Renders(task_id="literally", value=literal("{{ not rendered }}"), script="{{ params['items'] }}")

with DAG(
    "environment_of_templates",
    schedule=None,
    start_date=datetime.datetime(2024, 1, 1),
    params={"who": "me"},
    template_searchpath=[str(Path(__file__).parent / "searched")],
    template_undefined=jinja2.Undefined,
    jinja_environment_kwargs={
        "extensions": ["jinja2.ext.loopcontrols"],
        "keep_trailing_newline": True,
        "trim_blocks": True,
    },
    user_defined_macros={"days": datetime.timedelta(days=2).days, "json": json},
):
    Renders(task_id="searched", script="query.txt")
    Renders(task_id="not_found", script="nowhere.txt")
    Renders(task_id="undefined", value="<{{ nobody }}>")
    Renders(
        task_id="extension",
        value="{% for n in [1, 2, 3] %}{% if n == 3 %}{% break %}{% endif %}{{ n }}{% endfor %}\n",
    )
    Renders(
        task_id="macros",
        value="{{ days }} {{ json.dumps({'a': 1}) }} {{ macros.ds_format(ds, '%Y-%m-%d', '%d') | length }}",
    )
    Renders(task_id="raises", value="{{ 1 / 0 }}")
    Renders(task_id="unsafe", value="{{ ''.__class__ }}")

    @task(templates_dict={"query": "query.txt", "who": "{{ params.who }}"}, templates_exts=[".txt"])
    def with_templates_dict(templates_dict=None):
        return templates_dict

    with_templates_dict()

with DAG("strictly_defined", schedule=None, template_undefined=jinja2.StrictUndefined):
    Renders(task_id="undefined", value="{{ nobody }}")
