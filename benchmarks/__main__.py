"""Measure what the project promises of its speed and memory: `python -m benchmarks [--only NAME] [--quick]`.

Prints each section as it is done and keeps it in `benchmarks/results.md`; `--quick` uses short runs, which show that
everything works but prove no figure, and keeps nothing. Ends with 1 if a target was missed.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

from benchmarks.results import Section, circumstances, keep

# Module → title of its section, in the order of the results file.
TITLES = {
    "conversion": "Conversion",
    "upload": "Upload",
    "unary": "Unary calls",
    "driver": "SQLite driver",
    "jobs": "Jobs",
    "idle": "Idle server",
    "webhooks": "Webhooks",
    "room_events": "Room events",
    "livekit": "LiveKit's API",
    "egress": "Egress",
    "command": "Command line",
    "soak": "Soak",
}
# Take so long that they run only when they are named.
_WHEN_NAMED = {"soak"}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=TITLES, metavar="NAME", help=", ".join(TITLES))
    parser.add_argument("--quick", action="store_true", help="short runs; the results file stays as it is")
    given = parser.parse_args(argv)
    # So that what was started is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    met = True
    for name in given.only or [name for name in TITLES if name not in _WHEN_NAMED]:
        where = circumstances()
        run = cast("Callable[..., Section]", importlib.import_module(f"benchmarks.{name}").run)
        section = run(quick=given.quick)
        section = replace(section, notes=(*section.notes, where))
        print(section.text(TITLES[name]), flush=True)
        met = met and section.met
        if not given.quick:
            keep(section, TITLES[name], tuple(TITLES.values()))
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
