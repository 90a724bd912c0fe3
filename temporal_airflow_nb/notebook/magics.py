"""The magics: each parses its line, and calls the function that does the work."""

from __future__ import annotations

import argparse
import json
import shlex
from typing import TYPE_CHECKING, Any

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
    from temporal_airflow_nb.dag_runs.run import Run
    from temporal_airflow_nb.dag_runs.run_list import Runs


def _params(pairs: list[str] | None) -> dict[str, Any]:
    found = {}
    for pair in pairs or ():
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise InvalidInputError(
                f"--params {pair} has no value.", hint="Write --params name=value.", value=pair
            )
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


def _parsed(magic: Any, line: str) -> argparse.Namespace:
    """Return a magic's arguments, split as a shell does; what isn't known is answered with what may be meant."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise UsageError(f"{str(error).rstrip('.')} in: {line.strip()}") from None
    try:
        arguments: argparse.Namespace = magic.parser.parse_args(words)
    except UsageError as error:
        hints = []
        for word in str(error).partition("unrecognized arguments: ")[2].split():
            flags = [flag for action in magic.parser._actions for flag in action.option_strings]
            hints += [f"Is {near} meant?" for near in closest(word, flags, 1)]
        if not hints and "{" in line:
            hints = ["JSON goes in quotes: --conf '{\"day\": 1}'"]
        raise UsageError(" ".join([str(error), *hints])) from None
    return arguments


_home = argument("--home", metavar="DIR", help="state folder of the embedded stack")


@magics_class
class TemporalMagics(Magics):
    """Airflow DAGs in cells, run on Temporal."""

    @no_var_expand
    @magic_arguments()
    @argument("--run", dest="run", action="store_true", default=True, help="run the DAG (default)")
    @argument("--no-run", dest="run", action="store_false", help="only check and store it")
    @argument("--wait", action="store_true", default=None, help="wait for the run to end")
    @argument("--no-wait", dest="wait", action="store_false", default=None, help="don't (default)")
    @argument("--conf", metavar="JSON", help="the run's conf, an object in quotes")
    @argument("--params", nargs="+", action="extend", metavar="NAME=VALUE", help="values, JSON or text")
    @argument("--name", metavar="NAME", help="name of the DAG file (default: its DAG's)")
    @argument("--dag-id", metavar="ID", help="which DAG, if the cell defines several")
    @argument("--backfill", nargs=2, metavar=("START", "END"), help="a run for each date")
    @argument("--write-to", metavar="PATH", help="write a plain Airflow file, too")
    @argument("--force", action="store_true", help="even if that replaces one that was edited")
    @argument("--view", choices=settings.VIEWS, help="what is shown of the run (default: grid)")
    @argument("--worker-lost", choices=settings.WORKER_LOST, help="what a lost worker's tries are (rerun)")
    @_home
    @cell_magic
    def temporal_dag(self, line: str, cell: str) -> None:
        """Run the DAG that this cell defines, and show it; `run`, or `runs`, is left."""
        arguments = _parsed(self.temporal_dag, line)
        cells.run_cell(
            cell,
            name=arguments.name,
            dag_id=arguments.dag_id,
            conf=parse_conf(arguments.conf),
            params=_params(arguments.params),
            wait=arguments.wait,
            backfill=arguments.backfill,
            write_to=arguments.write_to,
            force=arguments.force,
            view=arguments.view,
            run=arguments.run,
            worker_lost=arguments.worker_lost,
            home=arguments.home,
            created=self._leave_created,
        )

    @no_var_expand
    @magic_arguments()
    @argument("--ui", action="store_true", help="with Airflow's API server, scheduler and DAG processor")
    @argument("--db", choices=("sqlite", "postgres"), help="Airflow's database")
    @_home
    @line_magic
    def temporal_up(self, line: str) -> Any:
        """Start the embedded stack, or attach to it, and show where it is."""
        arguments = _parsed(self.temporal_up, line)
        if not current.embedded(arguments.home).is_running:
            print("Starting the stack …")
        stack.up(arguments.home, ui=arguments.ui, db=arguments.db)
        return stack.status(arguments.home)

    @no_var_expand
    @magic_arguments()
    @_home
    @line_magic
    def temporal_down(self, line: str) -> None:
        """End the embedded stack. Runs that haven't ended go on when it is started again."""
        arguments = _parsed(self.temporal_down, line)
        from temporal_airflow_nb.stack.local import LocalStack

        used = current.current(arguments.home)
        where = f" in {used.home}" if isinstance(used, LocalStack) else ""
        print("The stack is down." if stack.down(arguments.home) else f"No stack runs{where}.")

    @no_var_expand
    @magic_arguments()
    @_home
    @line_magic
    def temporal_status(self, line: str) -> Any:
        """Show where you are: stack, addresses, versions, services."""
        return stack.status(_parsed(self.temporal_status, line).home)

    @no_var_expand
    @magic_arguments()
    @argument("dag_id", nargs="?", metavar="DAG_ID", help="of which DAG")
    @argument("--state", choices=("queued", "running", "success", "failed"), help="in which state")
    @argument("--limit", type=int, default=20, metavar="N", help="how many at most (20)")
    @line_magic
    def temporal_runs(self, line: str) -> Any:
        """Return the latest runs as a frame."""
        arguments = _parsed(self.temporal_runs, line)
        from temporal_airflow_nb.api.runs import runs

        return runs(arguments.dag_id, arguments.state, arguments.limit)

    @no_var_expand
    @magic_arguments()
    @argument("run", nargs="?", metavar="RUN|DAG_ID", help="a run, or a DAG's latest one")
    @argument("--view", choices=settings.VIEWS[:-1], help="what is shown of it (default: grid)")
    @line_magic
    def temporal_show(self, line: str) -> None:
        """Show a run, the latest where none is named, also after a restart of the kernel; `run` is left."""
        arguments = _parsed(self.temporal_show, line)
        self._leave(run=show(arguments.run, view=arguments.view))

    @no_var_expand
    @magic_arguments()
    @argument("page", nargs="?", choices=("airflow", "temporal"), default="airflow", help="which one")
    @line_magic
    def temporal_ui(self, line: str) -> Any:
        """Show a link to Airflow's UI, or Temporal's."""
        return stack.ui(_parsed(self.temporal_ui, line).page)

    def _leave_created(self, created: Run | Runs) -> None:
        self._leave(
            **({"runs": created, "run": created[0]} if isinstance(created, list) else {"run": created})
        )

    def _leave(self, **names: Any) -> None:
        assert self.shell is not None
        self.shell.push(names)
