"""Folders that tests read from."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
PACKAGE = ROOT / "temporal_airflow_nb"
DOCS = ROOT / "docs"
INTEGRATION_DAGS = TESTS / "integration" / "dags"
COMPATIBILITY_DAGS = TESTS / "compatibility" / "dags"
