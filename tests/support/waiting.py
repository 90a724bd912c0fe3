"""Waits for the work of other processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def until(condition: Callable[[], Any], what: str = "what was waited for", timeout: float = 30.0) -> Any:
    """Wait until ``condition`` returns a true value, and return it."""
    deadline = time.monotonic() + timeout
    pause = 0.05
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not in {timeout:.0f} s: {what}"
        time.sleep(pause)
        # Many conditions ask an API server, which needs the processor that the awaited work needs too.
        pause = min(1.3 * pause, 0.4)
    return found
