"""`bax doctor`: what is installed, what is missing, how to get it."""

from __future__ import annotations

from typing import Annotated

import typer

from server.cli.output import print_json


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show what is installed, what is missing, how to get it.

    The exit status is 1 if something is missing that the server needs to run.
    """
    from server.cli.checks import run_checks

    checks = run_checks()
    ready = all(check.ok for check in checks if check.needed)
    if as_json:
        print_json({"ok": ready, "checks": [check.as_json() for check in checks]})
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            mark = "ok     " if check.ok else "MISSING" if check.needed else "absent "
            print(f"{mark}  {check.name.ljust(width)}  {check.detail}")
            if not check.ok and check.remedy:
                print(f"{' ' * (width + 11)}get it: {check.remedy}")
        print("\nThe server can run." if ready else "\nThe server cannot run until what is MISSING is there.")
    raise typer.Exit(0 if ready else 1)
