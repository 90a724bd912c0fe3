"""Describe the stack in use, its services and versions."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

from temporal_airflow_nb._version import __version__
from temporal_airflow_nb.display import notices

if TYPE_CHECKING:
    from temporal_airflow_nb.stack.base import Stack
    from temporal_airflow_nb.stack.local import LocalStack


class Status(dict[str, Any]):
    """The status of a stack; see :func:`temporal_airflow_nb.status`.

    A dict with ``services`` (a list of ``{"name", "state", "address", "pid"}``), ``env`` (variables for Airflow's
    and Temporal's own tools), ``where`` (descriptions by name), ``production`` (whether the stack is a production
    system).
    """

    def _production_warning(self) -> str | None:
        if not self["production"]:
            return None
        where = self["where"]
        return f"This is production: {where.get('temporal', '')}, {where.get('airflow', '')}."

    def __repr__(self) -> str:
        lines = [self._production_warning() or ""] if self["production"] else []
        facts = self["where"]
        width = max(map(len, facts), default=0)
        lines += [f"{name:{width}}  {value}" for name, value in facts.items()]
        rows = [
            (row["name"], row["state"], row["address"] or "", str(row["pid"] or ""))
            for row in self["services"]
        ]
        table = [("service", "state", "address", "pid"), *rows]
        sizes = [max(len(row[column]) for row in table) for column in range(4)]
        lines += [
            "",
            *("  ".join(f"{cell:{n}}" for cell, n in zip(row, sizes, strict=True)).rstrip() for row in table),
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return str(notices.render_status(self["services"], self["where"], self._production_warning()))


def describe_status(stack: Stack) -> Status:
    """Return the status of a stack."""
    from temporal_airflow_nb.stack.local import LocalStack

    found, where = stack.status(), dict(stack.where)
    production = where.pop("production")
    known = _embedded(stack, where) if isinstance(stack, LocalStack) else {"stack": "connected", **where}
    texts = {name: str(value) for name, value in known.items() if value}
    facts = {"where": {**texts, "versions": _versions()}, "production": production}
    return Status({**found, **facts})


def _embedded(stack: LocalStack, where: dict[str, Any]) -> dict[str, Any]:
    return {
        "stack": "embedded" if stack.is_running else "embedded, not running",
        "state folder": stack.home,
        **where,
        "pages": ", ".join(stack.links.values()) if stack.is_running else "",
    }


def _versions() -> str:
    from importlib.metadata import version

    names = {"temporal_airflow_nb": __version__, "Airflow": version("apache-airflow")}
    names |= {"temporalio": version("temporalio"), "Python": platform.python_version()}
    return ", ".join(f"{name} {number}" for name, number in names.items())
