"""What isn't a run's grid: findings about a cell, links, where one is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from temporal_airflow_nb.display.templates import Markup, fill, joined


class Finding(Protocol):
    """What is shown of :class:`temporal_airflow_nb.checks.preflight.Finding`."""

    @property
    def level(self) -> str: ...  # noqa: D102
    @property
    def message(self) -> str: ...  # noqa: D102
    @property
    def line(self) -> int | None: ...  # noqa: D102
    @property
    def hint(self) -> str: ...  # noqa: D102


def findings_text(findings: Iterable[Finding]) -> str:
    """Return findings as lines: place, what it is, and what to do on a line of its own."""
    lines = []
    for found in findings:
        place = f"cell line {found.line}: " if found.line else ""
        lines.append(f"{found.level}: {place}{found.message}")
        if found.hint:
            lines.append(f"  {found.hint}")
    return "\n".join(lines)


def findings_html(findings: Iterable[Finding]) -> str:
    """Return findings as a list."""
    return fill(
        "findings",
        items=joined(
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


def link(name: str, url: str) -> str:
    """Return a link to a page."""
    return fill("page", name=name.capitalize(), url=url)


def status_html(rows: Iterable[Mapping[str, Any]], where: Mapping[str, str], production: str | None) -> str:
    """Return services and addresses as a table; ``production`` is said in red above it."""
    return fill(
        "status",
        alarm=fill("alarm", text=production) if production else "",
        where=joined(fill("fact", name=name, value=value) for name, value in where.items()),
        services=joined(
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
