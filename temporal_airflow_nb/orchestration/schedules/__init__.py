"""Temporal as the clock: a Temporal Schedule for each DAG with a time schedule."""
