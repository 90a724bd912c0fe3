"""The tables of this package in Airflow's database, and the functions that read and write them."""
