"""The checks of a DAG's source, each kind in a module of its own."""
