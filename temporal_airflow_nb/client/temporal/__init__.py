"""The client of Temporal, if Airflow can't be reached."""
