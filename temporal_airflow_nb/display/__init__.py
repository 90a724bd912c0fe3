"""Shows runs, failures and findings as HTML, text and SVG. Needs neither Airflow nor Temporal."""
