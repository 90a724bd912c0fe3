"""``airflow temporal``. Every command of Airflow loads this module, and nothing that it names."""

from __future__ import annotations

from airflow.cli.cli_config import (
    ARG_VERBOSE,
    ActionCommand,
    Arg,
    CLICommand,
    GroupCommand,
    lazy_load_command,
)

_OUTPUT = Arg(
    ("-o", "--output"), help="table (the default) or json", choices=("table", "json"), default="table"
)


def get_cli_commands() -> list[CLICommand]:
    """Return the commands, as Airflow asks for them."""
    here = __package__
    return [
        GroupCommand(
            name="temporal",
            help="Runs that Temporal executes",
            subcommands=(
                ActionCommand(
                    name="status",
                    help="Show what belongs to Temporal, what waits for it, and its workers",
                    func=lazy_load_command(f"{here}.status.status"),
                    args=(_OUTPUT, ARG_VERBOSE),
                ),
                ActionCommand(
                    name="doctor",
                    help="Check settings, hooks and services, and say what to do",
                    func=lazy_load_command(f"{here}.doctor.doctor"),
                    args=(_OUTPUT, ARG_VERBOSE),
                ),
            ),
        )
    ]
