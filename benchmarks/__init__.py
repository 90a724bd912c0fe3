"""Measurements of this project and of native Airflow."""
