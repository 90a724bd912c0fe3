"""Measures the time from a trigger by REST to the start of the run's first task."""

from __future__ import annotations

import argparse
import sys
import time
from datetime import datetime
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.clusters import DATABASES, running, table
from tests.production.cluster import Cluster

DAG_ID = "simple"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=DATABASES, action="append")
    parser.add_argument(
        "--repetitions", type=int, default=10, help="timed repetitions, after one for the warm-up"
    )
    options = parser.parse_args()
    rows = []
    for database in options.database or DATABASES:
        with running(database) as cluster:
            measure(cluster)
            rows.append((database, [measure(cluster) for _ in range(options.repetitions)]))
    print(table(rows))


def measure(cluster: Cluster) -> float:
    """Trigger a run; return the seconds until its first task has started."""
    began = time.time()
    run_id = cluster.trigger(DAG_ID)
    assert cluster.wait_for_end(DAG_ID, run_id) == "success"
    started = min(datetime.fromisoformat(ti["start_date"]) for ti in cluster.instances(DAG_ID, run_id))
    return started.timestamp() - began


if __name__ == "__main__":
    main()
