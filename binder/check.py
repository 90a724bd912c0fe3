"""
Build the image of this folder as repo2docker does, in an empty folder with a new environment, and use it.

The script installs the packages, runs ``postBuild``, and starts JupyterLab with ``start`` at the address that a hub
would give it. Then it executes the notebooks, loads the UIs through the hub's path, and measures the memory meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.processes import cpu_seconds, end_all, family, memory_bytes
from binder.pages import Visitor
from temporal_airflow_nb.stack.services import ports

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ("quickstart", "kill_the_kernel", "etl")
PREFIX = "/user/somebody/"
TOKEN = "binder-check"
STACK_MB = 1200
"""Limit for the embedded stack without the processes of Airflow's UI."""
CONTAINER_MB = 2000
"""The memory of a container on mybinder.org."""
GROUPS = ("server", "kernel", "stack")
_PATIENCE = 1800
_NOT_INHERITED = ("AIRFLOW", "TEMPORAL_", "JUPYTER", "PYTHON", "VIRTUAL_ENV", "CONDA")


@dataclass
class Image:
    """The image that repo2docker builds: the repository's files, and an environment with their requirements."""

    folder: Path
    process: psutil.Popen | None = None
    rows: list[tuple[str, float, dict[str, float]]] = field(default_factory=list)
    with_ui: bool = False
    stack_mb: float = 0.0
    """Peak memory of the stack without Airflow's UI."""

    @property
    def repository(self) -> Path:
        """The folder that a user sees; it contains the notebooks' folder."""
        return self.folder / "repository"

    @property
    def home(self) -> Path:
        """The stack's state folder, which ``start`` sets."""
        return self.repository / ".temporal_airflow"

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables of everything in the image."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
        path = os.pathsep.join([str(self.folder / "env" / "bin"), kept.get("PATH", os.defpath)])
        jupyter = {f"JUPYTER_{name}_DIR": str(self.folder / name.lower()) for name in ("CONFIG", "DATA")}
        return {**kept, **jupyter, "PATH": path}

    def build(self) -> None:
        """Copy the repository, create the environment, install the requirements, run ``postBuild``."""
        listed = subprocess.check_output(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True
        )
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (self.repository / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.repository / name)
        version = (ROOT / "binder" / "runtime.txt").read_text().strip().removeprefix("python-")
        self.step("environment", f"python{version}", "-m", "venv", str(self.folder / "env"))
        pip = ("python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        self.step("requirements", *pip, "-r", "binder/requirements.txt")
        self.step("postBuild", "binder/postBuild")

    def step(self, title: str, *command: str, started: bool = False) -> None:
        """Run a command to its end, with ``start`` if the container has ``started``; record its time and memory."""
        print(f"{title}: {' '.join(command)}", flush=True)
        begun = time.monotonic()
        process = self.spawn(*command, started=started)
        peaks = dict.fromkeys(GROUPS, 0.0)
        while process.poll() is None:
            for group, used in self.memory(process.pid).items():
                peaks[group] = max(peaks[group], used)
            time.sleep(0.5)
        self.rows.append((title, time.monotonic() - begun, peaks))
        if not self.with_ui:
            self.stack_mb = max(self.stack_mb, peaks["stack"])
        if process.returncode:
            raise SystemExit(f"{title} failed with exit code {process.returncode}")

    def spawn(self, *command: str, started: bool = False) -> subprocess.Popen[bytes]:
        """Start a command in the repository."""
        environment = {**self.environment, **({"JUPYTERHUB_SERVICE_PREFIX": PREFIX} if started else {})}
        whole = ["binder/start", *command] if started else list(command)
        if not (program := self.repository / whole[0]).is_file():
            # A command of the new environment, which isn't on the PATH of this process.
            program = Path(shutil.which(whole[0], path=environment["PATH"]) or whole[0])
        whole[0] = str(program)
        return subprocess.Popen(whole, cwd=self.repository, env=environment)

    @contextlib.contextmanager
    def serving(self) -> Iterator[Visitor]:
        """Run JupyterLab as a hub does; yield a logged-in visitor."""
        port = ports.choose(["server"])["server"]
        server = self.spawn(
            *("jupyter", "lab", "--no-browser", "--allow-root", "--log-level=WARN"),
            *(f"--ServerApp.base_url={PREFIX}", f"--port={port}", "--ServerApp.port_retries=0"),
            f"--IdentityProvider.token={TOKEN}",
            started=True,
        )
        self.process = psutil.Process(server.pid)
        address = f"http://{ports.LOOPBACK}:{port}{PREFIX.rstrip('/')}"
        try:
            deadline = time.monotonic() + 60
            while not _answers(f"{address}/api"):
                if server.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("JupyterLab doesn't start")
                time.sleep(0.2)
            yield Visitor(address, TOKEN)
        finally:
            end_all([server.pid])

    def stack_processes(self) -> list[psutil.Process]:
        """Return the stack manager of the running stack, and its descendants."""
        try:
            manager = json.loads((self.home / "stack.json").read_text())["keeper"]
            return family([manager["pid"]]) if manager else []
        except (OSError, ValueError, psutil.NoSuchProcess):
            return []

    def memory(self, pid: int) -> dict[str, float]:
        """Return the memory of each group in megabytes (PSS); kernels are the kernel processes below ``pid``."""
        stack = self.stack_processes()
        of_stack = {process.pid for process in stack}
        kernels, server = [], []
        with contextlib.suppress(psutil.NoSuchProcess):
            kernels = [p for p in psutil.Process(pid).children(recursive=True) if _is_kernel(p)]
        if self.process is not None and self.process.is_running():
            server = [p for p in family([self.process.pid]) if p.pid not in of_stack]
        groups = {"server": server, "kernel": kernels, "stack": stack}
        return {name: memory_bytes(processes) / 1e6 for name, processes in groups.items()}

    def idle(self, seconds: float) -> None:
        """Let the stack idle; record its memory at the end and its share of a core."""
        before = cpu_seconds(self.stack_processes())
        time.sleep(seconds)
        share = (cpu_seconds(self.stack_processes()) - before) / seconds
        self.rows.append((f"idle, {share:.0%} of a core", seconds, self.memory(os.getpid())))


def main() -> int:
    """Build and use the image, print the table; return 1 if the stack used too much memory."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--idle",
        type=float,
        default=30,
        metavar="SECONDS",
        help="seconds for which the stack idles (default: 30)",
    )
    parser.add_argument("--keep", action="store_true", help="keep the folder")
    arguments = parser.parse_args()
    image = Image(Path(tempfile.mkdtemp(prefix="binder-")))
    try:
        image.build()
        with image.serving() as visitor:
            _use(image, visitor, arguments.idle)
    finally:
        end_all([process.pid for process in image.stack_processes()[:1]])
        if not arguments.keep:
            shutil.rmtree(image.folder, ignore_errors=True)
    return _report(image)


def _use(image: Image, visitor: Visitor, idle: float) -> None:
    demo = ("python", "-m", "temporal_airflow_nb.cli.demo")
    for name in NOTEBOOKS:
        image.step(name, *demo, f"notebooks/{name}.ipynb", started=True)
    image.with_ui = True
    image.step("up --ui", "temporal-airflow", "up", "--ui", "--detach", started=True)
    stack = json.loads((image.home / "stack.json").read_text())
    for name in ("airflow", "temporal"):
        files = visitor.load(stack[name]["ui_url"])
        print(f"{name}: the page and its {files} files have loaded from {stack[name]['ui_url']}")
    image.idle(idle)
    image.step(f"{NOTEBOOKS[-1]}, with the UIs", *demo, f"notebooks/{NOTEBOOKS[-1]}.ipynb", started=True)


def _report(image: Image) -> int:
    width = max(len(title) for title, _, _ in image.rows)
    print(f"\n{'':{width}}  seconds" + "".join(f"{group + ' MB':>12}" for group in GROUPS))
    for title, seconds, used in image.rows:
        print(f"{title:{width}}  {seconds:7.1f}" + "".join(f"{used[group]:12.0f}" for group in GROUPS))
    print()
    whole = max(sum(used.values()) for _, _, used in image.rows)
    limits = {
        "The stack without Airflow's UI": (image.stack_mb, STACK_MB),
        "Everything together": (whole, CONTAINER_MB),
    }
    for what, (most, limit) in limits.items():
        print(f"{what}: at most {most:.0f} MB, {'within' if most <= limit else 'ABOVE'} {limit} MB.")
    return int(any(most > limit for most, limit in limits.values()))


def _is_kernel(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return any("ipykernel" in word for word in process.cmdline())
    return False


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
