"""The entry points that the processes of a stock Airflow load.

Except for the command ``airflow temporal doctor``, they use neither Temporal's SDK nor the network.
"""
