"""The commands ``airflow temporal …``.

Every command of Airflow loads this module, but not the modules that it names.
"""

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
    """Return the commands in the form that Airflow's provider manager expects."""
    # As text: Airflow imports the function when the command is called.
    here = __package__
    return [
        GroupCommand(
            name="temporal",
            help="Runs that Temporal executes",
            subcommands=(
                ActionCommand(
                    name="status",
                    help="Show the runs, messages, schedules and workers of Temporal",
                    func=lazy_load_command(f"{here}.status.status"),
                    args=(_OUTPUT, ARG_VERBOSE),
                ),
                ActionCommand(
                    name="doctor",
                    help="Check settings, hooks and services, and print what to do",
                    func=lazy_load_command(f"{here}.doctor.doctor"),
                    args=(_OUTPUT, ARG_VERBOSE),
                ),
            ),
        )
    ]
