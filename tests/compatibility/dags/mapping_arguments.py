"""All kinds of values that a task can be mapped over."""

from __future__ import annotations

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, get_current_context, task, task_group
from airflow.sdk.exceptions import AirflowSkipException

with DAG("mapped_xcom_operations", schedule=None):

    @task
    def numbers():
        return [1, 2, 3]

    @task
    def letters():
        return ["a", "b"]

    @task
    def each(x):
        return repr(x)

    def odd(x):
        if x % 2 == 0:
            raise AirflowSkipException("even")
        return x

    def broken(x):
        return x / 0

    given, named = numbers(), letters()
    each.override(task_id="mapped").expand(x=given.map(lambda x: x * 2))
    each.override(task_id="mapped_twice").expand(x=given.map(lambda x: x + 1).map(lambda x: str(x)))
    each.override(task_id="some_skipped").expand(x=given.map(odd))
    each.override(task_id="broken").expand(x=given.map(broken))
    each.override(task_id="zipped").expand(x=given.zip(named))
    each.override(task_id="zipped_and_filled").expand(x=given.zip(named, fillvalue="none"))
    each.override(task_id="concatenated").expand(x=given.concat(named))
    each.override(task_id="combined").expand(x=given.zip(named).map(lambda both: f"{both[1]}{both[0]}"))
    each.override(task_id="chained").expand(
        x=named.concat(given.map(lambda x: str(x))).map(lambda text: text.upper())
    )

    @task
    def gather(values):
        return [list(values), values[0], list(values[1:])]

    gather(each.override(task_id="first").expand(x=given))
    gather.override(task_id="gather_mapped")(given.map(lambda x: -x))

with DAG("mapped_kwargs", schedule=None):

    @task
    def arguments():
        return [{"a": 1, "b": 2}, {"a": 3}]

    @task
    def bad_arguments():
        return [{"a": 1, "unknown": 2}]

    @task
    def no_mappings():
        return [1, 2]

    @task
    def add(a, b=10, c=0):
        return a + b + c

    add.partial(c=100).expand_kwargs(arguments())
    add.override(task_id="of_a_list").expand_kwargs([{"a": 1}, arguments().map(lambda _: 5)])
    add.override(task_id="mapped").expand_kwargs(arguments().map(lambda kwargs: {"a": kwargs["a"], "b": 0}))
    add.override(task_id="unknown").expand_kwargs(bad_arguments())
    add.override(task_id="of_numbers").expand_kwargs(no_mappings())
    PythonOperator.partial(task_id="operator", python_callable=lambda a, b: [a, b]).expand(
        op_kwargs=[{"a": 1, "b": 2}, {"a": "{{ ti.map_index }}", "b": "{{ ds }}"}]
    )
    BashOperator.partial(task_id="script", append_env=True).expand_kwargs(
        [
            {"bash_command": "echo $WHO", "env": {"WHO": "{{ ti.task_id }}"}},
            {"bash_command": "echo {{ task.env }}", "env": {"A": "b"}},
        ]
    )

with DAG("mapped_product_of_three", schedule=None):

    @task
    def xs():
        return [1, 2]

    @task
    def ys():
        return {"k": "v", "l": "w"}

    @task
    def point(x, y, z, sep):
        return f"{x}{sep}{y}{sep}{z}"

    @task
    def nothing():
        return []

    point.partial(sep="|").expand(x=xs(), y=ys(), z=["p", "q"])
    point.override(task_id="of_nothing").partial(sep="|").expand(x=xs(), y=nothing(), z=["p"])

with DAG("mapped_over_mapped", schedule=None):

    @task
    def start():
        return [1, 2, 3]

    @task
    def double(x):
        return 2 * x

    @task
    def listed(x):
        return [x] * 2

    @task
    def total(values):
        return sum(values)

    @task
    def length(values):
        return [len(value) for value in values]

    twice = double.override(task_id="twice").expand(x=double.expand(x=start()))
    total(twice)
    length(listed.expand(x=twice))

with DAG("map_index_labels", schedule=None):

    @task(map_index_template="{{ label }}")
    def from_the_task(x):
        get_current_context()["label"] = f"number {x}"
        return x

    @task(map_index_template="{{ ti.map_index }} of {{ undefined_name }}")
    def undefined(x):
        return x

    @task(map_index_template="{{ label }}", retries=1, retry_delay=0)
    def fails(x, ti=None):
        get_current_context()["label"] = f"try {ti.try_number}"
        if ti.try_number == 1:
            raise ValueError("once")

    @task(map_index_template="{{ broken")
    def bad_template(x):
        return x

    for labelled in (from_the_task, undefined, fails, bad_template):
        labelled.expand(x=[1, 2])
    BashOperator.partial(
        task_id="operator", map_index_template="{{ task.bash_command }}", do_xcom_push=False
    ).expand(bash_command=["true", "echo"])

with DAG("mapped_too_long", schedule=None):

    @task
    def too_long():
        return list(range(1025))

    @task
    def just_short_enough():
        return list(range(1024))

    @task
    def too_long_for_nobody():
        return list(range(1025))

    @task
    def unused(x):
        return x

    unused.expand(x=too_long())
    unused.override(task_id="also_unused", trigger_rule="all_failed").expand(x=just_short_enough())
    too_long_for_nobody()

with DAG("mapped_groups", schedule=None):

    @task
    def tables():
        return ["users", "orders"]

    @task
    def rows(table):
        return f"rows of {table}"

    @task
    def check(table, rows, ti=None):
        return [table, rows, ti.map_index]

    @task_group
    def inner(table):
        @task
        def read(table):
            return table[0]

        read_back = read(table)

        @task_group
        def innermost():
            @task
            def write(letter):
                return letter * 2

            return write(read_back)

        return innermost()

    @task_group
    def outer(table, suffix):
        found = rows(table)
        checked = check(table, found)
        return [checked >> inner(table)]

    @task
    def summary(values):
        return list(values)

    outer.partial(suffix="x").expand(table=tables())
    summary(inner.override(group_id="second").expand(table=tables()))

    @task
    def none():
        return []

    summary.override(task_id="summary_of_none", trigger_rule="all_done")(
        inner.override(group_id="third").expand(table=none())
    )
    inner.override(group_id="of_kwargs").expand_kwargs([{"table": "x"}, {"table": "y"}])
