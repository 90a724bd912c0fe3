"""Settings of the magics, from ``%config TemporalDag``, environment variables and ``pyproject.toml``.

The notebook's kernel reads all of them; a script that connects to a cluster reads ``production``. :func:`get` returns
the first value that it finds in this order: ``%config`` and IPython's configuration files, the environment,
``pyproject.toml``, the default. Nothing but ``%config`` changes a value, in the thread that executes cells.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from traitlets import Bool, Enum, Float, List, TraitError, Unicode
from traitlets.config import Configurable

from temporal_airflow_nb.config import pyproject
from temporal_airflow_nb.config.environment import home_path
from temporal_airflow_nb.errors import InvalidInputError
from temporal_airflow_nb.suggestions import closest

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

VIEWS = ("grid", "graph", "gantt", "none")
WORKER_LOST = ("rerun", "fail")

# Unknown names in pyproject.toml, with the file's path, that the user was warned about.
_reported: set[str] = set()


class TemporalDag(Configurable):  # type: ignore[misc]
    """
    Settings of ``%%temporal_dag`` for cells that don't set an option themselves.

    A setting without a value here is taken from the environment, else from [tool.temporal-airflow-nb] of
    pyproject.toml, else it is the default.
    """

    home = Unicode(
        None,
        allow_none=True,
        help="State folder of the embedded stack (default: .temporal_airflow in the working directory).",
    ).tag(config=True)
    wait = Bool(
        None, allow_none=True, help="Whether a cell waits for the end of its run (default: False)."
    ).tag(config=True)
    view = Enum(VIEWS, None, allow_none=True, help="First view of a run (default: grid).").tag(config=True)
    worker_lost = Enum(
        WORKER_LOST,
        None,
        allow_none=True,
        help="Run a try again whose worker was lost, or fail it (default: the worker's setting, rerun).",
    ).tag(config=True)
    linger = Float(
        None,
        min=0,
        allow_none=True,
        help="Seconds for which an embedded stack waits for another kernel when its own has died (default: 600).",
    ).tag(config=True)
    production = List(
        Unicode(),
        None,
        allow_none=True,
        help="Patterns of profiles, namespaces and addresses that are production (default: *prod*).",
    ).tag(config=True)


class _Setting(NamedTuple):
    default: Any
    variable: str
    parse: Callable[[str], Any]


def _parse_bool(text: str) -> bool:
    return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]


_SETTINGS = {
    "home": _Setting(None, "TEMPORAL_AIRFLOW_HOME", str),
    "wait": _Setting(False, "TEMPORAL_AIRFLOW_WAIT", _parse_bool),
    "view": _Setting("grid", "TEMPORAL_AIRFLOW_VIEW", str),
    "worker_lost": _Setting(None, "TEMPORAL_AIRFLOW_ON_WORKER_LOST", str),
    "linger": _Setting(600.0, "TEMPORAL_AIRFLOW_LINGER", float),
    "production": _Setting(
        ["*prod*"], "TEMPORAL_AIRFLOW_PRODUCTION", lambda text: [item.strip() for item in text.split(",")]
    ),
}

# Set while the extension is loaded in IPython; without it, the other sources count.
_configurable: TemporalDag | None = None


def install(shell: InteractiveShell) -> None:
    """Make the settings available in ``%config TemporalDag`` and in IPython's configuration files."""
    global _configurable
    remove(shell)
    _configurable = TemporalDag(parent=shell)
    shell.configurables.append(_configurable)


def remove(shell: InteractiveShell) -> None:
    """Remove the settings from ``%config``."""
    global _configurable
    shell.configurables[:] = [known for known in shell.configurables if not isinstance(known, TemporalDag)]
    _configurable = None


def get(name: str) -> Any:
    """Return a setting from ``%config``, else the environment, else ``pyproject.toml``, else its default.

    Raises
    ------
    InvalidInputError
        The value that is set there can't be used.

    Examples
    --------
    >>> get("view")
    'grid'
    """
    chosen = getattr(_configurable, name) if _configurable is not None else None
    if chosen is not None:
        return str(home_path(chosen)) if name == "home" else chosen
    setting = _SETTINGS[name]
    if text := os.environ.get(setting.variable):
        return _validate(name, text, setting.parse, f"${setting.variable}")
    path, found = pyproject.settings()
    _warn_about_unknown(path, found)
    if name == "home":
        folder = pyproject.home()
        return None if folder is None else str(folder)
    if name in found:
        return _validate(name, found[name], lambda value: value, f"{path}: {name}")
    return setting.default


def choose(name: str, value: str | None, choices: tuple[str, ...]) -> Any:
    """Return an argument's value, or the setting with the argument's name if the value is None.

    Raises
    ------
    InvalidInputError
        The value is not one of ``choices``.
    """
    if value is None:
        return get(name)
    if value not in choices:
        raise InvalidInputError(
            f"There is no {name} {value!r}.", hint=f"Choose one of: {', '.join(choices)}.", value=value
        )
    return value


def _validate(name: str, value: Any, convert: Callable[[Any], Any], place: str) -> Any:
    trait = TemporalDag.class_traits()[name]
    # traitlets has no public way to check a value without setting it. `_validate` is private: if it is renamed, every
    # setting of the environment and of pyproject.toml fails with an AttributeError.
    try:
        return trait._validate(TemporalDag(), convert(value))
    except (KeyError, ValueError, OverflowError, TraitError):
        raise InvalidInputError(
            f"{place} is {json.dumps(value, default=str)}.", hint=_describe_choices(name), setting=name
        ) from None


def _describe_choices(name: str) -> str:
    choices = {"view": VIEWS, "worker_lost": WORKER_LOST, "wait": ("true", "false")}
    if name in choices:
        return f"Choose one of: {', '.join(choices[name])}."
    return (
        "Give a number of seconds; 0 ends the stack at once."
        if name == "linger"
        else "Give a list of patterns: *prod*, live-?."
    )


def _warn_about_unknown(path: Any, found: Mapping[str, Any]) -> None:
    for name in found:
        if name in _SETTINGS or f"{path} {name}" in _reported:
            continue
        _reported.add(f"{path} {name}")
        close = closest(name, _SETTINGS)
        hint = f"Did you mean {close[0]}?" if close else f"Settings: {', '.join(_SETTINGS)}."
        text = f"{path}: [tool.temporal-airflow-nb] has no setting {name!r}. {hint}"
        # A function of this package calls `get`; the warning names the line that called that function.
        warnings.warn(text, UserWarning, stacklevel=4)
