"""Completes flags of the magics and their values, and ids of DAGs, runs and tasks.

IPython calls :func:`temporal_airflow_matcher` and waits for it. Ids come from the stack: a new thread asks for them,
and the completion waits for that thread at most ``_MAX_WAIT`` seconds. If the answer takes longer, the completion uses
an old one, and the next completion the new one.
"""

from __future__ import annotations

import argparse
import re
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from IPython.core.completer import CompletionContext, SimpleCompletion, context_matcher

from temporal_airflow_nb.dag_runs.run import Run
from temporal_airflow_nb.errors import DagFileError
from temporal_airflow_nb.stack import current

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

# Seconds that a user doesn't notice as a delay.
_MAX_WAIT = 0.08
_FRESH_SECONDS = 2.0
_MAX_RUNS = 200
_ANSWER_SECONDS = 1.0

# The patterns end at the cursor. `%temporal_runs --st`: the name of the magic, the rest of the text.
_MAGIC = re.compile(r"\s*%%?(temporal_\w+)\s+(.*)$", re.DOTALL)
# `run.logs("ext`: the variable, the method, the beginning of the task id.
_TASK = re.compile(
    r"([A-Za-z_]\w*)\.(?:aio\.)?(logs|clear|mark|respond)\((?:[^()]*,)?\s*(?:task_ids?=)?\s*\[?"
    r"(?:[^\[\]()]*,)?\s*[\"']([^\"']*)$"
)
# `ta.show("et`: the function, the beginning of the id.
_DAG = re.compile(r"\b(runs|latest|get|show)\(\s*(?:dag_id=)?[\"']([^\"']*)$")
_MARKS = ("success", "failed", "skipped")

# The options and arguments of the magics that are ids have these names in their help.
_ID_METAVARS = ("ID", "DAG_ID", "RUN|DAG_ID")


class _AnswerCache:
    """Answers of the stack, cached for a moment.

    Used without a lock: several threads read and replace single entries, which is atomic. The thread of the completion
    adds keys to ``_pending``, so that one thread at a time asks for a key; that thread removes the key.
    """

    def __init__(self) -> None:
        self._answers: dict[Any, tuple[float, list[str]]] = {}
        self._pending: set[Any] = set()

    def get(self, key: Any, ask: Callable[[], Iterable[str]]) -> list[str]:
        """Return the latest answer for a key, which may be outdated or empty."""
        answered_at, answer = self._answers.get(key, (0.0, []))
        if answered_at and time.monotonic() - answered_at < _FRESH_SECONDS:
            return answer
        if key not in self._pending:
            self._pending.add(key)
            thread = threading.Thread(target=self._ask, args=(key, ask), daemon=True)
            thread.start()
            thread.join(_MAX_WAIT)
        return self._answers.get(key, (0.0, []))[1]

    def _ask(self, key: Any, ask: Callable[[], Iterable[str]]) -> None:
        # Every error: a completion must not print any, for example if no stack is running. The empty answer is kept for
        # a moment, so that the next key press doesn't ask again.
        try:
            self._answers[key] = (time.monotonic(), list(dict.fromkeys(ask())))
        except Exception:
            self._answers[key] = (time.monotonic(), [])
        finally:
            self._pending.discard(key)


_cache = _AnswerCache()


def install(shell: InteractiveShell) -> None:
    """Add the completion to a shell."""
    remove(shell)
    if (completer := getattr(shell, "Completer", None)) is not None:
        completer.custom_matchers.append(temporal_airflow_matcher)


def remove(shell: InteractiveShell) -> None:
    """Remove the completion from a shell."""
    if (completer := getattr(shell, "Completer", None)) is not None:
        completer.custom_matchers[:] = [
            m for m in completer.custom_matchers if not _is_temporal_airflow_matcher(m)
        ]


def _is_temporal_airflow_matcher(matcher: Callable[..., Any]) -> bool:
    # By name: a reloaded extension has another function object.
    name: str = getattr(matcher, "__name__", "")
    return name == temporal_airflow_matcher.__name__


def temporal_airflow_matcher(context: CompletionContext) -> Any:
    """Complete magics of this package, and ids in calls of its functions."""
    line = context.text_until_cursor
    if (magic := _MAGIC.match(line)) is not None:
        fragment, found = _complete_magic(magic[1], magic[2], context.full_text)
    elif (call := _TASK.search(line)) is not None:
        fragment, found = call[3], _complete_task(call[1], call[2], line)
    elif (call := _DAG.search(line)) is not None:
        fragment, found = call[2], _list_ids(with_runs=call[1] == "show")
    else:
        return {"completions": []}
    matching = [SimpleCompletion(text, type="param") for text in found if text.startswith(fragment)]
    # Suppress other completions, such as file names, if there is one of these.
    return {"completions": matching, "suppress": bool(matching), "matched_fragment": fragment}


# Called instead of used as a decorator, because IPython's decorators have no types.
context_matcher(identifier="temporal_airflow_nb")(temporal_airflow_matcher)


def _complete_magic(name: str, text: str, cell: str) -> tuple[str, list[str]]:
    from IPython import get_ipython

    magics = get_ipython().magics_manager.magics
    function = magics["cell"].get(name) or magics["line"].get(name)
    parser = getattr(function, "parser", None)
    if parser is None:
        return "", []
    *before, fragment = re.split(r"\s+", text)
    # Private: argparse has no public list of a parser's options. Without it, magics have no completion of flags.
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
    if action.metavar not in _ID_METAVARS:
        return []
    if action.metavar == "ID":
        return list(dict.fromkeys([*_dag_ids_of(cell), *_list_ids(with_runs=False)]))
    return _list_ids(with_runs=action.metavar != "DAG_ID")


def _dag_ids_of(cell: str) -> list[str]:
    from temporal_airflow_nb.cells import prepare

    _, _, body = cell.partition("\n")
    try:
        return prepare.find_dag_ids(prepare.parse(body))
    # The cell isn't finished.
    except DagFileError:
        return []


def _complete_task(name: str, method: str, line: str) -> list[str]:
    from IPython import get_ipython

    run = get_ipython().user_ns.get(name)
    if not isinstance(run, Run):
        return []
    if method == "mark" and line.count("(", line.rfind(".mark")) and "," not in line[line.rfind("(") :]:
        return list(_MARKS)
    return _cache.get((run.dag_id, run.run_id), lambda: _request_task_ids(run))


def _request_task_ids(run: Run) -> list[str]:
    known = run.client.without_retries(timeout=_ANSWER_SECONDS).get_run(run.dag_id, run.run_id)
    return [task["task_id"] for task in known["tasks"]]


def _list_ids(*, with_runs: bool) -> list[str]:
    """Return the ids of DAGs that have runs, and of the runs if ``with_runs``."""
    return _cache.get(("ids", with_runs), lambda: _request_ids(with_runs=with_runs))


def _request_ids(*, with_runs: bool) -> list[str]:
    known = current.client().without_retries(timeout=_ANSWER_SECONDS).list_runs(limit=_MAX_RUNS)
    dag_ids = [run["dag_id"] for run in known]
    return [*dag_ids, *(run["run_id"] for run in known)] if with_runs else dag_ids
