"""A DAG file that changes its process at the top: logs, environment, sockets, warnings and the end."""

from __future__ import annotations

import atexit
import logging
import logging.config
import os
import socket
import warnings

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from airflow.sdk import DAG, task

logging.basicConfig(level=logging.DEBUG, format="BASIC %(levelname)s %(message)s", force=True)
logging.config.dictConfig(
    {
        "version": 1,
        "disable_existing_loggers": True,
        "handlers": {"stream": {"class": "logging.StreamHandler"}},
        "root": {"level": "DEBUG", "handlers": ["stream"]},
    }
)
socket.setdefaulttimeout(17)
warnings.simplefilter("error", ResourceWarning)
atexit.register(print, "the end of the file")
log = logging.getLogger(__name__)

with DAG("top_level_settings", schedule=None):

    @task
    def speaks():
        log.debug("logged at level DEBUG")
        log.info("logged at level INFO")
        log.warning("logged at level WARNING")
        print("printed")
        return [
            logging.getLogger().level,
            [type(handler).__name__ for handler in logging.getLogger().handlers],
            log.disabled,
            socket.getdefaulttimeout(),
            # With more threads, NumPy would start native ones.
            [len(os.listdir("/proc/self/task")), int(np.ones((300, 300)).dot(np.ones(300))[0])],
        ]

    speaks()
