"""Random DAGs for Airflow, of 32 seeds."""

from random_lib import load

load(range(256, 288), __file__)
