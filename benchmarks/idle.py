"""What a server costs that nobody calls."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.results import Row, Section
from benchmarks.servers import bax

SETTLE_SEC = 5.0
SECONDS = 30.0
TARGET_CPU_PERCENT = 1.0
TARGET_RSS_MIB = 200.0


def run(*, quick: bool) -> Section:
    seconds = 5.0 if quick else SECONDS
    with tempfile.TemporaryDirectory(prefix="bax-bench-") as name, bax(Path(name) / "data", "all") as server:
        time.sleep(SETTLE_SEC)
        cpu, began = server.cpu_sec(), time.monotonic()
        time.sleep(seconds)
        share = 100 * (server.cpu_sec() - cpu) / (time.monotonic() - began)
        rss = server.rss_mib()
    rows = [
        Row(
            "CPU",
            f"{share:.2f} % of a core",
            target=f"< {TARGET_CPU_PERCENT:.0f} %",
            met=share < TARGET_CPU_PERCENT,
        ),
        Row(
            "resident memory",
            f"{rss:.0f} MiB",
            target=f"< {TARGET_RSS_MIB:.0f} MiB",
            met=rss < TARGET_RSS_MIB,
        ),
    ]
    note = f"`bax serve --role all` on SQLite without the embedded LiveKit, {seconds:.0f} s from {SETTLE_SEC:.0f} s after its start."
    return Section(rows, [note])
