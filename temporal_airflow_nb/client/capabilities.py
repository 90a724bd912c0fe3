"""The operations of a stack, and which client can carry out which: one table.

Every process that has a client loads this module; it holds constants only. The errors of the clients and the table in
``docs/connect.md`` are made from :data:`FEATURES`. Each operation belongs to exactly one feature, which a unit test
checks, as it checks that each client implements every operation that the table doesn't refuse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Final, Literal, get_args

Operation = Literal[
    "submit_file",
    "trigger_dag",
    "get_run",
    "watch_run",
    "list_runs",
    "get_grid_changes",
    "get_tasks_table",
    "get_runs_table",
    "get_tries_table",
    "cancel_run",
    "clear_tasks",
    "mark_tasks",
    "respond_to_task",
    "get_log",
    "tail_log",
    "list_xcoms",
    "get_task",
    "get_events_table",
    "get_assets_table",
    "get_dags_table",
    "get_pools_table",
    "ping",
    "check_file",
    "reload_folders",
    "get_queues",
    "get_schedules",
]
"""Operations. Methods of :class:`~temporal_airflow_nb.client.protocol.StackClient` and routes have the same names."""

OPERATIONS: Final[tuple[Operation, ...]] = get_args(Operation)


class Backend(str, Enum):
    """The service behind a client; the value heads the backend's column in ``docs/connect.md``."""

    GATEWAY = "database"
    REST = "REST API"
    TEMPORAL = "Temporal alone"


@dataclass(frozen=True)
class Refusal:
    """An operation that a client can't carry out.

    Attributes
    ----------
    reason, hint : str
        Message and hint of the error.
    shown : str
        The cell in ``docs/connect.md``.
    is_conditional : bool
        Whether the backend can carry out the operation under the condition in ``shown``.
    """

    reason: str
    hint: str
    shown: str = "no"
    is_conditional: bool = False


@dataclass(frozen=True)
class Feature:
    """A row of the table: an action of a user, its operations, and the backends that refuse it.

    Attributes
    ----------
    title : str
        The first cell of the row in ``docs/connect.md``; a feature without a title isn't in the document.
    operations : tuple of str
        Each operation belongs to one feature.
    refusals : mapping
        By backend and operation; all other operations are carried out.
    remarks : mapping
        By backend: a cell in ``docs/connect.md`` in place of "yes", or of "no" where there is no operation.
    """

    title: str
    operations: tuple[Operation, ...]
    refusals: Mapping[Backend, Mapping[Operation, Refusal]] = field(default_factory=dict)
    remarks: Mapping[Backend, str] = field(default_factory=dict)

    def cell(self, backend: Backend) -> str:
        """Return what ``docs/connect.md`` says about a backend."""
        if refusals := self.refusals.get(backend):
            return next(iter(refusals.values())).shown
        return self.remarks.get(backend, "yes")


_CONFIGURE_AIRFLOW = (
    'Set AIRFLOW_HOME or AIRFLOW__DATABASE__SQL_ALCHEMY_CONN, or use connect(airflow="https://…").'
)
_CONFIGURE_DATABASE = "Connect to Airflow's database for that: configure it as for Airflow's command line."
_TRIGGER = Refusal(
    "Only Airflow's REST API can trigger a DAG by its id.",
    'Run its file, or connect with connect(airflow="https://…").',
)


def _needs_airflow(purpose: str, shown: str = "no") -> Refusal:
    reason = (
        f"{purpose}, Airflow's database or its API is needed; this process is connected to Temporal alone."
    )
    return Refusal(reason, _CONFIGURE_AIRFLOW, shown)


def _needs_gateway(purpose: str) -> Refusal:
    return Refusal(f"Airflow's REST API can't {purpose}.", _CONFIGURE_DATABASE)


FEATURES: Final = (
    Feature(
        '`cluster.run("dags/etl.py")`, `%%temporal_dag`',
        ("submit_file",),
        {
            Backend.REST: {
                "submit_file": Refusal(
                    "A DAG's file can't be handed to Airflow through its REST API.",
                    'Put the file where that Airflow looks for DAGs, then use .trigger("dag_id").',
                )
            },
            Backend.TEMPORAL: {"submit_file": _needs_airflow("To run a DAG")},
        },
        {Backend.GATEWAY: "yes, files of its DAG bundles"},
    ),
    Feature(
        '`cluster.trigger("etl")`',
        ("trigger_dag",),
        {Backend.GATEWAY: {"trigger_dag": _TRIGGER}, Backend.TEMPORAL: {"trigger_dag": _TRIGGER}},
    ),
    Feature(
        "the live grid, `run.wait()`, `run.state`, `run.tasks`, `ta.runs()`",
        ("get_run", "watch_run", "list_runs", "get_grid_changes", "get_tasks_table", "get_runs_table"),
        remarks={Backend.REST: "yes, polled once a second"},
    ),
    Feature(
        "`run.tries`",
        ("get_tries_table",),
        {
            Backend.TEMPORAL: {
                "get_tries_table": _needs_airflow("To list all tries", "no; the grid and the chart show them")
            }
        },
    ),
    Feature("`run.cancel()`", ("cancel_run",)),
    Feature(
        "`run.clear()`, `run.mark()`, `run.respond()`",
        ("clear_tasks", "mark_tasks", "respond_to_task"),
        {
            Backend.TEMPORAL: {
                "clear_tasks": _needs_airflow("To clear tasks"),
                "mark_tasks": _needs_airflow("To set a state"),
                "respond_to_task": _needs_airflow("To answer a task"),
            }
        },
    ),
    Feature(
        "`run.logs()`, `run.xcoms`, a task's panel",
        ("get_log", "tail_log", "list_xcoms", "get_task"),
        {
            Backend.TEMPORAL: {
                "get_log": _needs_airflow("To read a log"),
                "tail_log": _needs_airflow("To read a log"),
                "list_xcoms": _needs_airflow("To read XComs"),
                "get_task": _needs_airflow("To see a task's fields, XComs and log"),
            }
        },
    ),
    Feature(
        "errors show the lines of the cell",
        (),
        remarks={Backend.REST: "no", Backend.TEMPORAL: "no"},
    ),
    Feature(
        "`run.events`",
        ("get_events_table",),
        {
            Backend.REST: {
                "get_events_table": Refusal(
                    "A run's events are in Temporal, which isn't configured here.",
                    "Set TEMPORAL_ADDRESS, or choose a profile: connect(profile=…, airflow=…).",
                    "if Temporal is configured too",
                    is_conditional=True,
                )
            }
        },
    ),
    Feature(
        "`run.assets`, `ta.dags()`, `ta.pools()`",
        ("get_assets_table", "get_dags_table", "get_pools_table"),
        {
            Backend.TEMPORAL: {
                "get_assets_table": _needs_airflow("To list asset events"),
                "get_dags_table": _needs_airflow("To list DAGs"),
                "get_pools_table": _needs_airflow("To list pools"),
            }
        },
    ),
    Feature(
        "",
        ("ping",),
        {Backend.TEMPORAL: {"ping": _needs_airflow("To ask for Airflow's version")}},
    ),
    Feature(
        "",
        ("check_file", "reload_folders", "get_queues", "get_schedules"),
        {
            Backend.REST: {
                "check_file": _needs_gateway("check a DAG's file"),
                "reload_folders": _needs_gateway("register folders"),
                "get_queues": _needs_gateway("report the queues of workers"),
                "get_schedules": _needs_gateway("report Temporal's schedules"),
            },
            Backend.TEMPORAL: {
                "check_file": _needs_airflow("To check a DAG's file"),
                "reload_folders": _needs_airflow("To register folders"),
                "get_queues": _needs_airflow("To find tasks that wait in queues"),
                "get_schedules": _needs_airflow("To report schedules"),
            },
        },
    ),
)
"""The table, in the order of ``docs/connect.md``."""


def refusals_of(backend: Backend) -> Mapping[Operation, Refusal]:
    """Return what the clients of a backend can't carry out, by operation."""
    return MappingProxyType(
        {
            operation: refusal
            for feature in FEATURES
            for operation, refusal in feature.refusals.get(backend, {}).items()
        }
    )


def documented_table() -> str:
    """Return the table of ``docs/connect.md``, as Markdown."""
    lines = [
        "| | " + " | ".join(backend.value for backend in Backend) + " |",
        "|---" * (len(Backend) + 1) + "|",
    ]
    for feature in FEATURES:
        if feature.title:
            cells = " | ".join(feature.cell(backend) for backend in Backend)
            lines.append(f"| {feature.title} | {cells} |")
    return "\n".join(lines) + "\n"
