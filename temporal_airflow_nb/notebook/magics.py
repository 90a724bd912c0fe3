"""The magics. Each parses its line and calls a public function.

IPython calls them in the thread that executes cells. They keep no state: what they start or show belongs to
``stack/current.py`` and to the live grids. The completion reads the options of a magic from its parser.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments

from temporal_airflow_nb.api import cells, stack
from temporal_airflow_nb.api.runs import show
from temporal_airflow_nb.config import settings
from temporal_airflow_nb.dag_runs.conf import parse_conf
from temporal_airflow_nb.errors import InvalidInputError
from temporal_airflow_nb.stack import current
from temporal_airflow_nb.suggestions import closest

if TYPE_CHECKING:
    from temporal_airflow_nb.dag_runs.backfill_runs import BackfillRuns
    from temporal_airflow_nb.dag_runs.run import Run

_Method = TypeVar("_Method", bound=Callable[..., Any])


def _parse_params(pairs: Sequence[str] | None) -> dict[str, Any]:
    found = {}
    for pair in pairs or ():
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise InvalidInputError(
                f"--params {pair!r} has no value.", hint="Write `--params name=value`.", value=pair
            )
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


def _parse(magic: Any, line: str) -> argparse.Namespace:
    """Parse the line of a magic as a shell would; suggest similar options for an unknown one."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise UsageError(f"{str(error).rstrip('.')} in: {line.strip()}") from None
    try:
        arguments: argparse.Namespace = magic.parser.parse_args(words)
    except UsageError as error:
        hints = []
        # argparse names unknown options in its message only. If the words change, the suggestions disappear.
        for word in str(error).partition("unrecognized arguments: ")[2].split():
            # Private: argparse has no public list of a parser's options.
            flags = [flag for action in magic.parser._actions for flag in action.option_strings]
            hints += [f"Did you mean {flag}?" for flag in closest(word, flags, 1)]
        if not hints and "{" in line:
            hints = ["Put JSON in quotes: --conf '{\"day\": 1}'."]
        raise UsageError(" ".join([str(error), *hints])) from None
    return arguments


def _magic(kind: Callable[[Any], Any], *options: Callable[[Any], Any]) -> Callable[[_Method], _Method]:
    """Return a decorator that makes a method a magic with options.

    IPython's decorators have no types, and each would hide those of the method. They are applied here instead, in the
    order in which IPython expects them: the kind of the magic first, then its options from last to first.
    """

    def decorate(method: _Method) -> _Method:
        function = kind(method)
        for option in reversed(options):
            function = option(function)
        # IPython would replace `{…}` and `$name` in the line by values, and so change JSON.
        magic: _Method = no_var_expand(magic_arguments()(function))
        return magic

    return decorate


_home = argument("--home", metavar="DIR", help="state folder of the embedded stack")


@magics_class
class TemporalMagics(Magics):  # type: ignore[misc]  # IPython has no types
    """The magics of this package."""

    @_magic(
        cell_magic,
        argument("--run", dest="run", action="store_true", default=True, help="run the DAG (default)"),
        argument("--no-run", dest="run", action="store_false", help="only check and store the DAG"),
        # None if neither flag is given: then the setting `wait` decides.
        argument("--wait", action="store_true", default=None, help="wait for the run to end"),
        argument("--no-wait", dest="wait", action="store_false", default=None, help="don't wait (default)"),
        argument("--conf", metavar="JSON", help="conf of the run, a JSON object in quotes"),
        argument(
            "--params",
            nargs="+",
            action="extend",
            metavar="NAME=VALUE",
            help="params, values as JSON or text",
        ),
        argument("--name", metavar="NAME", help="name of the DAG file (default: id of its DAG)"),
        argument("--dag-id", metavar="ID", help="the DAG to run, if the cell defines several"),
        argument("--backfill", nargs=2, metavar=("START", "END"), help="create a run for each date"),
        argument("--write-to", metavar="PATH", help="also write a plain Airflow file"),
        argument("--force", action="store_true", help="replace that file even if it was edited"),
        argument("--view", choices=settings.VIEWS, help="view of the run (default: grid)"),
        argument(
            "--worker-lost", choices=settings.WORKER_LOST, help="rerun or fail the tries of a lost worker"
        ),
        _home,
    )
    def temporal_dag(self, line: str, cell: str) -> None:
        """Run the DAG of this cell and show it. Sets `run`, and `runs` for a backfill."""
        arguments = _parse(self.temporal_dag, line)
        cells.run_cell(
            cell,
            name=arguments.name,
            dag_id=arguments.dag_id,
            conf=parse_conf(arguments.conf),
            params=_parse_params(arguments.params),
            wait=arguments.wait,
            backfill=arguments.backfill,
            write_to=arguments.write_to,
            force=arguments.force,
            view=arguments.view,
            run=arguments.run,
            worker_lost=arguments.worker_lost,
            home=arguments.home,
            created=self._set_created,
        )

    @_magic(
        line_magic,
        argument(
            "--ui", action="store_true", help="also run Airflow's API server, scheduler and DAG processor"
        ),
        argument("--db", choices=("sqlite", "postgres"), help="database of Airflow"),
        _home,
    )
    def temporal_up(self, line: str) -> Any:
        """Start the embedded stack, or attach to it, and show its status."""
        arguments = _parse(self.temporal_up, line)
        if not current.embedded(arguments.home).is_running:
            print("Starting the stack …")
        stack.up(arguments.home, ui=arguments.ui, db=arguments.db)
        return stack.status(arguments.home)

    @_magic(
        line_magic,
        _home,
    )
    def temporal_down(self, line: str) -> None:
        """End the embedded stack. Unfinished runs continue when it is started again."""
        arguments = _parse(self.temporal_down, line)
        from temporal_airflow_nb.stack.local import LocalStack

        used = current.current(arguments.home)
        where = f" in {used.home}" if isinstance(used, LocalStack) else ""
        print("The stack is down." if stack.down(arguments.home) else f"No stack runs{where}.")

    @_magic(
        line_magic,
        _home,
    )
    def temporal_status(self, line: str) -> Any:
        """Show the stack in use: addresses, versions, services."""
        return stack.status(_parse(self.temporal_status, line).home)

    @_magic(
        line_magic,
        argument("dag_id", nargs="?", metavar="DAG_ID", help="only runs of this DAG"),
        argument(
            "--state", choices=("queued", "running", "success", "failed"), help="only runs in this state"
        ),
        argument("--limit", type=int, default=20, metavar="N", help="maximum number of runs (20)"),
    )
    def temporal_runs(self, line: str) -> Any:
        """Return the latest runs as a data frame."""
        arguments = _parse(self.temporal_runs, line)
        from temporal_airflow_nb.api.runs import runs

        return runs(arguments.dag_id, arguments.state, arguments.limit)

    @_magic(
        line_magic,
        argument("run", nargs="?", metavar="RUN|DAG_ID", help="a run, or a DAG for its latest run"),
        argument("--view", choices=settings.VIEWS[:-1], help="view of the run (default: grid)"),
    )
    def temporal_show(self, line: str) -> None:
        """Show a run; the latest one if omitted. Also works after a restart of the kernel. Sets the variable `run`."""
        arguments = _parse(self.temporal_show, line)
        self._set(run=show(arguments.run, view=arguments.view))

    @_magic(
        line_magic,
        argument(
            "page", nargs="?", choices=("airflow", "temporal"), default="airflow", help="the UI to link to"
        ),
    )
    def temporal_ui(self, line: str) -> Any:
        """Show a link to the UI of Airflow or Temporal."""
        return stack.ui(_parse(self.temporal_ui, line).page)

    def _set_created(self, created: Run | BackfillRuns) -> None:
        self._set(**({"runs": created, "run": created[0]} if isinstance(created, list) else {"run": created}))

    def _set(self, **names: Any) -> None:
        """Set variables in the namespace of the notebook."""
        assert self.shell is not None
        self.shell.push(names)
