"""Loaded as an ``airflow.policy`` by every process of Airflow, before its models and its first session."""

from temporal_airflow_nb.airflow_plugin.startup import on_settings_loaded

on_settings_loaded()
