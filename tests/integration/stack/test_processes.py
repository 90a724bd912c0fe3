from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial

import psutil
import pytest

from temporal_airflow_nb.stack import processes
from tests.support.waiting import until

wait_for = partial(until, timeout=10.0)

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('on', flush=True); time.sleep(600)"
)


def runs(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.fixture
def spawn(tmp_path, request):
    stack_id = f"{request.node.name}-{os.getpid()}"
    started = []

    def spawn(*command, **options):
        env = {**os.environ, processes.STACK_ID_VARIABLE: stack_id}
        started.append(processes.spawn(command, log=tmp_path / "x.log", env=env, **options))
        return started[-1]

    spawn.stack_id, spawn.log = stack_id, tmp_path / "x.log"
    yield spawn
    processes.kill_all(stack_id)
    for process in started:
        process.wait()


def test_a_process_has_its_own_group_and_log(spawn):
    process = spawn(sys.executable, "-c", "print('words')")
    assert process.wait() == 0
    assert spawn.log.read_text() == "words\n"
    assert os.getpgid(spawn("sleep", "600").pid) != os.getpgid(0)


def test_a_large_log_is_rotated(spawn, monkeypatch):
    monkeypatch.setattr(processes, "MAX_LOG_BYTES", 10)
    spawn.log.write_text("x" * 11)
    spawn("true").wait()
    assert spawn.log.read_text() == ""
    assert spawn.log.with_suffix(".old.log").read_text() == "x" * 11


def test_a_group_that_ignores_sigterm_is_killed(spawn):
    process = spawn(sys.executable, "-c", STUBBORN)
    wait_for(lambda: spawn.log.read_text() == "on\n")
    began = time.monotonic()
    processes.signal_group(process.pid, signal.SIGTERM)
    processes.kill_group(process, grace=0.3)
    assert process.returncode == -signal.SIGKILL
    assert 0.3 <= time.monotonic() - began < 3


def test_killing_a_group_takes_the_children_of_a_dead_leader(spawn):
    process = spawn("sh", "-c", "sleep 600 & echo $!")
    process.wait()
    child = int(spawn.log.read_text())
    assert runs(child)
    processes.kill_group(process, grace=0.3)
    wait_for(lambda: not runs(child))


def test_a_process_dies_with_its_parent(tmp_path):
    if sys.platform != "linux":
        pytest.skip("a service of Linux's kernel")
    code = (
        "import os, pathlib, sys; from temporal_airflow_nb.stack import processes;"
        "log = pathlib.Path(sys.argv[1]);"
        "p = processes.spawn(['sleep', '600'], log=log, env=os.environ, die_with_parent=True);"
        "print(p.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.log")], stdout=subprocess.PIPE, text=True
    )
    assert done.returncode == -9
    wait_for(lambda: not runs(int(done.stdout)))


def test_kill_all_finds_processes_outside_their_group_and_spares_others(spawn):
    leader = spawn("sh", "-c", "setsid sleep 600 & setsid sleep 600 & wait")
    spared = spawn("sleep", "600")
    stranger = subprocess.Popen(["sleep", "600"], env={**os.environ, processes.STACK_ID_VARIABLE: "other"})
    try:
        wait_for(lambda: len(list(processes.find_all(spawn.stack_id))) == 4)
        killed = processes.kill_all(spawn.stack_id, spare={spared.pid})
        assert leader.pid in killed
        assert len(killed) == 3
        assert runs(spared.pid)
        assert runs(stranger.pid)
        assert [p.pid for p in processes.find_all(spawn.stack_id)] == [spared.pid]
    finally:
        stranger.kill()
        stranger.wait()


def test_an_identity_outlives_neither_its_process_nor_a_reused_pid(spawn):
    process = spawn("sleep", "600")
    known = processes.identify(process.pid)
    assert processes.is_alive(known)
    assert not processes.is_alive({**known, "create_time": known["create_time"] - 60})
    process.kill()
    wait_for(lambda: not processes.is_alive(known))
    assert not processes.is_alive({})


@pytest.mark.parametrize("version", [(3, 10), sys.version_info[:2]])
def test_the_working_directory_does_not_shadow_modules(tmp_path, monkeypatch, version):
    (tmp_path / "shlex.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.setattr(sys, "version_info", version)
    command = processes.python_command("temporal_airflow_nb.cli.main", "--version")
    env = {**os.environ, **processes.python_path(os.environ)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
