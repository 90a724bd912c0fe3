"""The shapes of what clients ask of a stack and of its answers; each is written here once.

The gateway's routes, its client, the client of Airflow's REST API and the client of Temporal share them. Answers are
typed dictionaries, because they travel as JSON; requests are frozen dataclasses, because the gateway validates them.
Standard library only.
"""
