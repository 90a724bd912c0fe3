"""The real manager with `fake_gateway.py` as its worker service, which gets each argument `worker:NAME=VALUE`."""

import sys
from pathlib import Path

from temporal_airflow_nb.stack.manager.manager import StackManager, parse_arguments

home, *arguments = sys.argv[1:]
behaviour = [a.removeprefix("worker:") for a in arguments if a.startswith("worker:")]
options = parse_arguments([home, *(a for a in arguments if not a.startswith("worker:"))])
fake_gateway = Path(__file__).with_name("fake_gateway.py")
sys.exit(StackManager(**options, worker_command=[sys.executable, str(fake_gateway), home, *behaviour]).run())
