"""The `bax` command."""

from __future__ import annotations


def main() -> None:
    """Entry point of `bax`; ends the process with 0, 1 (failure), 2 (usage) or 130 (Ctrl-C)."""
    from server.cli.program import run

    run()
