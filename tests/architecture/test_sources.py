"""Rules about source files that no linter knows."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.checkout import PACKAGES, ROOT, modules

MAX_LINES = 400
MAX_TEST_LINES = 600  # case tables and contract suites are read from top to bottom
# Modules that may be longer, each with its reason.
LONG_MODULES: dict[str, str] = {}

VAGUE = {"utils", "util", "common", "helpers", "helper", "manager", "core", "misc"}


def test_modules_stay_small() -> None:
    long = {
        str(path): lines
        for path in modules(*PACKAGES)
        if (lines := len((ROOT / path).read_text().splitlines()))
        > (MAX_TEST_LINES if path.parts[0] == "tests" else MAX_LINES)
    }

    assert {name: lines for name, lines in long.items() if name not in LONG_MODULES} == {}
    assert set(LONG_MODULES) <= set(long), "an entry of LONG_MODULES is no longer needed"


def test_modules_are_named_for_what_they_hold() -> None:
    assert [str(path) for path in modules(*PACKAGES) if path.stem in VAGUE] == []


@pytest.mark.parametrize("path", list(modules("server", "adapters", "tools")), ids=str)
def test_modules_have_a_docstring(path: Path) -> None:
    text = (ROOT / path).read_text()

    assert not text.strip() or ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("path", list(modules("tests")), ids=str)
def test_tests_use_real_parts(path: Path) -> None:
    """No mock library and no patching of our own code."""
    tree = ast.parse((ROOT / path).read_text())
    imported = set(_imports(tree))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    called = {ast.unparse(call.func) for call in calls}

    assert not imported & {"mock", "unittest.mock", "pytest_mock"}
    assert not called & {"patch", "mock.patch", "mocker.patch"}
    assert [ast.unparse(call) for call in calls if _replaces_code(call)] == []


def _replaces_code(call: ast.Call) -> bool:
    """`monkeypatch.setattr` on anything but a constant; shortening a time limit is fine."""
    if ast.unparse(call.func) != "monkeypatch.setattr":
        return False
    names = [
        arg.value for arg in call.args[:2] if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
    ]
    return not any(name.rpartition(".")[2].isupper() for name in names)


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
