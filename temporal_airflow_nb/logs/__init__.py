"""Logs and errors of tasks, read from the records that Airflow writes."""
