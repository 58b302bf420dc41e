"""The data directory when the disk fails it, and after writers that died."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.storage.local import LocalObjects
from server.clock import SystemClock
from server.domain.objects import CapabilitySigner
from server.ids import ProjectId
from server.ports.storage import StorageError, StorageTarget

_ON_A_FULL_DISK = """
import asyncio
import sys
from pathlib import Path

from adapters.storage.local import LocalObjects
from server.clock import SystemClock
from server.domain.objects import CapabilitySigner
from server.ids import ProjectId
from server.ports.storage import StorageError, StorageTarget

root, source = Path(sys.argv[1]), Path(sys.argv[2])


async def fill() -> None:
    objects = LocalObjects(root, public_url="http://h", signer=CapabilitySigner([b"k"]), clock=SystemClock())
    store = objects.store(StorageTarget(ProjectId("clp"), "cmjob"))
    await store.put_bytes("kept.ts", b"k" * 100_000, content_type="video/mp2t")
    for put in (
        store.put_bytes("kept.ts", b"x" * 2_000_000, content_type="video/mp2t"),
        store.put_file("big.ts", source, content_type="video/mp2t"),
    ):
        try:
            await put
        except StorageError as error:
            print(error, error.retryable)
    listed = [(item.key, item.size) for item in await store.list()]
    print(listed, (await store.get_bytes("kept.ts"))[:1], list((root / ".tmp").iterdir()))
    await store.put_bytes("after.ts", b"a" * 100_000, content_type="video/mp2t")


asyncio.run(fill())
"""


def make_objects(root: Path) -> LocalObjects:
    return LocalObjects(root, public_url="http://h", signer=CapabilitySigner([b"k"]), clock=SystemClock())


def test_a_full_disk(tmp_path: Path) -> None:
    """Row 33: a passing fault, the object before stays whole, nothing half-written is left."""
    mount = tmp_path / "disk"
    mount.mkdir()
    source = tmp_path / "big.ts"
    source.write_bytes(b"b" * 2_000_000)
    script = tmp_path / "fill.py"
    script.write_text(_ON_A_FULL_DISK)
    unshare = shutil.which("unshare")
    namespace = [unshare or "unshare", "--mount", "--map-root-user"]
    tmpfs = 'mount -t tmpfs -o size=1m tmpfs "$1"'
    if not unshare or subprocess.run([*namespace, "sh", "-c", tmpfs, "sh", mount], check=False).returncode:
        pytest.skip("this machine lets nobody mount a small tmpfs in a namespace")
    done = subprocess.run(
        [*namespace, "sh", "-c", tmpfs + ' && exec "$2" "$3" "$1/objects" "$4"', "sh", mount, sys.executable, script, source],
        capture_output=True,
        text=True,
        timeout=60,
        env=dict(os.environ, PYTHONPATH=str(Path(__file__).parents[3])),
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "the data directory is full True",
        "the data directory is full True",
        "[('kept.ts', 100000)] b'k' []",
    ]


async def test_leftovers_of_dead_writers_are_reaped(tmp_path: Path) -> None:
    """What a writer left half-written a day ago goes at start; what is being written stays."""
    objects = make_objects(tmp_path)
    staging = tmp_path / ".tmp"
    staging.mkdir()
    old, new = staging / "old", staging / "new"
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    objects.reap()
    assert [path.name for path in staging.iterdir()] == ["new"]


async def test_files_cross_filesystems(tmp_path: Path) -> None:
    """A source on another filesystem can't be linked and is copied."""
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("this machine has no second filesystem to write to")
    source = other / f"bax-test-{os.getpid()}.ts"
    source.write_bytes(b"G" * 1880)
    try:
        store = make_objects(tmp_path).store(StorageTarget(ProjectId("clp"), "cmjob"))
        await store.put_file("a.ts", source, content_type="video/mp2t")
    finally:
        source.unlink()
    assert await store.get_bytes("a.ts") == b"G" * 1880


async def test_a_key_below_another_object(tmp_path: Path) -> None:
    """A file can't be a folder: a permanent error, not a crash."""
    store = make_objects(tmp_path).store(StorageTarget(ProjectId("clp"), "cmjob"))
    await store.put_bytes("a", b"1", content_type="video/mp2t")
    with pytest.raises(StorageError) as refused:
        await store.put_bytes("a/b", b"2", content_type="video/mp2t")
    assert not refused.value.retryable
    assert str(tmp_path) not in str(refused.value)
    assert list((tmp_path / ".tmp").iterdir()) == []


async def test_scopes_that_are_paths_are_refused(tmp_path: Path) -> None:
    for scope in ("..", "a/b", ""):
        with pytest.raises(ValueError, match="identifiers"):
            make_objects(tmp_path).store(StorageTarget(ProjectId("clp"), scope))
