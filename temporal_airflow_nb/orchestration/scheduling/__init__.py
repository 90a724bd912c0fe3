"""Scheduling passes: Airflow's own code decides, on Airflow's database."""
