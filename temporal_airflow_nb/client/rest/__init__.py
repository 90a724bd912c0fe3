"""The client of Airflow's REST API."""
