"""Runs of DAGs, as users handle them."""
