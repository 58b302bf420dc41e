"""What failed in `make test` is asked once more, alone: `pytest --lf -p tests.again`.

Most tests here record, stream and kill in real time, and two workers share the machine: a few of them may be too late for
each other. Alone they have no excuse, and those that depend on no machine never have one.
"""

from __future__ import annotations

import pytest

# More than this is no bad luck.
_MOST = 3
_NEVER = ("tests/architecture/", "tests/migrations/")


def pytest_collection_finish(session: pytest.Session) -> None:
    failed = [item.nodeid for item in session.items]
    excluded = [name for name in failed if name.startswith(_NEVER)]
    if len(failed) > _MOST:
        pytest.exit(f"{len(failed)} tests failed: too many to ask again", returncode=1)
    if excluded:
        pytest.exit(f"not asked again, for it depends on no machine: {excluded[0]}", returncode=1)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.stats.get("passed", []):
        terminalreporter.write_line(f"failed beside others, passed alone: {report.nodeid}", yellow=True)
