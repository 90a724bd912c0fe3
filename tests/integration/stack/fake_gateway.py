"""Replaces the worker service in tests: it reports like a worker and answers requests, without Airflow."""

import json
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

home = Path(sys.argv[1])
behaviour = dict(argument.split("=", 1) for argument in sys.argv[2:])


def report(message):
    with os.fdopen(int(os.environ["TEMPORAL_AIRFLOW_READY_FD"]), "w") as pipe:
        pipe.write(json.dumps(message) + "\n")


class Gateway(BaseHTTPRequestHandler):
    def do_POST(self):
        answer = json.dumps({"pid": os.getpid(), "airflow": "none", "env": dict(os.environ)}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments):
        pass


if "crash" in behaviour:
    print("the reason, in the log", flush=True)
    sys.exit(7)
if "refuse" in behaviour:
    report({"error": {"code": "unsupported_version", "message": "no", "hint": "do", "facts": {}}})
    sys.exit(2)
time.sleep(float(behaviour.get("delay", 0)))
# A process that a task may leave: outside the group and the session, but with the stack's id.
offspring = subprocess.Popen(["sleep", "600"], start_new_session=True)
(home / "offspring").write_text(str(offspring.pid))
server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["TEMPORAL_AIRFLOW_GATEWAY_PORT"])), Gateway)
report({"ready": True})
server.serve_forever()
