"""The gateway's application: one route for each operation that its client carries out."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from temporal_airflow_nb.client.capabilities import OPERATIONS, Backend, refusals_of
from temporal_airflow_nb.errors import InvalidInputError

ROUTES = """
import json
from temporal_airflow_nb.gateway.app import application

app = application("secret", None, dict)
print(json.dumps(sorted(route.path for route in app.routes if route.path.startswith("/v1/"))))
"""


def test_the_gateway_serves_what_its_client_can_ask(stack):
    # In a process with the stack's settings: this one must not import Airflow before they are made.
    printed = subprocess.run(
        [sys.executable, "-c", ROUTES],
        env={**os.environ, **stack.status()["env"]},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    expected = sorted(f"/v1/{name}" for name in set(OPERATIONS) - refusals_of(Backend.GATEWAY).keys())
    assert json.loads(printed.splitlines()[-1]) == expected


@pytest.mark.parametrize("runs", [0, 1_001])
def test_a_grid_of_too_many_runs_is_refused(stack, runs):
    with pytest.raises(InvalidInputError, match=f"can't show {runs} runs"):
        stack.client.get_grid_changes("etl", "nothing", runs=runs)


def test_an_argument_of_another_type_is_named(stack):
    with pytest.raises(InvalidInputError, match="`get_task` can't take 'first' as map_index"):
        stack.client.get_task("etl", "nothing", "load", map_index="first")
