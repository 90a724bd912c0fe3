"""Measurements of this project beside native Airflow."""
