"""Airflow requires this file for every database manager. The tables need no migrations: see ``tables.py``."""
