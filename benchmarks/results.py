"""What a benchmark found, as a table on the terminal and as one section of `benchmarks/results.md`."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

FILE = Path(__file__).with_name("results.md")
_ROOT = FILE.parent.parent
_COLUMNS = ("What", "Figure", "Compared with", "Ratio", "Target", "Met")
_INTRODUCTION = """# Benchmark results

Written by `make bench`; `python -m benchmarks --only NAME` replaces one section, `--quick` none. Every ratio comes
from one run in which both sides took turns; figures are medians with the range in brackets. Absolute numbers belong
to the machine named, ratios and targets are what counts.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One line: `figure` ours, `floor` what it is compared with. `met` is None where there is no target."""

    what: str
    figure: str
    floor: str = ""
    ratio: str = ""
    target: str = ""
    met: bool | None = None

    def __str__(self) -> str:
        met = {True: "yes", False: "**no**", None: ""}[self.met]
        return f"| {self.what} | {self.figure} | {self.floor} | {self.ratio} | {self.target} | {met} |"


@dataclass(frozen=True, slots=True)
class Section:
    """The rows of one benchmark and, in `notes`, what was done to get them."""

    rows: Sequence[Row]
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def met(self) -> bool:
        return all(row.met is not False for row in self.rows)

    def text(self, title: str) -> str:
        head = f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}"
        rows = "\n".join(map(str, self.rows))
        notes = "".join(f"\n- {note}" for note in self.notes)
        return f"## {title}\n\n{head}\n{rows}\n{notes}\n"


def spread(values: Sequence[float], unit: str = "", digits: int = 1) -> str:
    """`12.3 s [12.0–12.9]`: the median and the range."""
    text = f"{statistics.median(values):.{digits}f}{unit and ' ' + unit}"
    return text if len(values) < 2 else f"{text} [{min(values):.{digits}f}–{max(values):.{digits}f}]"


def ratio_of(ours: Sequence[float], floor: Sequence[float]) -> float:
    """The median of the ratios pair by pair, which holds when the machine's speed drifts."""
    return statistics.median(a / b for a, b in zip(ours, floor, strict=True))


def circumstances() -> str:
    """Date, commit, machine and how busy it was, as one note."""
    head = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--exclude", "*"]
    commit = subprocess.run(head, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {commit}; {_processor()}, {os.cpu_count()} cores, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}; "
        f"load before the run {os.getloadavg()[0]:.1f}"
    )


def keep(section: Section, title: str, order: Sequence[str], file: Path = FILE) -> None:
    """Puts the section into the results file, in the given order of titles, and leaves the others as they are."""
    sections = {title: section.text(title)}
    if file.exists():
        for text in file.read_text().split("\n## ")[1:]:
            sections.setdefault(text.partition("\n")[0], f"## {text.rstrip()}\n")
    ordered = [sections[title] for title in order if title in sections]
    file.write_text("\n".join((_INTRODUCTION, *ordered)))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
