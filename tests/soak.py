"""The full scale of tests that run smaller by default: `make soak` sets `SOAK=1`."""

from __future__ import annotations

import os

import pytest

FULL = os.environ.get("SOAK") == "1"
only_in_soak = pytest.mark.skipif(not FULL, reason="takes over a minute: make soak")


def scaled(usual: int, full: int) -> int:
    return full if FULL else usual
