"""Importing a module does nothing but define things, and layers import only what lies below them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.checkout import ROOT, modules

# The lowest layer: besides each other and the standard library, only these.
FOUNDATION = ("server.domain", "server.ports", "server.errors", "server.ids", "server.clock")
SCRIPTS = ("__main__.py", "env.py")  # they run when imported; env.py inside Alembic only
HEAVY = ("av", "boto3", "livekit", "numpy", "moto")


def _name(path_parts: tuple[str, ...]) -> str:
    return ".".join(path_parts).removesuffix(".py").removesuffix(".__init__")


def test_every_module_imports_with_an_empty_environment() -> None:
    """No module reads settings, opens files or needs a service when it is imported."""
    names = [
        _name(path.parts)
        for path in modules("server", "adapters", "generated", "tools")
        if path.name not in SCRIPTS and "versions" not in path.parts
    ]
    program = "\n".join(
        [
            "import importlib, sys",
            f"sys.path.insert(0, {str(ROOT)!r})",
            "failed = []",
            f"for name in {names!r}:",
            "    try:",
            "        importlib.import_module(name)",
            "    except BaseException as error:",
            "        failed.append(f'{name}: {error!r}')",
            "sys.exit('\\n'.join(failed) or 0)",
        ]
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", list(modules("server/domain", "server/ports")), ids=str)
def test_domain_and_ports_import_the_standard_library_and_each_other(path: Path) -> None:
    tree = ast.parse((ROOT / path).read_text())
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }

    foreign = {
        name
        for name in imported
        if name.split(".")[0] not in sys.stdlib_module_names
        and not any(name == known or name.startswith(f"{known}.") for known in FOUNDATION)
    }
    assert foreign == set()


def test_the_command_line_starts_without_the_heavy_packages() -> None:
    """`bax --help` must not pay for media and cloud libraries."""
    program = f"import sys, server.cli; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout.split() == []
