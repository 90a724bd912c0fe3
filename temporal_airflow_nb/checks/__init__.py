"""Finds mistakes in the source of a DAG before it runs. Needs neither Airflow nor Temporal."""
