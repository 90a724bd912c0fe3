"""DAGs whose file a test removes for a while."""

from __future__ import annotations

from _tracing import gated, traced
from airflow.sdk import DAG

for prefix in ("", "native_"):
    with DAG(f"{prefix}vanishing", schedule=None):
        gated("waits") >> traced("after")
