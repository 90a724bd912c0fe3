"""Tab completion: flags of the magics and their values, ids of DAGs, runs and tasks."""

from __future__ import annotations

import argparse
import re
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from IPython.core.completer import CompletionContext, SimpleCompletion, context_matcher

from temporal_airflow_nb.dag_runs.run import Run
from temporal_airflow_nb.stack import current

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_PATIENCE = 0.08
_FRESH_SECONDS = 2.0
_RUNS = 200
_ANSWER_SECONDS = 1.0

_MAGIC = re.compile(r"\s*%%?(temporal_\w+)\s+(.*)$", re.DOTALL)
_TASK = re.compile(
    r"([A-Za-z_]\w*)\.(?:aio\.)?(logs|clear|mark|respond)\((?:[^()]*,)?\s*(?:task_ids?=)?\s*\[?"
    r"(?:[^\[\]()]*,)?\s*[\"']([^\"']*)$"
)
_DAG = re.compile(r"\b(runs|latest|get|show)\(\s*(?:dag_id=)?[\"']([^\"']*)$")
_MARKS = ("success", "failed", "skipped")

_ids = ("ID", "DAG_ID", "RUN|DAG_ID")


class _Answers:
    """What the stack has answered, kept for a moment; a completion doesn't wait for longer than a person notices."""

    def __init__(self) -> None:
        self._known: dict[Any, tuple[float, list[str]]] = {}
        self._asking: set[Any] = set()

    def get(self, key: Any, ask: Callable[[], Iterable[str]]) -> list[str]:
        """Return the latest answer to a question, at worst an old one or none."""
        at, answer = self._known.get(key, (0.0, []))
        if at and time.monotonic() - at < _FRESH_SECONDS:
            return answer
        if key not in self._asking:
            self._asking.add(key)
            thread = threading.Thread(target=self._ask, args=(key, ask), daemon=True)
            thread.start()
            thread.join(_PATIENCE)
        return self._known.get(key, (0.0, []))[1]

    def _ask(self, key: Any, ask: Callable[[], Iterable[str]]) -> None:
        try:
            self._known[key] = (time.monotonic(), list(dict.fromkeys(ask())))
        except Exception:
            # Completion is silent where there is nobody to ask.
            self._known[key] = (time.monotonic(), [])
        finally:
            self._asking.discard(key)


_answers = _Answers()


def install(shell: InteractiveShell) -> None:
    """Have the shell complete our names."""
    remove(shell)
    if (completer := getattr(shell, "Completer", None)) is not None:
        completer.custom_matchers.append(temporal_airflow_matcher)


def remove(shell: InteractiveShell) -> None:
    """Have the shell forget it."""
    if (completer := getattr(shell, "Completer", None)) is not None:
        completer.custom_matchers[:] = [m for m in completer.custom_matchers if not _is_ours(m)]


def _is_ours(matcher: Any) -> bool:
    return getattr(matcher, "__name__", "") == temporal_airflow_matcher.__name__


@context_matcher(identifier="temporal_airflow_nb")
def temporal_airflow_matcher(context: CompletionContext) -> Any:
    """Complete what stands before the cursor, if it is ours."""
    line = context.text_until_cursor
    if (magic := _MAGIC.match(line)) is not None:
        fragment, found = _for_magic(magic[1], magic[2], context.full_text)
    elif (call := _TASK.search(line)) is not None:
        fragment, found = call[3], _for_task(call[1], call[2], line)
    elif (call := _DAG.search(line)) is not None:
        fragment, found = call[2], _names(runs=call[1] == "show")
    else:
        return {"completions": []}
    matching = [SimpleCompletion(text, type="param") for text in found if text.startswith(fragment)]
    # What else fits here, files for instance, is noise beside it.
    return {"completions": matching, "suppress": bool(matching), "matched_fragment": fragment}


def _for_magic(name: str, text: str, cell: str) -> tuple[str, list[str]]:
    from IPython import get_ipython

    magics = get_ipython().magics_manager.magics
    function = magics["cell"].get(name) or magics["line"].get(name)
    parser = getattr(function, "parser", None)
    if parser is None:
        return "", []
    *before, fragment = re.split(r"\s+", text)
    actions = [action for action in parser._actions if action.dest != "help"]
    flags = {flag: action for action in actions for flag in action.option_strings}
    if before and (action := flags.get(before[-1])) is not None and action.nargs != 0:
        return fragment, _values(action, cell)
    if fragment.startswith("-"):
        used = {action.dest for flag, action in flags.items() if flag in before}
        return fragment, [flag for flag, action in flags.items() if action.dest not in used]
    positional = next((action for action in actions if not action.option_strings), None)
    return fragment, _values(positional, cell) if positional is not None else []


def _values(action: argparse.Action, cell: str) -> list[str]:
    if action.choices:
        return [str(choice) for choice in action.choices]
    if action.metavar not in _ids:
        return []
    if action.metavar == "ID":
        return list(dict.fromkeys([*_own_dags(cell), *_names(runs=False)]))
    return _names(runs=action.metavar != "DAG_ID")


def _own_dags(cell: str) -> list[str]:
    from temporal_airflow_nb.cells import prepare

    _, _, body = cell.partition("\n")
    try:
        return prepare.dag_ids(prepare.parse(body))
    except Exception:
        return []


def _for_task(name: str, method: str, line: str) -> list[str]:
    from IPython import get_ipython

    run = get_ipython().user_ns.get(name)
    if not isinstance(run, Run):
        return []
    if method == "mark" and line.count("(", line.rfind(".mark")) and "," not in line[line.rfind("(") :]:
        return list(_MARKS)
    return _answers.get((run.dag_id, run.run_id), lambda: _task_ids(run))


def _task_ids(run: Run) -> list[str]:
    known = run.client.without_retries(timeout=_ANSWER_SECONDS).get_run(run.dag_id, run.run_id)
    return [task["task_id"] for task in known["tasks"]]


def _names(*, runs: bool) -> list[str]:
    """Return the ids of DAGs that have run, and with ``runs`` those of the runs."""
    return _answers.get(("names", runs), lambda: _asked(runs=runs))


def _asked(*, runs: bool) -> list[str]:
    known = current.client().without_retries(timeout=_ANSWER_SECONDS).list_runs(limit=_RUNS)
    dag_ids = [run["dag_id"] for run in known]
    return [*dag_ids, *(run["run_id"] for run in known)] if runs else dag_ids
