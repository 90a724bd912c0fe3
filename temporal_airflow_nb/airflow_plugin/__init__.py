"""What the processes of a stock Airflow load, by entry points. Nothing here imports Temporal or uses the network."""
