"""The settings, commands and tables of this package, as Airflow's provider manager reads them."""

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
                "description": "The DAGs whose runs Temporal executes, and the address of Temporal's UI.",
                "options": {
                    "dags": {
                        "description": (
                            "The DAGs whose runs Temporal executes, separated by commas: patterns of DAG ids, as in"
                            " a shell, or ``tag:NAME``. ``!`` before an item excludes these DAGs."
                        ),
                        "version_added": None,
                        "type": "string",
                        "example": "etl_*, tag:temporal, !etl_legacy",
                        "default": "*",
                    },
                    "ui_url": {
                        "description": "Address of Temporal's UI, for the links in Airflow's UI.",
                        "version_added": None,
                        "type": "string",
                        "example": "https://cloud.temporal.io",
                        "default": "",
                    },
                },
            },
        },
    }
