"""Whether the process behind an owner's name is certainly gone."""

from __future__ import annotations

import subprocess
import sys

import pytest

from server.jobs.owner import is_gone, new_owner

NAME = "from server.jobs.owner import new_owner; print(new_owner(), flush=True); input()"


@pytest.fixture
def other() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", NAME], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_process_is_gone_once_it_was_killed_even_before_it_is_reaped(other: subprocess.Popen[str]) -> None:
    assert other.stdout is not None
    owner = other.stdout.readline().strip()
    alive = is_gone(owner)
    other.kill()
    # Ends when the process has closed its files; it stays a zombie, since nobody has waited for it.
    other.stdout.read()
    while not (gone := is_gone(owner)):
        other.stdout.read()
    other.communicate()

    assert (alive, gone, is_gone(owner)) == (False, True, True)


def test_names_are_never_used_twice() -> None:
    assert new_owner() != new_owner()


def test_a_number_used_again_by_another_process_is_not_the_owner() -> None:
    host, boot, namespace, pid, start, rest = new_owner().split("/")
    earlier = f"{host}/{boot}/{namespace}/{pid}/{int(start) - 1}/{rest}"
    assert not is_gone(f"{host}/{boot}/{namespace}/{pid}/{start}/{rest}")
    assert is_gone(earlier)


@pytest.mark.parametrize("part", [1, 2, 3, 4])
def test_nothing_is_known_of_other_machines_containers_and_systems(part: int) -> None:
    """In doubt the lease decides."""
    parts = new_owner().split("/")
    parts[3] = "4194305"  # beyond Linux's largest process id
    assert is_gone("/".join(parts))
    parts[part] = "-" if part > 2 else "elsewhere"
    assert not is_gone("/".join(parts))


@pytest.mark.parametrize("owner", ["", "worker-1", "a/b/c/d/e/f", "a/b/c"])
def test_names_of_another_make_are_never_gone(owner: str) -> None:
    assert not is_gone(owner)
