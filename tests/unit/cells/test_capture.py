"""Tests which code of other cells a cell captures, in a real IPython shell."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest

from temporal_airflow_nb.cells import prepare
from temporal_airflow_nb.cells.line_map import find_cell


class Notebook:
    def __init__(self, shell, folder):
        self.ip = shell.ip
        self.folder = folder

    def run(self, *sources, errors=False):
        for source in sources:
            result = self.ip.run_cell(source, store_history=True)
            if not errors:
                result.raise_error()

    def prepare(self, cell):
        return prepare.prepare(
            cell,
            shell_ns=self.ip.user_ns,
            history=self.ip.history_manager.input_hist_raw,
            execution_count=self.ip.execution_count,
            name=None,
            folder=self.folder,
        )

    def code_above(self, cell):
        """Prepare a cell and return the captured code above it."""
        prepared = self.prepare(cell)
        assert prepared.findings == []
        return prepared.plain.removesuffix(cell + "\n").split('notebook."""\n')[-1].strip()

    def executed(self, cell):
        """Execute the cell's file alone and return the names that it defines."""
        prepared = self.prepare(cell)
        assert [f for f in prepared.findings if f.level == "error"] == []
        for text in (prepared.plain, prepared.source):
            module = sys.modules["dag_file"] = types.ModuleType("dag_file")
            exec(compile(text, "file.py", "exec", dont_inherit=True), vars(module))
        return vars(module)

    def problems(self, cell):
        return [(f.level, f.code, f.line, f.message, f.hint) for f in self.prepare(cell).findings]


@pytest.fixture
def notebook(shell, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    shell.ip.execution_count = 1
    shell.ip.user_ns["__name__"] = "__main__"
    return Notebook(shell, tmp_path)


def test_a_cell_without_captured_names_stays_unchanged(notebook):
    notebook.run("x = 1")
    prepared = notebook.prepare("y = 2\nprint(y)\n")
    assert prepared.source == "# %% In [2]: %%temporal_dag\ny = 2\nprint(y)\n"
    assert prepared.names == {}


def test_imports_are_gathered_and_sorted(notebook):
    notebook.run(
        "import os.path, json as j\nfrom functools import partial\nimport os",
        "import xml.dom\nimport xml.sax\ntry:\n    import nothing as toml\nexcept ImportError:\n    import csv as toml",
    )
    assert notebook.code_above("print(os, j, partial, xml, toml)") == (
        "import csv as toml\nimport json as j\nimport os.path\nimport xml.dom\nimport xml.sax\n"
        "from functools import partial"
    )


def test_captured_code_includes_the_names_it_uses(notebook):
    notebook.run(
        "from functools import wraps\nTIMES = 2",
        "def doubled(f):\n    @wraps(f)\n    def inner(x):\n        return f(x) * TIMES\n    return inner",
        "class Base:\n    def get(self): return LATER\n\nLATER = 5",
        "@doubled\ndef load(x, n=TIMES):\n    row: Base = Row()\n    return x + row.get() + n",
        "class Row(Base): pass\nsquare = lambda n: n ** 2",
    )
    made = notebook.executed("result = load(1), square(3), [n for n in range(TIMES)]")
    assert made["result"] == (16, 9, [0, 1])


def test_the_file_is_formatted_like_handwritten_code(notebook, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/orders.ipynb")
    notebook.run(
        "import json\nRATE = 1.2  # of the day\n\nNAMES = ['a', 'b']",
        "# Says it.\ndef say(text):\n    print(json.dumps(text), RATE)\n",
    )
    cell = '"""About."""\nfrom __future__ import annotations\nimport csv\n\nsay(NAMES, csv)\n'
    prepared = notebook.prepare(cell)
    assert prepared.source == (
        "# The DAG of In [3] and what it uses of other cells.\n"
        "# %% In [3], line 2\n"
        '"""About."""\n'
        "from __future__ import annotations\n"
        "\n"
        "import json\n"
        "\n\n"
        "# %% In [1], line 2\n"
        "RATE = 1.2  # of the day\n"
        "\n"
        "NAMES = ['a', 'b']\n"
        "\n\n"
        "# %% In [2], line 1\n"
        "# Says it.\n"
        "def say(text):\n"
        "    print(json.dumps(text), RATE)\n"
        "\n\n"
        "# %% In [3], line 4\n"
        "import csv\n"
        "\n"
        "say(NAMES, csv)\n"
    )
    assert prepared.plain == (
        "# DAGs, written from a cell of orders.ipynb.\n"
        "\n"
        '"""About."""\n'
        "from __future__ import annotations\n"
        "\n"
        "import csv\n"
        "import json\n"
        "\n"
        "RATE = 1.2  # of the day\n"
        "NAMES = ['a', 'b']\n"
        "\n\n"
        "# Says it.\n"
        "def say(text):\n"
        "    print(json.dumps(text), RATE)\n"
        "\n\n"
        "say(NAMES, csv)\n"
    )
    assert prepared.names == {
        "say": "In [2], line 2",
        "json": "import",
        "RATE": "In [1], line 2",
        "NAMES": "In [1], line 4",
    }


def test_lines_of_the_file_map_to_lines_of_the_cells(notebook):
    notebook.run(
        "\n\nimport json\ndef first():\n    return json", "%%time\ndef second():\n    return first()"
    )
    source = notebook.prepare("\nprint(second())").source
    placed = {
        str(find_cell(source, n)): text for n, text in enumerate(source.splitlines(), 1) if text.strip()
    }
    assert placed["In [1], line 4"] == "def first():"
    assert placed["In [2], line 3"] == "    return first()"
    assert placed["In [3], line 3"] == "print(second())"


@pytest.mark.parametrize(
    "value",
    [
        "1.5", "'a\\nb'", "b'x'", "None", "(1,)", "{'a': [1, {2, 3}]}", "frozenset({1})", "float('inf')", "3j",
        "datetime.timedelta(minutes=5)", "datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)",
        "datetime.date(2026, 1, 2)", "decimal.Decimal('1.10')", "pathlib.Path('a') / 'b'",
        "re.compile('a+', re.IGNORECASE)", "zoneinfo.ZoneInfo('Europe/Paris')",
        "datetime.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo('Europe/Paris'))", "uuid.UUID(int=5)",
        "fractions.Fraction(1, 3)", "{'delay': datetime.timedelta(1), 'sum': sum}", "Color.RED",
        "Point(1, y=2)", "Pair(1, [2])", "functools.partial(int, base=2)('101')", "list(map(str, range(3)))",
    ],
)  # fmt: skip
@pytest.mark.parametrize("how", ["assigned", "computed", "unpacked"])
def test_simple_values_are_captured(notebook, value, how):
    notebook.run(
        "import collections, dataclasses, datetime, decimal, enum, fractions, functools, pathlib, re, uuid, zoneinfo",
        "class Color(enum.Enum):\n    RED = 1\n",
        "@dataclasses.dataclass\nclass Point:\n    x: int\n    y: int = 0\n",
        "Pair = collections.namedtuple('Pair', 'left right')",
        {
            "assigned": f"VALUE = {value}",
            "computed": f"exec('VALUE = ' + {value!r})",
            "unpacked": f"VALUE, other = {value}, open",
        }[how],
    )
    made = notebook.executed("result = VALUE")["result"]
    assert repr(made) == repr(notebook.ip.user_ns["VALUE"])


def test_the_present_value_of_a_name_is_captured(notebook):
    notebook.run("FILES = []\nTODAY = 1", "FILES.append('a')\nfor TODAY in range(3): pass")
    assert notebook.code_above("print(FILES, TODAY)") == "FILES = ['a']\nTODAY = 2"


def test_an_expression_that_gives_the_value_again_is_captured(notebook):
    notebook.run(
        "from datetime import timedelta\nDAY = 60 * 60 * 24\nWAIT = timedelta(seconds=DAY)\nnow = max(DAY, 1)"
    )
    notebook.run("import os\nos.environ['X'] = 'y'\nHOME = os.environ['X']")
    assert notebook.code_above("print(WAIT, now, HOME)") == (
        "from datetime import timedelta\n\n"
        "DAY = 60 * 60 * 24\nWAIT = timedelta(seconds=DAY)\nnow = max(DAY, 1)\nHOME = 'y'"
    )


def test_imports_for_values_do_not_hide_other_names(notebook):
    notebook.run(
        "import datetime as d\ndatetime = 'mine'\ntimedelta = 'too'\nWHEN = [d.date(2026, 1, 1)]\ndel d"
    )
    notebook.run("import datetime as d2\nLATER = [d2.timedelta(1)]\ndel d2")
    made = notebook.executed("result = WHEN, LATER, datetime, timedelta")
    assert repr(made["result"]) == (
        "([datetime.date(2026, 1, 1)], [datetime.timedelta(days=1)], 'mine', 'too')"
    )


def test_default_args_with_functions_are_captured(notebook):
    notebook.run("def tell(context): pass", "args = dict(retries=2)\nargs['on_failure_callback'] = tell")
    assert notebook.code_above("print(args)") == (
        "def tell(context): pass\n\n\nargs = {'retries': 2, 'on_failure_callback': tell}"
    )


def test_later_changes_of_functions_and_classes_are_captured(notebook):
    notebook.run(
        "from functools import singledispatch\n@singledispatch\ndef kind(x): return 'any'\nclass A: pass",
        "@kind.register\ndef _(x: int): return 'int'\n@kind.register\ndef _(x: str): return 'str'",
        "def double(self): return self.n * 2\nA.double = double\nA.n = 1",
        "A.n = 3",
    )
    made = notebook.executed("result = kind(1), kind('a'), kind(None), A().double()")
    assert made["result"] == ("int", "str", "any", 6)


@pytest.mark.parametrize("used", ["[f() for f in STEPS]", "[a(), b()]"])
def test_decorators_fill_their_registry_in_the_file(notebook, used):
    notebook.run(
        "STEPS = []\ndef step(f):\n    STEPS.append(f)\n    return f",
        "@step\ndef a(): return 'a'\n@step\ndef b(): return len(STEPS)",
    )
    assert notebook.executed(f"result = {used}, len(STEPS)")["result"] == (["a", 2], 2)


def test_a_registry_without_a_pure_initial_value_is_refused(notebook):
    notebook.run(
        "import json\nSTEPS = json.loads('{}')\ndef step(f):\n    STEPS['a'] = f\n    return f",
        "@step\ndef a(): return 'a'",
    )
    [(_, code, _, message, _)] = notebook.problems("a()")
    assert code == "captured-name"
    assert "uses STEPS, which holds a, whose definition needs STEPS" in message


@pytest.mark.filterwarnings("ignore:`make_tokens_by_line` received:UserWarning")
def test_strings_keep_indentation_spaces_and_unusual_line_breaks(notebook):
    notebook.run(
        "if True:\n    def f(n):\n        return '''a\n    b''' + f'''\n      {n}\n    c'''\n    X = '''d  \n    e'''",
        "Y = 'a\u2028b'\n\x0cZ = 1",
    )
    made = notebook.executed("result = f(1), X, Y, Z, 'c\u2028d'")
    assert made["result"] == ("a\n    b\n      1\n    c", "d  \n    e", "a\u2028b", 1, "c\u2028d")


def test_the_latest_definition_is_captured(notebook):
    notebook.run("def f(): return 1\ndef g(): return 1", "def f(): return 2")
    notebook.run("def g(: return 3", "raise ValueError\ndef g(): return 4", errors=True)
    notebook.run("f = f")
    made = notebook.executed("result = f(), g()")
    assert made["result"] == (2, 1)


def test_magics_and_commands_of_other_cells_are_skipped(notebook):
    notebook.run("!true\nrows = !echo a b\n%time RATE = 2\n%%timeit -n1 -r1\npass", errors=True)
    notebook.run("rows = !echo a b\n%time RATE = 2", "%%capture out\nNAME = 'n'", "int?")
    assert notebook.executed("result = rows, RATE, NAME")["result"] == (["a b"], 2, "n")


def test_a_value_without_a_known_line_maps_to_no_cell(notebook):
    notebook.run("import dataclasses\n@dataclasses.dataclass\nclass Row:\n    n: int", "%time ROW = Row(1)")
    source = notebook.prepare("print(ROW, Row)").source
    line = source.splitlines().index("ROW = Row(n=1)") + 1
    assert find_cell(source, line) is None
    assert str(find_cell(source, len(source.splitlines()))) == "In [3], line 2"


def test_names_from_star_imports_of_other_cells_are_imported(notebook):
    notebook.run("from math import *\nfrom os.path import *")
    assert (
        notebook.code_above("print(pi, sqrt(2), join)")
        == "from math import pi, sqrt\nfrom posixpath import join"
    )


def test_a_star_import_in_the_cell_suppresses_findings_about_names(notebook):
    notebook.run("gen = (i for i in [])")
    assert notebook.prepare("from os import *\nprint(gen, getcwd())").findings == []


def test_names_bound_in_the_cell_are_not_captured(notebook):
    notebook.run("a = b = c = d = e = open('/dev/null')")
    assert notebook.code_above(
        "import a\ndef b(c): return c\n[d for d in b(1)]\nwith a as e: e\nprint(__name__, __file__, len)"
    ) == ""  # fmt: skip


def test_names_with_a_handled_name_error_cause_no_finding(notebook):
    cell = "try:\n    get_ipython(), unknown\nexcept NameError:\n    pass\n"
    cell += "def f(x):\n    if x:\n        del x\n    return x\n"
    cell += "def g():\n    y: int\n    def h():\n        nonlocal y\n        y = 1\n    return y"
    assert notebook.prepare(cell).findings == []


def test_deferred_annotations_cause_no_finding(notebook):
    assert (
        notebook.prepare("from __future__ import annotations\ndef f(x: Unknown) -> Other: ...").findings == []
    )
    assert [p[3] for p in notebook.problems("def f(x: Unknown): ...")] == [
        "Unknown is defined neither in this cell nor in an executed one."
    ]


def test_future_features_apply_to_later_cells(notebook):
    notebook.run("from __future__ import annotations", "def f(x: Unknown): return f.__annotations__")
    assert notebook.executed("result = f(1)")["result"] == {"x": "Unknown"}


PROBLEMS = """@task
def load():
    return {name}
"""


@pytest.mark.parametrize(
    ("define", "name", "message", "hint"),
    [
        ("import pandas\ndf = pandas.DataFrame([1, 2])", "df", "DataFrame of 2 rows × 1 columns", "inside the task"),
        ("import sqlite3\nconn = sqlite3.connect(':memory:')", "conn", "sqlite3.Connection", "an Airflow connection"),
        ("gen = (i for i in [])", "gen", "is a generator", "convert it to a list"),
        ("log = open('/dev/null')", "log", "is a _io.TextIOWrapper", "Open it inside the task"),
        ("import types\nmod = types.ModuleType('mod')", "mod", "is the module mod", "file beside the notebook"),
        ("exec('f = lambda: 1')", "f", "is a lambda", "define it with def"),
        ("exec('def f(): pass')", "f", "is the function f", "define it with def"),
        ("def f(): pass\nexec('def f(): return 1')", "f", "isn't what In [1], line 1 defined", "Execute the cell"),
        ("class A: pass\na = A()", "a", "is an A", "copy `a = A()` into this cell"),
        ("import threading\nlock = threading.Lock()", "lock", "is a _thread.lock", "Create it inside the task"),
        ("import numpy\nrows = numpy.zeros(3)", "rows", "is a numpy.ndarray", ".tolist()"),
        ("rows = [n for n in range(100_000)]", "rows", "takes more than 100 kB as source", "Write it to a file"),
        ("rows = []\nrows += [rows, rows]", "rows", "contains itself", "Build it in the task"),
        ("class A:\n    def __getattr__(self, name): 1 / 0\na = A()", "a", "is an A", "copy `a = A()` into this"),
        ("rows = [open('/dev/null')]", "rows", "is a _io.TextIOWrapper", "Open it"),
        ("", "display", "exists only in the notebook", "Print it"),
        ("5", "_", "exists only in the notebook", "a name of its own"),
        ("", "In", "exists only in the notebook", "a name of its own"),
        ("%%script false --no-raise-error\nx = 1", "x", "is defined neither in", "Define it in a cell."),
        ("x = 1\ndel x", "x", "isn't defined any more; In [1], line 1 defined it", "Execute that cell again"),
        ("loader = 1", "loadr", "is defined neither in", "Did you mean loader?"),
        ("", "pd", "is defined neither in", "Import it: `import pandas as pd`."),
    ],
)  # fmt: skip
def test_names_that_cannot_be_captured_are_reported(notebook, define, name, message, hint):
    if define:
        notebook.run(define)
    [problem] = notebook.problems("from x import task\n" + PROBLEMS.format(name=name))
    assert problem[0] == "error"
    assert problem[2] == 5
    assert problem[3].startswith(f"In task load, {name} ")
    assert message in problem[3]
    assert hint in problem[4]


def test_a_name_that_only_another_dag_cell_defines_is_reported(notebook):
    notebook.run("%%temporal_dag --name 'a/b'\n\ndef clean(): pass", errors=True)
    [(_, code, line, message, hint)] = notebook.problems("clean()")
    assert (code, line) == ("unknown-name", 2)
    assert message.startswith("clean is only defined by In [1], line 3, but a cell with %%temporal_dag isn't")
    assert hint == "Move its definition to a cell without the magic, so that both cells can use it."


def test_all_problems_are_reported_with_the_names_that_lead_to_them(notebook):
    notebook.run(
        "gen = (i for i in [])\nlog = open('/dev/null')\ndef uses(): return gen\ndef more(): return uses()"
    )
    problems = notebook.problems("x = log\ndef f():\n    return more()\n")
    assert [(line, message) for _, _, line, message, _ in problems] == [
        (2, "log is a _io.TextIOWrapper."),
        (4, "In f(), uses (In [1], line 3) uses gen, which is a generator."),
    ]


def test_secrets_cause_a_warning(notebook):
    notebook.run("API_TOKEN = 'abc'\nSECRET = ''\nTOKENS = 5")
    assert [(p[:3], p[3].split()[0]) for p in notebook.problems("print(API_TOKEN, SECRET, TOKENS)")] == [
        (("warning", "secret-value", 2), "API_TOKEN")
    ]


def test_modules_beside_the_notebook_can_be_imported(notebook, monkeypatch):
    folder = notebook.folder
    (folder / "helping_us.py").write_text("RATE = 2\n")
    (folder / "packaged").mkdir()
    (folder / "packaged" / "deep.py").write_text("RATE = 3\n")
    (folder / "pandas").mkdir()
    monkeypatch.syspath_prepend(folder)
    notebook.run("import helping_us")
    prepared = notebook.prepare(
        "import pandas, random\ndef f():\n    from packaged.deep import RATE\n    return RATE\n"
        "result = helping_us.RATE + f()"
    )
    assert prepared.findings == []
    assert prepared.source.startswith(
        "# The DAG of In [2] and what it uses of other cells.\n\n"
        f"import sys\n\nsys.path.insert(0, {str(folder.resolve())!r})\n\nimport helping_us\n"
    )
    assert "sys.path" not in prepared.plain
    assert "helping_us, packaged." in prepared.plain
    file = folder.parent / "elsewhere.py"
    file.write_text(prepared.source + "print(result)\n")
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, cwd="/", check=True)
    assert done.stdout == "5\n"
    sys.modules.pop("helping_us")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="syntax of Python 3.12")
def test_type_parameters_are_not_captured(notebook):
    notebook.run(
        "class Bound: pass",
        "def first[T: Bound](rows: list[T]) -> T:\n    kept: T = rows[0]\n    return kept",
    )
    cell = "type Rows[U] = list[U]\nclass Box[V](list[V]):\n    def get(self) -> V: ...\nresult = first([1])"
    assert notebook.executed(cell)["result"] == 1
