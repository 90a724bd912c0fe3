"""Native Airflow as the oracle: the same DAGs there and here, compared task for task."""
