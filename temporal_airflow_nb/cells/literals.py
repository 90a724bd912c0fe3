"""Write simple values as Python source, and explain why other values can't be written.

A simple value is one that an expression can create again in another process: numbers, strings, containers, dates,
paths, enumerations, dataclasses, and functions or classes that can be imported or included by name.

Runs in the kernel, on live objects of the notebook: their attributes, comparisons and ``repr`` may execute any code.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import math
import pprint
import re
import sys
import threading
import types
import uuid
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

# The most characters that the values in one expression may have together.
LIMIT = 100_000
_WIDTH = 100
_BY_REPR: dict[str, tuple[type, ...]] = {
    "datetime": (datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone),
    "decimal": (decimal.Decimal,),
    "fractions": (fractions.Fraction,),
    "uuid": (uuid.UUID,),
}


class NotSimpleError(Exception):
    """The value can't be written as source. The text says what to do instead."""


@dataclasses.dataclass(frozen=True, order=True)
class Imported:
    """One import: ``import module as name``, or ``from module import attribute as name``."""

    module: str
    attribute: str | None
    name: str

    def statement(self) -> str:
        """Return the statement.

        >>> Imported("os.path", None, "os").statement(), Imported("math", "pi", "PI").statement()
        ('import os.path', 'from math import pi as PI')
        """
        if self.attribute is None:
            plain = self.name == self.module.split(".")[0] and (
                self.name == self.module or "." in self.module
            )
            return f"import {self.module}" + ("" if plain else f" as {self.name}")
        return f"from {self.module} import {self.alias()}"

    def alias(self) -> str:
        """Return the part after ``import`` in a ``from … import``."""
        return f"{self.attribute}" + (f" as {self.name}" if self.name != self.attribute else "")


@dataclasses.dataclass
class Rendering:
    """Writes values as source.

    Parameters
    ----------
    name_of
        Returns the name of a function, class or module in the new file, or None.
    is_free
        Returns whether an import may use a name.

    Attributes
    ----------
    imports : set of Imported
        The imports that the source needs.
    names : set of str
        The names of the notebook that the source uses.
    """

    name_of: Callable[[Any], str | None]
    is_free: Callable[[str], bool]
    imports: set[Imported] = dataclasses.field(default_factory=set)
    names: set[str] = dataclasses.field(default_factory=set)
    # Counted while values are written, so that a huge value is refused before its whole text exists.
    _written: int = 0

    def source(self, value: Any) -> str:
        """Return an expression that creates an equal value.

        Raises
        ------
        NotSimpleError
            There is no such expression, or it is longer than ``LIMIT``.

        Examples
        --------
        >>> rendering = Rendering(lambda value: None, lambda name: True)
        >>> rendering.source({"retries": 2, "retry_delay": datetime.timedelta(minutes=5)})
        "{'retries': 2, 'retry_delay': timedelta(seconds=300)}"
        >>> [needed.statement() for needed in rendering.imports]
        ['from datetime import timedelta']
        """
        try:
            text = self._render(value, ())
        except NotSimpleError:
            raise
        except Exception:
            # Attributes and comparisons may run arbitrary code of the value's class.
            raise NotSimpleError(explain_refusal(value)) from None
        if len(text) > _WIDTH and _is_plain(value):
            text = pprint.pformat(value, width=_WIDTH, sort_dicts=False)
        return text

    def _render(self, value: Any, outer: tuple[int, ...]) -> str:
        # `outer` holds the ids of the containers around the value, which exist as long as it is written.
        if id(value) in outer:
            raise NotSimpleError("contains itself: build it in the task")
        text = self._render_unchecked(value, (*outer, id(value)))
        self._written += len(text) if isinstance(value, (str, bytes, int, float)) else 2
        if self._written > LIMIT:
            raise NotSimpleError(
                f"takes more than {LIMIT // 1000} kB as source, which is too long to include: "
                "write it to a file and read that file in the task"
            )
        return text

    def _render_unchecked(self, value: Any, outer: tuple[int, ...]) -> str:
        kind = type(value)
        if kind is float and not math.isfinite(value):
            return f'float("{value}")'
        if value is None or value is Ellipsis or kind in (bool, int, float, complex, str, bytes):
            return "..." if value is Ellipsis else repr(value)
        if isinstance(value, (types.FunctionType, types.BuiltinFunctionType, type, types.ModuleType)):
            return self._render_reference(value)
        if isinstance(value, enum.Enum):
            return (
                f"{self._render_reference(kind)}.{value.name}"
                if value.name
                else f"{self._render_reference(kind)}({value.value!r})"
            )
        if (text := self._render_container(value, outer)) is not None:
            return text
        if (text := self._render_library_value(value)) is not None:
            return text
        if dataclasses.is_dataclass(value):
            return self._render_dataclass(value, outer)
        raise NotSimpleError(explain_refusal(value))

    def _render_reference(self, thing: Any) -> str:
        if (name := self.name_of(thing)) is not None:
            self.names.add(name)
            return name
        if getattr(thing, "__module__", None) == "builtins":
            return str(thing.__name__)
        if isinstance(thing, types.ModuleType):
            if sys.modules.get(thing.__name__) is thing and thing.__spec__ is not None:
                return self._reference_module(thing.__name__)
        elif is_importable(thing):
            return self._reference_attribute(thing.__module__, thing.__name__)
        raise NotSimpleError(explain_refusal(thing))

    def _reference_attribute(self, module: str, attribute: str) -> str:
        """Return an expression for an attribute of an importable module."""
        thing = getattr(sys.modules.get(module), attribute, None)
        if thing is not None and (name := self.name_of(thing)) is not None:
            self.names.add(name)
            return name
        needed = Imported(module, attribute, attribute)
        if needed in self.imports or self.is_free(attribute):
            self.imports.add(needed)
            return attribute
        return f"{self._reference_module(module)}.{attribute}"

    def _reference_module(self, module: str) -> str:
        if (known := self.name_of(sys.modules.get(module))) is not None:
            self.names.add(known)
            return known
        name = module if "." not in module and self.is_free(module) else f"_{module.replace('.', '_')}"
        self.imports.add(Imported(module, None, name))
        return name

    def _render_container(self, value: Any, outer: tuple[int, ...]) -> str | None:
        kind = type(value)
        if isinstance(value, tuple) and hasattr(kind, "_fields"):
            fields = (
                f"{name}={self._render(part, outer)}" for name, part in zip(kind._fields, value, strict=True)
            )
            return f"{self._render_reference(kind)}({', '.join(fields)})"
        if kind in (list, tuple, set, frozenset) or (isinstance(value, list) and _is_ipython_class(kind)):
            # Sorted, because the order of a set of strings differs between processes, and an unchanged cell has to give
            # an unchanged file.
            members = sorted(value, key=repr) if kind in (set, frozenset) else value
            parts = ", ".join(self._render(part, outer) for part in members)
            match kind.__name__:
                case "tuple":
                    return f"({parts},)" if len(value) == 1 else f"({parts})"
                case "set":
                    return f"{{{parts}}}" if value else "set()"
                case "frozenset":
                    return f"frozenset({{{parts}}})" if value else "frozenset()"
            return f"[{parts}]"
        if kind is dict:
            items = (
                f"{self._render(key, outer)}: {self._render(part, outer)}" for key, part in value.items()
            )
            return f"{{{', '.join(items)}}}"
        return None

    def _render_library_value(self, value: Any) -> str | None:
        kind = type(value)
        module = kind.__module__.split(".")[0]
        if module == "pendulum" and isinstance(value, datetime.datetime):
            moment = ", ".join(map(str, value.timetuple()[:6]))
            micro = f", {value.microsecond}" if value.microsecond else ""
            zone_name = value.timezone_name or "UTC"  # type: ignore[attr-defined]
            return f'{self._reference_module("pendulum")}.datetime({moment}{micro}, tz="{zone_name}")'
        if module == "pandas" and kind.__name__ in ("Timestamp", "Timedelta"):
            return f"{self._reference_attribute('pandas', kind.__name__)}({str(value)!r})"
        if module == "numpy" and hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
            plain = value.item()
            return self._render(plain, ()) if type(plain).__module__ in ("builtins", "datetime") else None
        if kind in (datetime.datetime, datetime.time):
            zone = getattr(value, "tzinfo", None)
            if zone is not None and type(zone) is not datetime.timezone:
                value, text = value.replace(tzinfo=None), self._render_library_value(zone)
                if text is None:
                    return None
                return f"{self._render_library_value(value)}"[:-1] + f", tzinfo={text})"
        if kind.__module__ == "zoneinfo" and getattr(value, "key", None):
            return f'{self._reference_attribute("zoneinfo", "ZoneInfo")}("{value.key}")'
        if kind is re.Pattern:
            flags = value.flags & ~re.UNICODE if isinstance(value.pattern, str) else value.flags
            more = f", {int(flags)}" if flags else ""
            return f"{self._reference_module('re')}.compile({value.pattern!r}{more})"
        if isinstance(value, PurePath):
            name = "Path" if kind.__name__.startswith(("Posix", "Windows")) else kind.__name__
            return f"{self._reference_attribute('pathlib', name)}({str(value)!r})"
        for name, kinds in _BY_REPR.items():
            if kind in kinds:
                return re.sub(
                    rf"(?:\b{name}\.)?\b({'|'.join(k.__name__ for k in kinds)})\b(?=[.(])",
                    lambda found, module=name: self._reference_attribute(module, found[1]),  # type: ignore[misc]
                    repr(value),
                )
        return None

    def _render_dataclass(self, value: Any, outer: tuple[int, ...]) -> str:
        fields = [field for field in dataclasses.fields(value) if field.init]
        parts = (f"{field.name}={self._render(getattr(value, field.name), outer)}" for field in fields)
        return f"{self._render_reference(type(value))}({', '.join(parts)})"


def _is_plain(value: Any) -> bool:
    if isinstance(value, (dict, list, tuple, set, frozenset)):
        children = [*value.keys(), *value.values()] if isinstance(value, dict) else list(value)
        return type(value) in (dict, list, tuple, set, frozenset) and all(map(_is_plain, children))
    return value is None or type(value) in (bool, int, float, complex, str, bytes)


def _is_ipython_class(kind: type) -> bool:
    return kind.__module__.split(".")[0] == "IPython"


def is_importable(thing: Any) -> bool:
    """Return whether a module other than the notebook has a function or class under its name."""
    module = getattr(thing, "__module__", None)
    name = getattr(thing, "__name__", None)
    if not isinstance(module, str) or module == "__main__" or name != getattr(thing, "__qualname__", name):
        return False
    return getattr(sys.modules.get(module), str(name), None) is thing


def are_equal(value: Any, other: Any) -> bool:
    """Return whether two values have the same type and are equal, including nested values."""
    if type(value) is not type(other):
        return False
    if isinstance(value, Mapping):
        return list(value) == list(other) and all(are_equal(value[key], other[key]) for key in value)
    if isinstance(value, (list, tuple)):
        return len(value) == len(other) and all(map(are_equal, value, other))
    # A comparison may execute any code, and the result for an array has no truth value.
    try:
        return bool(value == other) or (isinstance(value, float) and math.isnan(value) and math.isnan(other))
    except Exception:
        return False


def describe(value: Any) -> str:
    """Describe a value for a message.

    >>> describe(dict), describe(3.0), describe(x for x in "")
    ('the class dict', 'a float', 'a generator')
    """
    kind = type(value)
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, types.ModuleType):
        return f"the module {value.__name__}"
    if isinstance(value, types.LambdaType) and value.__name__ == "<lambda>":
        return "a lambda"
    if isinstance(value, types.FunctionType):
        return f"the function {value.__qualname__}"
    shape = value.shape if kind.__name__ == "DataFrame" else None
    size = ""
    if isinstance(shape, tuple) and len(shape) == 2:
        size = f" of {shape[0]:,} rows × {shape[1]:,} columns"
    module = kind.__module__
    # The module helps to recognize a connection, but not a data frame, which shows its size instead.
    name = kind.__name__ if module in ("builtins", "__main__") or size else f"{module}.{kind.__name__}"
    article = "an" if name[0].lower() in "aeiou" else "a"
    return f"{article} {name}{size}"


_PROCESS_OBJECTS = (type(threading.Lock()), type(threading.RLock()), threading.Thread, threading.Event)
_CONNECTIONS = re.compile(r"connection|engine|session|client|cursor|socket|channel|hook", re.IGNORECASE)


def explain_refusal(value: Any) -> str:
    """Return ``is a …: what to do instead`` for a value that can't be included."""
    return f"is {describe(value)}: {_alternative(value)}"


def _alternative(value: Any) -> str:
    kind = type(value)
    module = kind.__module__.split(".")[0]
    if kind.__name__ in ("DataFrame", "Series", "LazyFrame", "Table", "Dataset") or module in (
        "pandas",
        "polars",
    ):
        return (
            "read it inside the task, or write it to a file with df.to_parquet(…) and read that file in the task. "
            "Return it from a task to pass it to another one"
        )
    if module == "numpy":
        return (
            "create it inside the task, write it to a file, or convert a small array to a list with .tolist()"
        )
    if isinstance(value, (types.GeneratorType, types.AsyncGeneratorType, types.CoroutineType)):
        return "create it inside the task, or convert it to a list"
    if hasattr(kind, "read") or hasattr(kind, "fileno"):
        return "open it inside the task"
    if _CONNECTIONS.search(kind.__name__) or module in ("sqlite3", "psycopg2", "psycopg", "sqlalchemy"):
        return "open it inside the task, with an Airflow connection (BaseHook.get_connection(…), or a hook)"
    if isinstance(value, types.ModuleType):
        return "tasks can't import it, so write it to a file beside the notebook"
    if isinstance(value, (types.FunctionType, type)):
        return "no executed cell has its source, so define it with def or class in a cell, or in a module"
    if isinstance(value, _PROCESS_OBJECTS):
        return "create it inside the task, because it belongs to this process"
    if isinstance(value, BaseException):
        return "raise it inside the task"
    return "create it inside the task, or in this cell"
