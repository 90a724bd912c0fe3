"""Render findings about a cell, links to UIs, and the status of a stack."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from temporal_airflow_nb.display.templates import Markup, fill, join
from temporal_airflow_nb.printable_text import make_printable


class ShownFinding(Protocol):
    """The shown parts of a :class:`temporal_airflow_nb.checks.preflight.Finding`."""

    @property
    def level(self) -> str: ...  # noqa: D102
    @property
    def message(self) -> str: ...  # noqa: D102
    @property
    def line(self) -> int | None: ...  # noqa: D102
    @property
    def hint(self) -> str: ...  # noqa: D102


def format_findings(findings: Iterable[ShownFinding]) -> str:
    """Return findings as text: a line with place and message, and a line with the hint."""
    lines = []
    for found in findings:
        place = f"cell line {found.line}: " if found.line else ""
        lines.append(f"{found.level}: {place}{found.message}")
        if found.hint:
            lines.append(f"  {found.hint}")
    return make_printable("\n".join(lines))


def render_findings(findings: Iterable[ShownFinding]) -> str:
    """Return findings as an HTML list."""
    return fill(
        "findings",
        items=join(
            fill(
                "finding",
                level=found.level,
                place=f"Line {found.line}" if found.line else found.level.capitalize(),
                message=found.message,
                hint=found.hint,
            )
            for found in findings
        ),
    )


def render_link(name: str, url: str) -> str:
    """Return a link to a UI as HTML."""
    return fill("page", name=name.capitalize(), url=url)


def render_status(rows: Iterable[Mapping[str, Any]], where: Mapping[str, str], production: str | None) -> str:
    """Return services and addresses as HTML tables, with the ``production`` warning in red above."""
    return fill(
        "status",
        alarm=fill("alarm", text=production) if production else "",
        where=join(fill("fact", name=name, value=value) for name, value in where.items()),
        services=join(
            fill(
                "service",
                name=row["name"],
                state=row["state"],
                address=row["address"] or "",
                pid=row["pid"] or "",
            )
            for row in rows
        )
        or Markup(""),
    )
