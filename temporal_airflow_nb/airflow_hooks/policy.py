"""Loaded as an ``airflow.policy`` by every process of Airflow, before its models."""
