"""DAGs whose limit a test raises by editing this file."""

from __future__ import annotations

from _tracing import gated
from airflow.sdk import DAG

LIMIT = 1

for dag_id in ("limited", "native_limited"):
    with DAG(dag_id, schedule=None, max_active_tasks=LIMIT):
        gated("one")
        gated("two")
