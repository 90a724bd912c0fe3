"""A production-like Airflow with Temporal, for measurements."""

from __future__ import annotations

import contextlib
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.production.cluster import HERE, Cluster
from tests.production.postgres import Postgres

DATABASES = ("sqlite", "postgres")


@contextlib.contextmanager
def running(database: str, **options: Any) -> Iterator[Cluster]:
    """Run a cluster on one of ``DATABASES``, with the DAGs of the tests and Airflow's default intervals."""
    home = Path(tempfile.mkdtemp(prefix="bench-"))
    settings = {
        "scheduler": {"scheduler_idle_sleep_time": "1"},
        "temporal_airflow": {"dags": "*, !native_*"},
    }
    with contextlib.ExitStack() as exits:
        exits.callback(shutil.rmtree, home, ignore_errors=True)
        url = exits.enter_context(Postgres()).new_database() if database == "postgres" else None
        dags = {"dags": [HERE / "dags"], "plugins": HERE / "plugins"}
        yield exits.enter_context(Cluster(home, database_url=url, settings=settings, **dags, **options))


def table(rows: Iterable[tuple[str, list[float]]]) -> str:
    """Return measured seconds as a text table."""
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    lines = [f"{'':{width}}  median     min     max"]
    for name, seconds in rows:
        figures = (statistics.median(seconds), min(seconds), max(seconds))
        lines.append(f"{name:{width}}" + "".join(f"{figure:8.2f}" for figure in figures))
    return "\n".join(lines)
