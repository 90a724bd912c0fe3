"""Native scheduling: Temporal Schedules in place of Airflow's scheduler loop."""
