"""What Airflow's provider manager reads of this package: settings, commands, tables."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Return the package's description in the form of Airflow's ``provider_info.schema.json``."""
    return {
        "package-name": "temporal-airflow-nb",
        "name": "Temporal",
        "description": "Runs DAGs on Temporal.",
        "cli": ["temporal_airflow_nb.airflow_plugin.commands.get_cli_commands"],
        "db-managers": ["temporal_airflow_nb.airflow_plugin.tables.TemporalDBManager"],
        "config": {
            "temporal_airflow": {
                "description": "Which DAG runs Temporal executes, and where its pages are.",
                "options": {
                    "dags": {
                        "description": (
                            "Which DAGs Temporal executes, with commas between them: patterns of DAG ids, as of a"
                            " shell, or ``tag:NAME``; with ``!`` before it, which ones it doesn't."
                        ),
                        "version_added": None,
                        "type": "string",
                        "example": "etl_*, tag:temporal, !etl_legacy",
                        "default": "*",
                    },
                    "ui_url": {
                        "description": "Address of Temporal's UI, for the links in Airflow's.",
                        "version_added": None,
                        "type": "string",
                        "example": "https://cloud.temporal.io",
                        "default": "",
                    },
                },
            },
        },
    }
