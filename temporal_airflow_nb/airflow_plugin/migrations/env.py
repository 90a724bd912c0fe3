"""Airflow wants such a file of every database manager. Ours needs no migrations: see ``tables.py``."""
