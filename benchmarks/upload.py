"""An upload of 2 GiB by multipart: how much the server's memory grows, and how fast it is beside a bare ASGI application."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.results import Row, Section, ratio_of, spread
from benchmarks.servers import HEADERS, Server, bax, floor

BYTES = 2 * 1024**3
ROUNDS = 3
TARGET_RATIO = 0.7
TARGET_GROWTH_MIB = 64
_BLOCK = 1024 * 1024
_BOUNDARY = "benchmark7MA4YWxkTrZu0gW"
_TIMEOUT_SEC = 300.0


@dataclass(frozen=True, slots=True)
class Sent:
    """Speed of one upload, MiB/s, and how far the server's resident memory rose meanwhile, MiB."""

    speed: float
    growth: float


def run(*, quick: bool) -> Section:
    size, rounds = (BYTES // 16, 2) if quick else (BYTES, ROUNDS)
    ours: list[Sent] = []
    bare: list[Sent] = []
    with tempfile.TemporaryDirectory(prefix="bax-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        if shutil.disk_usage(folder).free < 3 * size:
            raise RuntimeError(f"{folder} needs {3 * size / 2**30:.0f} GiB of free disk")
        # Without a worker nothing converts what was uploaded.
        server = stack.enter_context(bax(folder / "data", "api"))
        other = stack.enter_context(floor("to-disk", str(folder), folder=folder / "bare"))
        form = {**HEADERS, "content-type": f"multipart/form-data; boundary={_BOUNDARY}"}
        for number in range(rounds + 1):
            # The first turn, a short one, only warms up.
            length = size if number else size // 16
            turn = _send(other, "/", form, length), _send(server, "/video/upload", form, length)
            (upload,) = (folder / "data" / "uploads").iterdir()
            assert upload.stat().st_size == length
            upload.unlink()
            if number:
                bare.append(turn[0])
                ours.append(turn[1])
    return Section(_rows(ours, bare, size), _notes(rounds))


def _rows(ours: list[Sent], bare: list[Sent], size: int) -> list[Row]:
    speed, bare_speed = [one.speed for one in ours], [one.speed for one in bare]
    growth = [one.growth for one in ours]
    ratio = ratio_of(speed, bare_speed)
    gib = f"{size / 2**30:g} GiB"
    return [
        Row(
            f"speed of an upload of {gib}",
            spread(speed, "MiB/s", 0),
            spread(bare_speed, "MiB/s", 0),
            f"{ratio:.2f}×",
            f"≥ {TARGET_RATIO:.1f}×",
            ratio >= TARGET_RATIO,
        ),
        Row(
            "growth of the server's resident memory, worst upload",
            f"{max(growth):.1f} MiB",
            f"{max(one.growth for one in bare):.1f} MiB",
            target=f"≤ {TARGET_GROWTH_MIB} MiB",
            met=max(growth) <= TARGET_GROWTH_MIB,
        ),
    ]


def _notes(rounds: int) -> list[str]:
    return [
        (
            f"Random bytes in one multipart form over loopback, from the first byte sent to the answer; {rounds} turns each. "
            "Ours parses the form, writes the file, makes it durable (fsync of file and folder) and stores the job; the bare "
            "application writes the raw body in a thread and makes it durable. Both under uvicorn with httptools."
        ),
        "Growth is the kernel's high-water mark of resident memory during the upload minus what was resident before it.",
    ]


def _send(server: Server, path: str, headers: Mapping[str, str], size: int) -> Sent:
    opening = (
        f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="video"; filename="clip.mp4"\r\n'
        "content-type: video/mp4\r\n\r\n"
    ).encode()
    closing = f"\r\n--{_BOUNDARY}--\r\n".encode()
    lines = {"host": server.http, **headers, "content-length": str(len(opening) + size + len(closing))}
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    block = os.urandom(_BLOCK)
    host, _, port = server.http.rpartition(":")
    before = server.rss_mib()
    server.reset_peak()
    with socket.create_connection((host, int(port)), timeout=_TIMEOUT_SEC) as connection:
        began = time.perf_counter()
        connection.sendall(head.encode() + b"\r\n" + opening)
        for _ in range(size // _BLOCK):
            connection.sendall(block)
        connection.sendall(closing)
        answer = connection.recv(65536)
        took = time.perf_counter() - began
    if answer.split(b" ", 2)[1] not in {b"200", b"201"}:
        raise RuntimeError(f"the upload was refused: {answer!r}")
    return Sent(size / 2**20 / took, server.peak_mib() - before)
