"""The entry point ``airflow.policy``: every process of Airflow loads it before its models and its first session."""

from temporal_airflow_nb.airflow_plugin.startup import on_settings_loaded

on_settings_loaded()
