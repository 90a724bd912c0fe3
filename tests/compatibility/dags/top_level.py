"""Code at the top of a DAG file: Airflow executes it anew for each try."""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from airflow.sdk import DAG, task
from oracle_lib.effects import leave

OWN = random.Random()
SEEDED = random.Random(7)
GENERATOR = np.random.default_rng()
SEEDED_GENERATOR = np.random.default_rng(7)
NOISE = np.random.normal(size=3)
IDENTIFIER = uuid.uuid4()
FOLDER = tempfile.mkdtemp()
NOW = datetime.now(timezone.utc)
STARTED = time.monotonic()
PID = os.getpid()
OUTPUT = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True).stdout
FLAG = Path(tempfile.gettempdir()) / f"oracle-top-level-{os.getuid()}"
IS_FLAGGED = FLAG.exists()
LOOP = asyncio.new_event_loop()
LOOP.run_until_complete(asyncio.sleep(0))
POOL = ThreadPoolExecutor(2)
POOL.submit(int).result()
LOCK = threading.Lock()
ENDED = threading.Event()
threading.Thread(target=ENDED.wait, daemon=True, name="of the file").start()
PAIR = socket.socketpair()
CALLS: list[int] = []
VARIABLE = contextvars.ContextVar("of_the_file", default=1)
VARIABLE.set(2)
sys.setrecursionlimit(3333)
TABLE = pa.table({"key": ["a", "b"] * 500, "value": range(1000)})
SUMS = TABLE.group_by("key").aggregate([("value", "sum")])

with DAG("top_level_random", schedule=None):

    @task
    def draw(number):
        return {
            "own": OWN.random(),
            "seeded": SEEDED.random(),
            "random": random.random(),
            "generator": float(GENERATOR.random()),
            "seeded_generator": float(SEEDED_GENERATOR.random()),
            "numpy": float(np.random.random()),
            "noise": float(NOISE[0]),
            "identifier": str(IDENTIFIER),
            "folder": FOLDER,
            "output": OUTPUT,
        }

    @task
    def count_distinct(rows):
        rows = list(rows)
        return {name: len({row[name] for row in rows}) for name in rows[0]}

    count_distinct(draw.expand(number=[1, 2, 3, 4]))

with DAG("top_level_clock", schedule=None):

    @task
    def first():
        return [datetime.now(timezone.utc) - NOW < timedelta(seconds=5), os.getpid() == PID]

    @task
    def second():
        time.sleep(1)
        return [time.monotonic() - STARTED < 5, FLAG.unlink(missing_ok=True)]

    @task(retries=2, retry_delay=timedelta(seconds=0))
    def flags(ti=None):
        if ti.try_number < 2:
            FLAG.touch()
            raise ValueError("not yet")
        found = IS_FLAGGED
        FLAG.unlink()
        return found

    first() >> second() >> flags()

with DAG("top_level_resources", schedule=None):

    @task(execution_timeout=timedelta(seconds=60))
    def uses_loop():
        return LOOP.run_until_complete(asyncio.sleep(0, "slept"))

    @task(execution_timeout=timedelta(seconds=60))
    def uses_pool():
        return [POOL.submit(sum, [1, 2]).result(30), sorted(t.name for t in threading.enumerate())[-1]]

    @task(execution_timeout=timedelta(seconds=60))
    def uses_arrow():
        return [SUMS.num_rows, pc.sum(TABLE["value"]).as_py(), TABLE.sort_by("value").num_rows]

    @task
    def uses_connection(number):
        PAIR[0].send(str(number).encode())
        return PAIR[1].recv(10).decode()

    @task
    def changes_state(number):
        CALLS.append(number)
        LOCK.acquire()
        return CALLS

    @task
    def tells_settings():
        return [VARIABLE.get(), sys.getrecursionlimit()]

    uses_loop()
    uses_pool()
    uses_arrow()
    uses_connection.expand(number=[1, 2, 3])
    changes_state.expand(number=[1, 2])
    tells_settings()

with DAG("top_level_atexit", schedule=None):

    @task
    def registers(**context):
        CALLS.append(1)
        atexit.register(leave, context, "registered by the task")
        leave(context, f"runs {CALLS}")

    registers()
