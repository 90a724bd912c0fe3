"""Zygotes are replaced without harm to the processes that they have forked."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from temporal_airflow_nb.tasks import zygotes as module
from temporal_airflow_nb.tasks.zygotes import Zygotes, kill_group
from tests.support.waiting import until


@pytest.fixture
def zygotes():
    zygotes = Zygotes()
    yield zygotes
    zygotes.stop()


def close(child, pipes):
    for end in (*pipes, child):
        end.close()


def test_an_upgrade_of_a_package_replaces_the_zygotes_and_interrupts_no_task(zygotes, monkeypatch):
    child, pipes = zygotes.spawn("task")
    monkeypatch.setattr(module, "installation_stamp", lambda: [1])
    later, later_pipes = zygotes.spawn("task")
    roots = [psutil.Process(psutil.Process(pid).ppid()) for pid in (child.pid, later.pid)]
    assert roots[0] != roots[1]
    assert psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE
    close(child, pipes)
    # This process is its parent, and reaps it later.
    until(lambda: roots[0].status() == psutil.STATUS_ZOMBIE, "the end of the former zygote", 10)
    assert roots[1].is_running()
    close(later, later_pipes)


def test_the_pid_of_an_ended_process_stays_reserved_until_it_is_closed(zygotes):
    child, pipes = zygotes.spawn("task")
    child.send_signal(signal.SIGKILL)
    assert child.wait(10) == -signal.SIGKILL
    # Airflow's supervisor closes the channel at once; it may still send a signal to the group.
    child.exit_channel.close()
    assert psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE
    with pytest.raises(ProcessLookupError):
        child.send_signal(signal.SIGTERM)
    close(child, pipes)
    until(lambda: not psutil.pid_exists(child.pid), "the zygote to reap the process", 10)


def test_a_process_that_is_closed_while_it_runs_is_killed_with_its_group(zygotes):
    child, pipes = zygotes.spawn("task")
    close(child, pipes)
    until(lambda: not psutil.pid_exists(child.pid), "the end of the process", 10)


def test_no_signal_reaches_a_process_with_a_reused_pid():
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        signal.pause()
        os._exit(0)
    try:
        until(lambda: os.getpgid(pid) == pid, "the process to lead its group", 10)
        process = psutil.Process(pid)
        kill_group(pid, process.create_time() - 100)
        assert process.is_running()
        kill_group(pid, process.create_time())
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
        # Nothing is left to be killed.
        kill_group(pid, process.create_time())
    finally:
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)
