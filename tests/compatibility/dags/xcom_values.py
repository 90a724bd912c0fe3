"""Values of many kinds, pushed by one task and read by another."""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid

import pendulum
from airflow.sdk import DAG, Asset, task
from oracle_lib.shapes import Opaque, Point, Temperature

ZONE = pendulum.timezone("Europe/Paris")


class Colour(enum.Enum):
    RED = "red"


VALUES = {
    "dict": {"a": [1, 2.5, None, True], "b": {"c": 'é\n"quoted"'}},
    "list": [1, "two", [3]],
    "tuple": (1, ("two", 3)),
    "set": {7},
    "frozenset": frozenset({"only"}),
    "empty": {},
    "text": "a string with {{ no_template }} in it",
    "number": 12345678901234567890,
    "float": 0.1,
    "true": True,
    "none": None,
    "bytes": b"\x00\xffbytes",
    "datetime": datetime.datetime(2020, 2, 3, 4, 5, 6, 789, tzinfo=datetime.timezone.utc),
    "zoned": pendulum.datetime(2020, 7, 3, 4, 5, 6, tz=ZONE),
    "naive": datetime.datetime(2020, 2, 3, 4, 5, 6),
    "date": datetime.date(2020, 2, 3),
    "timedelta": datetime.timedelta(days=1, seconds=2),
    "decimal": decimal.Decimal("1.10"),
    "uuid": uuid.UUID(int=7),
    "enum": Colour.RED,
    "dataclass": Point(1, 2),
    "custom": Temperature(21.5),
    "opaque": Opaque(),
    "asset": Asset(name="oracle", uri="file:///oracle"),
    "key_numbers": {1: "one"},
    "big": "0123456789" * 300_000,
}

for name in VALUES:
    # One DAG for each value, so that an unsupported value fails only its own DAG.
    with DAG(f"xcom_{name}", schedule=None):

        @task
        def push(name):
            return VALUES[name]

        @task
        def read(received):
            shown = repr(received)
            return [type(received).__name__, shown if len(shown) < 1000 else len(shown)]

        read(push(name))
