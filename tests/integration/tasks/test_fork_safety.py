"""Imports that make forks unsafe are found, and random number generators are made new in each fork."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

# Each module is imported by a zygote in the way of `zygote._become_package_zygote`, in a new interpreter.
IMPORT = """
import importlib, json, sys
from temporal_airflow_nb.tasks.fork_safety import (
    ProcessState, find_numpy_generators, find_obstacle, recording_seeds, reseed
)
before = ProcessState.read()
with recording_seeds():
    module = importlib.import_module("module_under_test")
find_numpy_generators()
"""


def run_python(tmp_path, module, then):
    (tmp_path / "module_under_test.py").write_text(textwrap.dedent(module))
    done = subprocess.run(
        [sys.executable, "-c", f"{IMPORT}\n{textwrap.dedent(then)}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("module", "obstacle"),
    [
        ("import decimal, sqlite3, csv", ""),
        ("import numpy, pandas, pyarrow", ""),
        ("import logging; logging.getLogger(__name__).addHandler(logging.NullHandler())", ""),
        ("import random; random.seed(1); value = random.random()", ""),
        ("import os; null = open(os.devnull)", ""),
        ("import subprocess; subprocess.run(['true'])", ""),
        (
            "import threading; threading.Thread(target=threading.Event().wait, daemon=True, name='ours').start()",
            "starts threads: ours",
        ),
        ("from multiprocessing import Pool; pool = Pool(1)", "starts threads"),
        ("import socket; listening = socket.socket()", "keeps files or connections open: socket:"),
        ("import asyncio; loop = asyncio.new_event_loop()", "keeps files or connections open"),
        (
            "import sqlite3; database = sqlite3.connect('some.db'); database.execute('create table t (a)')",
            "keeps",
        ),
        ("file = open(__file__)", "keeps files or connections open: "),
        ("import subprocess; child = subprocess.Popen(['sleep', '1'])", "starts processes"),
        ("import signal; signal.signal(signal.SIGUSR1, lambda *_: None)", "installs signal handlers"),
        ("import signal; signal.setitimer(signal.ITIMER_REAL, 50)", "starts a timer of the process"),
        ("import socket; socket.setdefaulttimeout(3)", "sets a timeout for all sockets"),
        ("import logging; logging.basicConfig()", "changes the root logger"),
        ("import logging; logging.getLogger().setLevel(10)", "changes the root logger"),
        (
            "import pyarrow.compute as pc; pc.sum(list(range(9)))\n"
            "import pyarrow as pa; pa.table({'a': range(99999)}).group_by('a').aggregate([('a', 'sum')])",
            "starts native threads: ",
        ),
    ],
)
def test_an_import_that_makes_forks_unsafe_is_found(tmp_path, module, obstacle):
    found = run_python(tmp_path, module, "print(json.dumps(find_obstacle(before)))")
    assert found.startswith(obstacle), found
    assert bool(found) == bool(obstacle)


def test_a_fork_draws_new_numbers_except_with_a_seed_of_its_own(tmp_path):
    module = """
        import random
        import numpy

        class Special(random.Random):
            pass

        SOURCES = {
            "own": random.Random().random,
            "special": Special().random,
            "shared": random.random,
            "numpy": numpy.random.random,
            "generator": numpy.random.default_rng().random,
            "state": numpy.random.RandomState().random_sample,
            "philox": numpy.random.Generator(numpy.random.Philox()).random,
            "seeded": random.Random(7).random,
            "seeded later": (later := random.Random()).random,
            "seeded generator": numpy.random.default_rng(7).random,
            "seeded state": numpy.random.RandomState(7).random_sample,
        }
        later.seed(3)
    """
    then = """
        import os

        drawn = []
        for _ in range(3):
            read_end, write_end = os.pipe()
            if os.fork() == 0:
                reseed()
                numbers = {name: float(draw()) for name, draw in module.SOURCES.items()}
                os.write(write_end, json.dumps(numbers).encode())
                os._exit(0)
            os.close(write_end)
            drawn.append(json.loads(open(read_end).read()))
            os.wait()
        print(json.dumps({name: len({numbers[name] for numbers in drawn}) for name in drawn[0]}))
    """
    found = run_python(tmp_path, module, then)
    assert found == {name: 1 if name.startswith("seeded") else 3 for name in found}
    assert len(found) == 11


def test_a_library_that_seeds_numpy_keeps_its_seed(tmp_path):
    module = "import numpy; numpy.random.seed(7)"
    then = """
        import numpy
        reseed()
        print(json.dumps(float(numpy.random.random())))
    """
    assert run_python(tmp_path, module, then) == pytest.approx(0.0763082893739572)
