"""Starts, checks, restarts and ends the process of one service of a stack.

The stack manager, which has one thread, calls every method. A service passes through the states ``starting``,
``running``, ``dead``, ``restarting``, ``stopping`` and ``stopped``, which ``stack.json`` shows.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from subprocess import Popen

from temporal_airflow_nb.errors import ServiceUnavailableError, TemporalAirflowError, from_dict
from temporal_airflow_nb.stack import processes, state_folder
from temporal_airflow_nb.stack.services import definitions
from temporal_airflow_nb.stack.services.spec import Service
from temporal_airflow_nb.stack.state_folder import ServiceRow

# Seconds before each restart in a row. A service that has been ready for `_STABLE_SECONDS` begins with the first again.
_RESTART_DELAYS = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
_STABLE_SECONDS = 30.0


class ServiceProcess:
    """A service and the process that runs it now."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.process: Popen[bytes] | None = None
        self.state = "stopped"
        self.error: TemporalAirflowError | None = None
        self.retry_at: float | None = None
        self._failures = 0
        self._ready_since = 0.0
        self._ready_fd: int | None = None
        self._report = b""

    def start(self) -> None:
        """Start the process, or leave that to :meth:`check` until the service may start."""
        self.retry_at = None
        self.state = "starting"
        self.error = None
        self._report = b""
        self._launch()

    def _launch(self) -> None:
        service = self.service
        # `check` calls this method again while the state is `starting` and there is no process.
        if service.may_start is not None and not service.may_start():
            return
        if service.is_ready is not None:
            self.process = self._spawn(service.env, ())
            return
        # The service inherits the write end, and writes one line of JSON to it: that it is ready, or its error.
        self._ready_fd, child_end = os.pipe()
        # The manager has one thread and must never wait for a service.
        os.set_blocking(self._ready_fd, False)
        self.process = self._spawn({**service.env, definitions.READY_FD: str(child_end)}, (child_end,))
        os.close(child_end)

    def _spawn(self, env: dict[str, str], pass_fds: tuple[int, ...]) -> Popen[bytes]:
        service = self.service
        return processes.spawn(
            service.command,
            log=service.log,
            env=env,
            cwd=service.cwd,
            pass_fds=pass_fds,
            umask=service.umask,
            die_with_parent=True,
        )

    def check(self) -> bool:
        """Start the process if it may start now, and update the state; return whether anything has changed."""
        if self.process is None:
            if self.state == "starting":
                self._launch()
            return self.process is not None
        before = self.state
        # `poll` reaps the process. It may have reported an error before its end, which says more than its exit code.
        if self.process.poll() is not None:
            self.error = self._read_report() or self._describe_exit()
            self.state = "dead"
            self._close_report()
        elif self.state == "starting":
            self._check_ready(self.process.pid)
        return self.state != before

    def _check_ready(self, pid: int) -> None:
        if self.service.is_ready is not None:
            ready = self.service.is_ready(pid)
        else:
            self.error = self._read_report()
            ready = self.error is None and self._report.endswith(b"\n")
        if self.error is not None:
            self.state = "dead"
        elif ready:
            self.state = "running"
            self._ready_since = time.monotonic()
            self._close_report()

    def _read_report(self) -> TemporalAirflowError | None:
        if self._ready_fd is None:
            return None
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self._ready_fd, 65536):
                self._report += chunk
        # An incomplete line: the rest may follow.
        if not self._report.endswith(b"\n"):
            return None
        try:
            report = json.loads(self._report)
        except ValueError:
            report = {}
        return from_dict(report["error"]) if "error" in report else None

    def _describe_exit(self) -> ServiceUnavailableError:
        assert self.process is not None
        code = self.process.returncode
        how = (
            f"was ended by signal {signal.Signals(-code).name}"
            if code < 0
            else f"ended with exit code {code}"
        )
        last = state_folder.read_log_tail(self.service.log)
        return ServiceUnavailableError(
            f"The {self.service.name} service {how}." + (f" Last in its log:\n{last}" if last else ""),
            hint=f"See {self.service.log}.",
            service=self.service.name,
            address=self.service.address,
        )

    def _close_report(self) -> None:
        if self._ready_fd is not None:
            os.close(self._ready_fd)
            self._ready_fd = None

    def ask_to_end(self) -> None:
        """Ask a running process to end.

        A process that isn't ready yet has nothing to save: :meth:`end` kills it.
        """
        if self.process is not None and self.state == "running":
            processes.signal_group(self.process.pid, self.service.stop_signal)
            self.state = "stopping"

    def end(self) -> None:
        """End the process and its group."""
        self.ask_to_end()
        if self.process is not None:
            grace = self.service.grace if self.state == "stopping" else 0.0
            processes.kill_group(self.process, grace=grace)
            self.process = None
        self._close_report()
        self.retry_at = None
        self.state = "stopped"

    def schedule_restart(self) -> None:
        """Kill the rest of the dead process's group, and set the time of the restart."""
        assert self.process is not None
        processes.kill_group(self.process, grace=0.0)
        self.process = None
        self._close_report()
        # A service that died before it was ready, or soon after, waits longer than the time before.
        if self._ready_since and time.monotonic() - self._ready_since > _STABLE_SECONDS:
            self._failures = 0
        self._ready_since = 0.0
        self.retry_at = time.monotonic() + _RESTART_DELAYS[min(self._failures, len(_RESTART_DELAYS) - 1)]
        self._failures += 1
        self.state = "restarting"

    def row(self) -> ServiceRow:
        """Return the service's row in ``stack.json``."""
        return {
            "name": self.service.name,
            "state": self.state,
            "address": self.service.address,
            "pid": self.process.pid if self.process else None,
        }
