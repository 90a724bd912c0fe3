"""Answers about DAG files."""

from __future__ import annotations

from typing import Literal, TypedDict


class FindingRow(TypedDict):
    """A finding about a DAG; see :class:`temporal_airflow_nb.checks.finding.Finding`."""

    level: Literal["error", "warning"]
    code: str
    message: str
    line: int | None
    hint: str
    dag_id: str | None
    task_id: str | None


class CheckedDag(TypedDict):
    """A DAG of a checked file."""

    dag_id: str
    task_count: int
    serialized_hash: str


class FileCheck(TypedDict):
    """The DAGs of a file and what was found about them; nothing was stored."""

    dags: list[CheckedDag]
    warnings: list[str]
    findings: list[FindingRow]


class Submitted(TypedDict):
    """A stored file and the runs that were created.

    ``dag_id`` is the DAG that was chosen, ``dag_ids`` are all DAGs of the file. ``run_id`` and ``workflow_id`` are
    those of the first run; None if no run was asked for.
    """

    dag_id: str
    dag_ids: list[str]
    findings: list[FindingRow]
    run_ids: list[str]
    run_id: str | None
    workflow_id: str | None
