"""Turns a notebook cell into a DAG file, from source text and syntax trees alone."""
