"""How long the command line takes to say something."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.results import Row, Section, spread

ROUNDS = 15


def run(*, quick: bool) -> Section:
    rounds = 3 if quick else ROUNDS
    bax = str(Path(sys.executable).with_name("bax"))
    helps = [_millis([bax, "--help"]) for _ in range(rounds + 1)][1:]
    bare = [_millis([sys.executable, "-c", ""]) for _ in range(rounds + 1)][1:]
    row = Row("`bax --help`", spread(helps, "ms", 0), spread(bare, "ms", 0))
    return Section([row], [f"Whole process, {rounds} runs, compared with an empty Python program."])


def _millis(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1000
