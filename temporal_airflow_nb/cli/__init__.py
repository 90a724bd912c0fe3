"""The command line, ``temporal-airflow``."""
