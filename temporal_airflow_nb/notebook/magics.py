"""The magics."""

from __future__ import annotations

from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring

from temporal_airflow_nb import session
from temporal_airflow_nb.conf import parse_conf
from temporal_airflow_nb.notebook import cells, live
from temporal_airflow_nb.run import Run


def _unquoted(text: str) -> str:
    """Return an argument without its quotes: IPython's splitting leaves them on."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


@magics_class
class TemporalMagics(Magics):
    """Airflow DAGs in cells, run on Temporal."""

    @no_var_expand
    @magic_arguments()
    @argument("--wait", action="store_true", help="wait for the run to end")
    @argument("--conf", type=_unquoted, metavar="JSON", help="the run's conf, an object in quotes")
    @argument("--dag-id", type=_unquoted, metavar="ID", help="which DAG, if the cell defines several")
    @argument("--name", type=_unquoted, metavar="NAME", help="name of the DAG file (default: after its DAG)")
    @argument("--home", type=_unquoted, metavar="DIR", help="the stack's state folder")
    @cell_magic
    def temporal_dag(self, line: str, cell: str) -> None:
        """Run the DAG that this cell defines, and show its grid; `run` is the run.

        The cell is written to a DAG file of its own: it sees nothing of the notebook's other cells. The
        first time, an embedded stack is started; it ends with the kernel, or with %temporal_down.
        """
        shell = self.shell
        assert shell is not None
        arguments = parse_argstring(self.temporal_dag, line)
        conf = parse_conf(arguments.conf)
        source = cells.source_of(cell)
        name = cells.file_name(cells.parse(source), arguments.name, shell.execution_count)
        stack = session.embedded(arguments.home)
        grid = live.LiveGrid(shell)
        with grid.busy("Connecting to the stack" if stack.is_running else "Starting the stack"):
            stack.start()
        client = stack.client
        with grid.busy("Submitting"), cells.placed(stack.home, name, source) as path:
            answer = client.call(
                "submit", path=str(path), dag_id=arguments.dag_id, conf=conf, bundle=cells.NOTEBOOK_BUNDLE
            )
        run = Run(client, answer["dag_id"], answer["run_id"])
        grid.address = client.address
        shell.push({"run": run})
        grid.follow(run)
        if arguments.wait:
            run.wait()

    @no_var_expand
    @magic_arguments()
    @argument("--home", type=_unquoted, metavar="DIR", help="the stack's state folder")
    @line_magic
    def temporal_down(self, line: str) -> None:
        """End the embedded stack. Runs that haven't ended go on when it is started again."""
        arguments = parse_argstring(self.temporal_down, line)
        stack = session.embedded(arguments.home)
        if stack.is_running:
            note = "The stack was ended; the run goes on when it is started again."
            live.close_all(note, stack.client.address)
        was_running = stack.is_running
        stack.stop()
        print("The stack is down." if was_running else f"No stack runs in {stack.home}.")
