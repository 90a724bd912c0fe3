"""The processes of a cluster: each in its own process group, killed as if the machine had failed, always ended."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.processes import end_all, family
from temporal_airflow_nb.stack import processes


@dataclass
class Service:
    """A process of a cluster, which may be started many times."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(repr=False)
    folder: Path
    pids: list[int] = field(default_factory=list)
    """The ids of its processes, one for each start."""
    process: subprocess.Popen[bytes] | None = None
    _started_at: int = 0

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        assert not self.is_running, f"{self.name} runs already"
        self._started_at = self.log.stat().st_size if self.log.exists() else 0
        self.process = processes.spawn(self.command, log=self.log, env=self.env, cwd=self.folder)
        self.pids.append(self.process.pid)

    def output(self) -> str:
        """Return the output since the last start."""
        with self.log.open("rb") as log:
            log.seek(self._started_at)
            return log.read().decode(errors="replace")

    def tail(self) -> str:
        """Return the end of the output since the last start, under a heading."""
        return f"--- {self.name}\n{self.output()[-3000:]}" if self.log.exists() else ""

    def kill(self) -> None:
        """Kill the process and all its descendants."""
        if self.process is not None:
            for member in family([self.process.pid]):
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
            self.process.wait()
            self.process = None


def stop(services: Sequence[Service]) -> None:
    """Stop services in parallel, with everything that they started."""
    running = [service for service in services if service.process is not None]
    end_all([service.process.pid for service in running if service.process])
    for service in running:
        assert service.process is not None
        service.process.wait(30)
        service.process = None
