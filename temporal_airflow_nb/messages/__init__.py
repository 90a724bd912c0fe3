"""The shapes of requests to a stack and of its answers.

The gateway's routes, its client, the client of Airflow's REST API and the client of Temporal share them. Answers are
typed dictionaries, because they travel as JSON. Requests are frozen dataclasses, because the gateway validates them.
Standard library only.
"""
