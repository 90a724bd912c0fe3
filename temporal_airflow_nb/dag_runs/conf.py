"""Reads and checks a run's ``conf`` as users give it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from temporal_airflow_nb.errors import InvalidConfError
from temporal_airflow_nb.messages.requests import JsonObject


def parse_conf(text: str | None) -> JsonObject | None:
    """Return the object that ``text`` holds as JSON; None for no text.

    Raises
    ------
    InvalidConfError
        The text isn't JSON, or not an object. ``facts``: ``position`` of the error, counted from 1.

    Examples
    --------
    >>> parse_conf('{"day": "2026-01-01"}')
    {'day': '2026-01-01'}
    """
    if text is None:
        return None
    try:
        conf: object = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        where = (
            f"line {error.lineno}, character {error.colno}"
            if error.lineno > 1
            else f"character {error.colno}"
        )
        raise InvalidConfError(
            f"conf is not JSON: {error.msg} at {where}: {_around(text, error.pos)}",
            hint='Give an object, for example {"day": "2026-01-01"}; names and strings in double quotes.',
            position=error.pos + 1,
        ) from None
    if not isinstance(conf, dict):
        raise InvalidConfError(
            f"conf is {_kind(conf)}, not an object.",
            hint='Give an object, for example {"day": "2026-01-01"}.',
            position=1,
        )
    return conf


def checked_conf(conf: Mapping[str, object] | None, name: str = "conf") -> JsonObject | None:
    """Return the argument ``conf`` or ``params`` of a function as a JSON object.

    Raises
    ------
    InvalidConfError
        It isn't a mapping, or holds a value that JSON can't hold.

    Examples
    --------
    >>> checked_conf({"days": (1, 2)})
    {'days': [1, 2]}
    """
    if conf is None:
        return None
    if not isinstance(conf, Mapping):
        raise InvalidConfError(
            f"{name} must be a mapping of names to values, not {type(conf).__name__}.",
            hint='For example {"day": 1}.',
        )
    try:
        written: JsonObject = json.loads(json.dumps(dict(conf), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InvalidConfError(
            f"{name} can't be written as JSON: {error}",
            hint="Use strings, numbers, booleans, lists and dicts.",
        ) from None
    return written


def _refuse_constant(name: str) -> None:
    raise InvalidConfError(f"conf holds {name}, which isn't JSON.", hint="Use a number, a string or null.")


def _around(text: str, position: int) -> str:
    start, end = max(0, position - 20), position + 20
    before, after = "…" if start else "", "…" if end < len(text) else ""
    return f"{before}{text[start:position]}⟨here⟩{text[position:end]}{after}"


def _kind(value: Any) -> str:
    kinds = {list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return kinds.get(type(value), "null")
