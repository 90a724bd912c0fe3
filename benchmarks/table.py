"""Measured values as text, as JSON, and as a part of the README."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.sides import WORKLOADS

START = "<!-- results -->"
END = "<!-- end of results -->"
COLUMNS = [
    ("wall", "wall, s", "{:.2f}"),
    ("cpu", "CPU, s", "{:.1f}"),
    ("peak_memory", "memory, MB", "{:.0f}"),
]


def rows(outcome: Mapping[str, Any]) -> list[list[str]]:
    """Return the table: a heading row, then a row for each workload."""
    heading = ["DAG"]
    for _, title, _ in COLUMNS:
        heading += [f"native {title}", "embedded", "ratio"]
    table = [heading]
    titles = {workload.name: workload.title for workload in WORKLOADS}
    for name, measured in outcome["workloads"].items():
        row = [titles[name]]
        for key, _, form in COLUMNS:
            scale = 1e6 if key == "peak_memory" else 1
            native, embedded = (measured.get(side, {}).get(key) for side in ("native", "embedded"))
            row += ["–" if value is None else form.format(value / scale) for value in (native, embedded)]
            row.append("–" if native is None or not embedded else f"{native / embedded:.1f}")
        table.append(row)
    return table


def text_table(outcome: Mapping[str, Any]) -> str:
    """Return the table for a terminal, with the conditions of the measurement below."""
    table = rows(outcome)
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join([*lines, "", conditions(outcome)])


def markdown_table(outcome: Mapping[str, Any]) -> str:
    """Return the table for the README."""
    table = rows(outcome)
    lines = [f"| {' | '.join(row)} |" for row in table]
    lines.insert(1, "|---|" + "---:|" * (len(table[0]) - 1))
    return "\n".join([*lines, "", conditions(outcome)])


def conditions(outcome: Mapping[str, Any]) -> str:
    """Return the conditions of the measurement, in a sentence or two."""
    machine = outcome["machine"]
    idle = ", ".join(f"{side} {size / 1e6:.0f} MB" for side, size in outcome["idle_memory"].items())
    return (
        f"Medians of {outcome['repetitions']}; {machine['cpus']} CPUs, {machine['memory'] / 2**30:.0f} GiB,"
        f" {machine['system']}, Python {machine['python']}, Airflow {machine['airflow']}, {machine['date']},"
        f" load {machine['load']} at the start, scheduler_idle_sleep_time {outcome['native_idle_sleep']:g}."
        f" Memory when idle afterwards: {idle}."
    )


def as_json(outcome: Mapping[str, Any]) -> str:
    """Return all measured values."""
    return json.dumps(outcome, indent=1) + "\n"


def update_readme(readme: Path, outcome: Mapping[str, Any]) -> None:
    """Replace the table between the two comments in the README."""
    text = readme.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{START}\n{markdown_table(outcome)}\n{END}{after}", encoding="utf-8")
