"""SRT through the FFmpeg binary, which has libsrt: transport stream in by a pipe, sent on unchanged.

It takes passphrase and stream id by its command line alone, which every account of the host can read. They are wiped
there once it has read them; until then, a part of a second, only a /proc mounted with hidepid hides them.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from adapters.ffmpeg.binary import resolve_ffmpeg
from adapters.recorder.encoders import Encoded, Encoders, add_streams, packet_for
from adapters.recorder.outputs.link import AUTH_FAILED, CONNECTION_REFUSED, FAILED, TIMEOUT, LinkError
from adapters.recorder.outputs.tcp import STALL_SEC, Resolve

_ANSWER_SEC = 6.0
_CONNECT_MS = 4000
_LINGER_SEC = 1
_GOODBYE_SEC = 0.3
_DEFAULT_LATENCY_SEC = 0.12
_MAX_LATENCY_SEC = 2.0
# Seven transport packets: what an SRT message of a live stream holds.
_MESSAGE = 7 * 188
_START = Fraction(2)
# Ours → FFmpeg's; in URLs latencies are in ms, as libsrt's own tools and GStreamer have them, FFmpeg wants µs.
_OPTIONS = {
    "streamid": "-srt_streamid",
    "passphrase": "-passphrase",
    "pbkeylen": "-pbkeylen",
    "latency": "-latency",
    "rcvlatency": "-rcvlatency",
    "peerlatency": "-peerlatency",
}
_LATENCIES = frozenset({"latency", "rcvlatency", "peerlatency"})


@dataclass(frozen=True, slots=True)
class SrtUrl:
    """Only what a caller needs of the query is kept."""

    host: str
    port: int
    options: Mapping[str, str] = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> SrtUrl:
        """Raise ValueError without the URL in it."""
        parts = urlsplit(url)
        if parts.scheme != "srt" or not parts.hostname or not parts.port:
            raise ValueError("not an SRT URL")
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        if query.get("mode", "caller") != "caller":
            raise ValueError("only mode=caller streams out")
        chosen = {name: value for name, value in query.items() if name in _OPTIONS}
        for name in _LATENCIES & chosen.keys():
            chosen[name] = str(int(chosen[name]) * 1000)
        return cls(parts.hostname, parts.port, chosen)

    @property
    def latency_sec(self) -> float:
        given = [int(value) / 1e6 for name, value in self.options.items() if name in _LATENCIES]
        return min(max(given, default=_DEFAULT_LATENCY_SEC), _MAX_LATENCY_SEC)

    def arguments(self, address: str) -> list[str]:
        host = f"[{address}]" if ":" in address else address
        given = [word for name, value in self.options.items() for word in (_OPTIONS[name], value)]
        return [
            *given,
            "-connect_timeout",
            str(_CONNECT_MS),
            "-pkt_size",
            str(_MESSAGE),
            f"srt://{host}:{self.port}",
        ]


class SrtLink:
    """See `Link`."""

    def __init__(self, url: str, encoders: Encoders, *, resolve: Resolve) -> None:
        self._url = SrtUrl.parse(url)
        self._encoders = encoders
        self._resolve = resolve
        self._process: subprocess.Popen[bytes] | None = None
        self._out = _Buffer()
        self._muxer: Any = None
        self._streams: dict[str, Any] = {}
        self._base: Fraction | None = None
        self._interrupted = False
        self._said = b""
        self._delivered = 0
        self._progressed = 0.0
        self._written = 0

    def open(self) -> None:
        try:
            address = self._resolve(self._url.host, self._url.port)[0]
        except (OSError, IndexError):
            raise LinkError(CONNECTION_REFUSED, "The destination's address cannot be reached.") from None
        self._process = subprocess.Popen(
            [
                resolve_ffmpeg(),
                *(
                    "-hide_banner",
                    "-nostdin",
                    "-loglevel",
                    "error",
                    "-progress",
                    "pipe:1",
                    "-stats_period",
                    "0.5",
                ),
                *(
                    "-f",
                    "data",
                    "-raw_packet_size",
                    str(_MESSAGE),
                    "-blocksize",
                    str(_MESSAGE),
                    "-i",
                    "pipe:0",
                ),
                *(
                    "-map",
                    "0",
                    "-c",
                    "copy",
                    "-f",
                    "data",
                    "-flush_packets",
                    "1",
                    *self._url.arguments(address),
                ),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": os.environ.get("PATH", "")},
        )
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
        self._open_muxer()
        self._await_connection()
        _wipe_arguments(self._process.pid)

    def _open_muxer(self) -> None:
        import av

        self._muxer = av.open(
            self._out,
            "w",
            format="mpegts",
            options={"mpegts_copyts": "1"},
            container_options={"flush_packets": "1"},
        )
        self._streams = add_streams(self._muxer, self._encoders)
        self._muxer.start_encoding()

    def _await_connection(self) -> None:
        """FFmpeg tells of progress only once its output is open."""
        deadline = time.monotonic() + _ANSWER_SEC
        while not self._delivered_said():
            if time.monotonic() > deadline:
                raise LinkError(TIMEOUT, "The destination did not answer in time.")
            self._check_running()
            self._write_out(_NULL_MESSAGE)
            time.sleep(0.05)
        self._progressed = time.monotonic()

    def send(self, packet: Encoded) -> None:
        if self._base is None:
            self._base = packet.dts * packet.time_base
        self._muxer.mux_one(packet_for(self._streams[packet.media], packet, _START - self._base))
        self._write_out(self._out.take_messages())
        self.keep()
        if self._delivered < self._written and time.monotonic() - self._progressed > STALL_SEC:
            raise LinkError(TIMEOUT, "The destination stopped taking the stream.")

    def keep(self) -> None:
        self._check_running()
        self._delivered_said()

    def delivered(self) -> int:
        return self._delivered

    def close(self, *, politely: bool) -> None:
        process = self._process
        if process is None:
            return
        if politely:
            assert process.stdin is not None
            with contextlib.suppress(LinkError):
                self._write_out(self._out.take_rest())
                # What the receiver holds back for its latency is lost to it when the connection ends.
                time.sleep(self._url.latency_sec + _GOODBYE_SEC)
            process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LINGER_SEC + 1.0)
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def interrupt(self) -> None:
        self._interrupted = True

    def _delivered_said(self) -> bool:
        """Takes in what FFmpeg says of its progress; whether it has said anything yet."""
        assert self._process is not None
        assert self._process.stdout is not None
        while data := self._process.stdout.read(4096):
            self._said += data
        *lines, self._said = self._said.split(b"\n")
        for line in lines:
            name, _, value = line.partition(b"=")
            if name == b"total_size" and value.strip().isdigit() and int(value) > self._delivered:
                self._delivered, self._progressed = int(value), time.monotonic()
        return self._delivered > 0

    def _write_out(self, data: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        rest = memoryview(data)
        deadline = time.monotonic() + STALL_SEC
        while rest:
            self._check_running()
            try:
                sent = os.write(self._process.stdin.fileno(), rest)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LinkError(TIMEOUT, "The destination stopped taking the stream.") from None
                waiter = select.poll()
                waiter.register(self._process.stdin, select.POLLOUT)
                waiter.poll(500)
            except OSError:
                raise self._ended() from None
            else:
                self._written += sent
                rest = rest[sent:]

    def _check_running(self) -> None:
        assert self._process is not None
        if self._interrupted:
            raise LinkError(FAILED, "The stream was ended.")
        if self._process.poll() is not None:
            raise self._ended()

    def _ended(self) -> LinkError:
        """What FFmpeg's last words mean; they hold the URL and are not passed on."""
        assert self._process is not None
        assert self._process.stderr is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        said = self._process.stderr.read() or b""
        if self._delivered:
            return LinkError(FAILED, "The connection to the destination was lost.")
        if b"REJECT" in said or b"rejected" in said:
            return LinkError(AUTH_FAILED, "The destination refused the passphrase or the stream id.")
        if b"timed out" in said or b"timeout" in said.lower():
            return LinkError(TIMEOUT, "The destination did not answer in time.")
        return LinkError(CONNECTION_REFUSED, "The destination refused the connection.")


class _Buffer:
    """Takes what the muxer writes and gives it out in whole messages."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes) -> int:
        self._data += data
        return len(data)

    def take_messages(self) -> bytes:
        size = len(self._data) // _MESSAGE * _MESSAGE
        taken = bytes(self._data[:size])
        del self._data[:size]
        return taken

    def take_rest(self) -> bytes:
        return bytes(self._data) + _NULL_MESSAGE[len(self._data) :]


def _wipe_arguments(pid: int) -> None:
    """Blanks a child's command line, where the system lets a parent (proc(5): fields 48 and 49 of stat)."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        with Path(f"/proc/{pid}/mem").open("r+b", buffering=0) as memory:
            memory.seek(start)
            program = memory.read(end - start).find(b"\0") + 1
            memory.seek(start + program)
            memory.write(b"\0" * (end - start - program))


# Packets of the null PID, which every receiver drops.
_NULL_MESSAGE = (b"\x47\x1f\xff\x10" + b"\xff" * 184) * 7
