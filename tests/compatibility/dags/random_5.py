"""Random DAGs for Airflow, of 32 seeds."""

from random_lib import load

load(range(160, 192), __file__)
