"""The commands and options of ``temporal-airflow``.

Runs in the process of the command, which has one thread until a command starts others. Each command imports the modules
that it needs when it runs, so that ``--help`` answers at once. An error of this package becomes a message and an exit
code in :func:`main`; any other exception is a fault and ends the process with a traceback.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from temporal_airflow_nb._version import __version__
from temporal_airflow_nb.errors import ServiceUnavailableError, TemporalAirflowError
from temporal_airflow_nb.health import print_report, print_table
from temporal_airflow_nb.stack.base import MODES

if TYPE_CHECKING:
    from temporal_airflow_nb.stack.local import LocalStack

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    try:
        parsed = build_parser().parse_args(arguments)
        code: int = parsed.command(parsed)
        # Here, because output that can't be written has to raise BrokenPipeError inside this block.
        sys.stdout.flush()
    except TemporalAirflowError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of the output, say `head`, has ended. Python flushes the output once more at exit, which must not
        # fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="temporal-airflow",
        description="Run Airflow DAGs on Temporal.",
        epilog="Exit codes: 0 success, 1 the run failed, 2 bad input, 3 a service can't be reached.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--home",
        metavar="FOLDER",
        help="the stack's state folder (default: $TEMPORAL_AIRFLOW_HOME, else .temporal_airflow here)",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, command: Any, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", parents=[common]
        )
        sub.set_defaults(command=command)
        return sub

    run = add("run", _run, "run a DAG file and show its grid")
    run.add_argument("path", metavar="PATH", help="the DAG file")
    run.add_argument("--dag-id", metavar="ID", help="which of the file's DAGs")
    run.add_argument("--conf", metavar="JSON", help="the run's conf, a JSON object")
    run.add_argument("--mode", choices=MODES, default="deep")
    run.add_argument("--connections", metavar="FILE", help="connections for the tasks")
    run.add_argument("--variables", metavar="FILE", help="variables for the tasks")
    run.add_argument("--output", choices=("text", "json"), default="text")
    run.add_argument("--no-wait", action="store_true", help="return as soon as the run is created")

    _add_actions(add)

    up = add("up", _up, "start the embedded stack")
    up.add_argument(
        "--ui", action="store_true", help="with Airflow's api-server, scheduler and dag-processor"
    )
    up.add_argument(
        "--db",
        choices=("sqlite", "postgres"),
        help="Airflow's database (default: what the state folder has, SQLite for a new one)",
    )
    up.add_argument(
        "--dags",
        metavar="FOLDER",
        action="append",
        default=[],
        help="a folder with DAG files to show in the UI; may be given several times",
    )
    up.add_argument(
        "--detach", action="store_true", help="return when the stack is ready, and leave it running"
    )

    add("down", _down, "end the embedded stack")

    status = add("status", _status, "show the embedded stack's services")
    form = status.add_mutually_exclusive_group()
    form.add_argument("--output", choices=("text", "json"), default="text")
    form.add_argument(
        "--env", action="store_true", help="print the variables to export for Airflow's and Temporal's tools"
    )

    worker = add(
        "worker", _worker, "run a worker for the configured Airflow and Temporal, or for --home's stack"
    )
    worker.add_argument(
        "-q",
        "--queues",
        metavar="NAMES",
        help="the Airflow queues to serve, with commas between them"
        " (default: $TEMPORAL_AIRFLOW_QUEUES, else Airflow's default queue)",
    )

    doctor = add("doctor", _doctor, "check versions and services, and name the next step for each problem")
    doctor.add_argument("--output", choices=("text", "json"), default="text")
    return parser


def _add_actions(add: Callable[..., argparse.ArgumentParser]) -> None:
    cancel = add("cancel", _act, "end a run: running tasks are killed, waiting ones skipped")
    clear = add("clear", _act, "run a run's tasks again, or the whole run")
    mark = add("mark", _act, "mark a run, or tasks of it, as succeeded, failed or skipped")
    mark.add_argument("state", metavar="STATE", choices=("success", "failed", "skipped"))
    for name, parser in (("cancel", cancel), ("clear", clear), ("mark", mark)):
        parser.set_defaults(op=name)
        parser.add_argument("dag_id", metavar="DAG_ID")
        parser.add_argument(
            "run_id", metavar="RUN_ID", nargs="?", help="the run's id (default: the latest run)"
        )
        if name != "cancel":
            parser.add_argument(
                "--task",
                metavar="TASK_ID",
                action="append",
                dest="task_ids",
                help="a task, instead of the whole run; may be given several times",
            )
            parser.add_argument(
                "--map-index",
                metavar="N",
                type=int,
                action="append",
                dest="map_indexes",
                help="an instance of a mapped task; may be given several times",
            )
            parser.add_argument("--upstream", action="store_true", help="and the tasks before these")
            parser.add_argument("--downstream", action="store_true", help="and the tasks after these")
    clear.add_argument("--only-failed", action="store_true", help="clear failed tasks only")
    clear.add_argument(
        "--latest-version",
        action=argparse.BooleanOptionalAction,
        help="continue with the DAG's latest version, or with the run's (default: Airflow's setting)",
    )
    for parser in (cancel, clear, mark):
        parser.add_argument("--wait", action="store_true", help="wait until the run has ended")
        parser.add_argument("--output", choices=("text", "json"), default="text")


def _local_stack(arguments: argparse.Namespace, **options: Any) -> LocalStack:
    from temporal_airflow_nb.stack.local import LocalStack

    return LocalStack(arguments.home, **options)


def _run(arguments: argparse.Namespace) -> int:
    from temporal_airflow_nb.cli.run import run_command

    return run_command(arguments)


def _act(arguments: argparse.Namespace) -> int:
    from temporal_airflow_nb.cli.actions import act

    return act(arguments)


def _up(arguments: argparse.Namespace) -> int:
    stack = _local_stack(arguments, detach=arguments.detach, ui=arguments.ui, db=arguments.db)
    for folder in arguments.dags:
        stack.register_folder(folder)
    with stack:
        _print_services(stack.status()["services"])
        for name, url in stack.links.items():
            print(f"{name.capitalize()} UI: {url}")
        if not stack.started_here:
            print("This stack was running already. End it with `temporal-airflow down`.")
            return 0
        if arguments.detach:
            print("End it with `temporal-airflow down`.")
            return 0
        print("Ctrl-C ends it.", flush=True)
        try:
            # Polled, because another process can end the stack with `temporal-airflow down`.
            while stack.is_running:
                time.sleep(0.5)
        except KeyboardInterrupt:
            print("Ending …", flush=True)
    return 0


def _down(arguments: argparse.Namespace) -> int:
    stack = _local_stack(arguments)
    was_running = stack.is_running
    stack.stop()
    print("The stack is down." if was_running else f"No stack runs in {stack.home}.")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    stack = _local_stack(arguments)
    if arguments.env:
        for name, value in _running_env(stack).items():
            print(f"export {name}={shlex.quote(value)}")
    elif arguments.output == "json":
        print(json.dumps(stack.status(), indent=2))
    else:
        _print_services(stack.status()["services"])
    return 0


def _running_env(stack: LocalStack) -> dict[str, str]:
    env: dict[str, str] = stack.status()["env"]
    if not env:
        raise ServiceUnavailableError(
            f"No stack runs in {stack.home}.", hint="Start it with `temporal-airflow up`."
        )
    return env


def _worker(arguments: argparse.Namespace) -> int:
    # Airflow reads its settings from the environment when it is imported: the variables have to be set before.
    if arguments.home:
        os.environ.update(_running_env(_local_stack(arguments)))
    if arguments.queues is not None:
        os.environ["TEMPORAL_AIRFLOW_QUEUES"] = arguments.queues
    from temporal_airflow_nb.cli.worker import main as work

    work()


def _doctor(arguments: argparse.Namespace) -> int:
    from temporal_airflow_nb.cli.doctor import examine

    return print_report(examine(_local_stack(arguments)), arguments.output)


def _print_services(rows: list[dict[str, Any]]) -> None:
    cells = [(row["name"], row["state"], row["address"] or "", str(row["pid"] or "")) for row in rows]
    print_table(("service", "state", "address", "pid"), cells)


if __name__ == "__main__":
    sys.exit(main())
