from __future__ import annotations

import atexit
import queue
import time

import pytest
from IPython.core.interactiveshell import InteractiveShell
from jupyter_client.manager import KernelManager
from traitlets.config import Config


class Shell:
    """An IPython shell that raises the errors of its cells."""

    def __init__(self, ip):
        self.ip = ip

    def run(self, source):
        self.ip.run_cell(source).raise_error()

    @property
    def ns(self):
        return self.ip.user_ns


@pytest.fixture
def shell(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    InteractiveShell.clear_instance()
    ip = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    shell = Shell(ip)
    shell.run("%load_ext temporal_airflow_nb")
    yield shell
    shell.run("%unload_ext temporal_airflow_nb")
    InteractiveShell.clear_instance()
    # IPython would reset each of the shells when pytest exits, which took half a minute.
    atexit.unregister(ip.atexit_operations)


class Kernel:
    """A kernel process, used as a front end uses it."""

    def __init__(self, manager, client):
        self.manager = manager
        self.client = client
        self.messages = []

    def run(self, source, timeout=120, errors=False):
        """Execute a cell and return its reply. Doesn't wait for threads of the cell."""
        request = self.client.execute(source)
        reply = self.reply_to(request, timeout)
        assert errors or reply["content"]["status"] == "ok", reply["content"]
        return reply["content"]

    def reply_to(self, request, timeout):
        """Return the reply to one request, and skip late replies to requests of the start."""
        while True:
            reply = self.client.get_shell_msg(timeout=timeout)
            if reply["parent_header"]["msg_id"] == request:
                return reply

    def value(self, expression):
        """Return the value of an expression in the kernel, of basic types."""
        content = {"status": "aborted"}
        # A kernel aborts requests that arrive right after an error.
        while content["status"] == "aborted":
            request = self.client.execute("", user_expressions={"value": expression}, store_history=False)
            content = self.reply_to(request, timeout=60)["content"]
        return eval(content["user_expressions"]["value"]["data"]["text/plain"])

    def collect(self, until=lambda message: False, timeout=0.3):
        """Collect published messages until one fulfils a condition or the time is over; return that message."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            try:
                message = self.client.get_iopub_msg(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                break
            self.messages.append((time.monotonic(), message))
            if until(message):
                return message
        return None

    def displays(self):
        """Return all displays published so far, the oldest first."""
        kinds = ("display_data", "update_display_data")
        return [message for _, message in self.messages if message["msg_type"] in kinds]

    def said(self):
        return "".join(m["content"]["text"] for _, m in self.messages if m["msg_type"] == "stream")


def state_shown(message):
    """Return the run's state in a published display; None if it shows no run."""
    if message["msg_type"] not in ("display_data", "update_display_data"):
        return None
    return message["content"]["metadata"].get("temporal_airflow", {}).get("state")


@pytest.fixture
def start_kernel(monkeypatch):
    """Start kernels that use the stack of a state folder."""
    kernels = []

    def start(home):
        monkeypatch.setenv("TEMPORAL_AIRFLOW_HOME", str(home))
        manager = KernelManager(kernel_name="python3")
        manager.start_kernel()
        client = manager.client()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        kernel = Kernel(manager, client)
        kernels.append(kernel)
        kernel.run("%load_ext temporal_airflow_nb")
        return kernel

    yield start
    for kernel in kernels:
        kernel.client.stop_channels()
        if kernel.manager.has_kernel:
            kernel.manager.shutdown_kernel()


@pytest.fixture
def kernel(start_kernel, stack):
    """A kernel on the stack that tests share."""
    return start_kernel(stack.home)
