from __future__ import annotations

import pytest

from temporal_airflow_nb.checks import preflight

HEAD = "from airflow.sdk import DAG, dag, task\n"


def found(source):
    return [(finding.code, finding.line) for finding in preflight.check(HEAD + source)]


def body(source):
    """A DAG with the tasks a, b, c, and statements."""
    tasks = "".join(f"    @task\n    def {name}(x=None): ...\n" for name in "abc")
    lines = "".join(f"    {line}\n" for line in source.splitlines())
    return f"@dag\ndef etl():\n{tasks}{lines}etl()\n"


def test_a_dag_that_is_not_called_is_an_error():
    [finding] = preflight.check(HEAD + "@dag(schedule=None)\ndef etl(): ...\n")
    assert (finding.level, finding.code, finding.line) == ("error", "uncalled-dag", 3)
    assert finding.hint == "Call it at the end: `etl()`."
    assert finding.to_dict()["dag_id"] == "etl"


@pytest.mark.parametrize("call", ["etl()", "d = etl()", "dags = [f() for f in (etl,)]", "make(etl)"])
def test_a_dag_that_is_used_causes_no_finding(call):
    assert found(f"@dag\ndef etl(): ...\n{call}\n") == []


def test_a_dag_beside_another_that_is_called_is_a_warning():
    [finding] = preflight.check(HEAD + "@dag\ndef one(): ...\n@dag\ndef two(): ...\none()\n")
    assert (finding.level, finding.dag_id) == ("warning", "two")


def test_two_tasks_with_the_same_id_are_an_error():
    source = body("BashOperator(task_id='x')\nBashOperator.partial(task_id='x').expand(a=[1])")
    [finding] = preflight.check(HEAD + source)
    assert (finding.level, finding.code, finding.task_id, finding.line) == (
        "error",
        "duplicate-task-id",
        "x",
        11,
    )
    assert "line 10" in finding.message


@pytest.mark.parametrize(
    "source",
    [
        "a()\na()",
        "a.override(task_id='x')()\na.override(task_id='x')()",
        "if day:\n    BashOperator(task_id='x')\nelse:\n    BashOperator(task_id='x')",
        "with TaskGroup('g'):\n    BashOperator(task_id='x')\nBashOperator(task_id='x')",
        "for i in range(2):\n    BashOperator(task_id=f'x{i}')",
    ],
)
def test_ids_that_may_differ_cause_no_finding(source):
    assert found(body(source)) == []


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("x = a()\ny = b()\nx >> y >> x", "a >> b >> a"),
        ("x = a()\ny = b(x)\nx << y", "a >> b >> a"),
        ("x = a()\ny, = [b()]\nz = c(x)\nz >> [x]", "a >> c >> a"),
        ("x = a()\ny = b()\nz = c()\nchain(x, [y, z], x)", "a >> b >> a"),
        ("x = a()\ny = b(x['k'])\ny.set_downstream(x)", "a >> b >> a"),
        ("x = a()\nx >> x", "a >> a"),
        ("x = a()\ny = b()\nx >> Label('l') >> y >> x", "a >> b >> a"),
    ],
)
def test_a_cycle_is_an_error(source, path):
    [finding] = preflight.check(HEAD + body(source))
    assert (finding.level, finding.code) == ("error", "cycle")
    assert path in finding.message


@pytest.mark.parametrize(
    "source",
    [
        "x = a()\ny = b(x)\nx >> c() << y",
        "x = a()\nfor i in range(3):\n    y = b()\n    x >> y\n    x = y",
        "x = a()\nx = b(x)\nx = c(x)",
        "x = a()\ny = b()\nif flag:\n    x >> y\nelse:\n    y >> x",
        "a() >> b() >> a()",
    ],
)
def test_graphs_without_a_cycle_cause_no_finding(source):
    assert found(body(source)) == []


@pytest.mark.parametrize(
    ("source", "codes"),
    [
        ("from datetime import datetime\nDAG('d', start_date=datetime(2020, 1, 1))", ["naive-datetime"]),
        ("import datetime as dt\nDAG('d', default_args={'start_date': dt.datetime(2020, 1, 1)})", ["naive-datetime"]),
        ("from datetime import datetime, timezone\nDAG('d', start_date=datetime(2020, 1, 1, tzinfo=timezone.utc))", []),
        ("from pendulum import datetime\nDAG('d', start_date=datetime(2020, 1, 1))", []),
        ("import pendulum\nDAG('d', start_date=pendulum.datetime(2020, 1, 1))", []),
        ("import pendulum\nDAG('d', start_date=pendulum.datetime(2990, 1, 1))", ["future-start-date"]),
        ("import pendulum\nDAG('d', end_date=pendulum.datetime(2990, 1, 1))", []),
        ("from datetime import datetime\nmade = datetime(2020, 1, 1)", []),
        ("DAG('d', start_date=datetime(2020, 1, 1))", []),
    ],
)  # fmt: skip
def test_unclear_dates_cause_warnings(source, codes):
    findings = preflight.check(HEAD + source)
    assert [finding.code for finding in findings] == codes
    assert all(finding.level == "warning" for finding in findings)


def test_the_fix_of_a_naive_date_can_be_pasted():
    [finding] = preflight.check(
        "from datetime import datetime\nDAG('d', start_date=datetime(2020, 1, day=3))"
    )
    assert finding.hint == 'Add a time zone: `pendulum.datetime(2020, 1, day=3, tz="UTC")`.'


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("import pandas as pd\nrows = pd.read_csv('x')", [3]),
        ("from pandas import read_csv\nrows = read_csv('x')", [3]),
        ("import requests\nwith requests.get('x') as r: pass", [3]),
        ("from time import sleep as nap\nnap(1)", [3]),
        ("from airflow.sdk import Variable\nday = Variable.get('day')", [3]),
        ("import requests\n@dag\ndef etl():\n    requests.get('x')\netl()", [5]),
        ("import requests\n@task(retries=requests.get('x'))\ndef load(): ...", [3]),
        ("names = open('names').read()", [2]),
        (
            "import requests\n@dag\ndef etl():\n    @task\n    def load(): requests.get('x')\n    load()\netl()",
            [],
        ),
        ("import requests\ndef load(): requests.get('x')\nget = lambda: requests.get('x')", []),
        ("import requests\nif __name__ == '__main__':\n    requests.get('x')", []),
        ("class Variable:\n    get = dict\nVariable.get('x')\ntime.sleep(1)\nx.get('y')", []),
    ],
)
def test_slow_calls_outside_of_tasks_cause_warnings(source, lines):
    findings = preflight.check(HEAD + source)
    assert [(f.level, f.code, f.line) for f in findings] == [
        ("warning", "slow-top-level-call", n) for n in lines
    ]


BRANCH = """@dag
def etl():
    @task.branch
    def choose():
        {answer}
    @task
    def a(): ...
    @task
    def b(): ...
    {tie}
etl()
"""


@pytest.mark.parametrize(
    ("answer", "tie", "level", "message"),
    [
        (
            "return 'z'",
            "choose() >> [a(), b()]",
            "error",
            "`choose` chooses 'z', but the DAG has no such task",
        ),
        ("return 'b'", "choose() >> a(); b()", "warning", "chooses 'b', which isn't downstream"),
        ("return 'a' if 1 else ['a']", "choose() >> [a(), b()]", "warning", "never chooses 'b'"),
    ],
)
def test_branches_that_choose_wrongly_are_reported(answer, tie, level, message):
    findings = preflight.check(HEAD + BRANCH.format(answer=answer, tie=tie))
    assert [f.level for f in findings if message in f.message] == [level]


@pytest.mark.parametrize(
    ("answer", "tie"),
    [
        ("return 'a' if 1 else 'b'", "choose() >> [a(), b()]"),
        ("return pick()", "choose() >> [a(), b()]"),
        ("return 'z'", "make_more(); choose() >> [a(), b()]"),
        ("return 'z'", "[a.override(task_id=n)() for n in 'xyz']"),
        ("return 'a'", "x = choose(); y = b(); x >> a() >> y; x >> y"),
        ("return None", "choose() >> [a(), b()]"),
    ],
)
def test_branches_that_may_be_right_cause_no_finding(answer, tie):
    assert found(BRANCH.format(answer=answer, tie=tie)) == []


def test_used_connections_variables_and_pools_are_found_with_their_lines():
    uses = preflight.find_uses(
        """
day = Variable.get("day")
other = Variable.get("with_default", default=1)
third = Variable.get("too", 1)
host = Connection.get("host")
BashOperator(
    task_id="x", pool="small", ssh_conn_id="box",
    bash_command='''
    {{ var.value.one }} {{ var.json.two.key }} {{ var.value.get('three') }}
    {{ var.value.get('four', 'x') }} {{ conn.db.host }} {{ conn.get("mail").login }}
    {{ var.value.five | default('x') }}''',
    params={"pool": name, "conn_id": "{{ params.c }}"},
)
default_args = {"pool": "big", "http_conn_id": "web"}
text = "var.value.not_a_template"
"""
    )
    assert uses.variables == {"day": 2, "one": 9, "two": 9, "three": 9}
    assert uses.connections == {"host": 5, "box": 7, "db": 10, "mail": 10, "web": 14}
    assert uses.pools == {"small": 7, "big": 14}


def test_a_relative_path_of_a_file_beside_the_notebook_causes_a_warning(tmp_path):
    (tmp_path / "rows.csv").write_text("a")
    source = "@task\ndef load():\n    return pd.read_csv('rows.csv'), open('none.csv'), print('rows.csv')\n"
    [finding] = preflight.check(source, tmp_path)
    assert (finding.level, finding.code, finding.line) == ("warning", "relative-path", 3)
    assert repr(str(tmp_path.resolve() / "rows.csv")) in finding.hint
    assert preflight.check(source.replace("rows.csv", str(tmp_path / "rows.csv")), tmp_path) == []


def test_source_without_a_dag_causes_no_finding():
    assert preflight.check("x = 1") == []
    assert preflight.find_uses("x = 1") == preflight.Uses()
