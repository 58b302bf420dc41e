"""An RTMP(S) publisher on a plain socket: exact causes of failures, checked addresses, and no log that knows the key.

FFmpeg's own gives one error for everything, prints the URL and cannot be interrupted (Adobe's RTMP 1.0 is the source).
"""

from __future__ import annotations

import contextlib
import os
import ssl
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from urllib.parse import urlsplit

from adapters.recorder.encoders import Encoded
from adapters.recorder.outputs import amf
from adapters.recorder.outputs.flv import AUDIO_TAG, VIDEO_TAG, Headers, tag
from adapters.recorder.outputs.link import AUTH_FAILED, FAILED, TIMEOUT, HungUp, LinkError
from adapters.recorder.outputs.tcp import STALL_SEC, Resolve, Tcp

ANSWER_SEC = 5.0
# FFmpeg's, which every service has met.
_CHUNK = 60_000
_ACK_WINDOW = 1 << 18
_MAX_MESSAGE = 1 << 20
_MAX_CHANNELS = 64

_SET_CHUNK, _ACK, _USER, _WINDOW = 1, 3, 4, 5
_DATA, _COMMAND = 18, 20
_PING, _PONG = 6, 7
_REFUSED = "The destination refused the application or the stream key."


@dataclass(frozen=True, slots=True)
class RtmpUrl:
    """The key is what follows the last slash, with the query."""

    secure: bool
    host: str
    port: int
    app: str
    key: str = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> RtmpUrl:
        """Raise ValueError without the URL in it."""
        parts = urlsplit(url)
        if parts.scheme not in ("rtmp", "rtmps") or not parts.hostname:
            raise ValueError("not an RTMP URL")
        secure = parts.scheme == "rtmps"
        app, _, key = parts.path.lstrip("/").rpartition("/")
        return cls(
            secure,
            parts.hostname,
            parts.port or (443 if secure else 1935),
            app or key,
            (key if app else "") + (f"?{parts.query}" if parts.query else ""),
        )

    @property
    def tc_url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rtmps' if self.secure else 'rtmp'}://{host}:{self.port}/{self.app}"


class RtmpLink:
    """Publishes to one URL; see `Link`."""

    def __init__(self, url: str, headers: Headers, *, resolve: Resolve, tls: ssl.SSLContext) -> None:
        self._url = RtmpUrl.parse(url)
        self._headers = headers
        self._tcp = Tcp(resolve=resolve, tls=tls)
        self._received = _Received()
        self._acked = 0
        self._ack_at = 0.0
        self._stream = 1.0
        self._base: Fraction | None = None

    # --- opening

    def open(self) -> None:
        self._tcp.open(self._url.host, self._url.port, secure=self._url.secure)
        self._handshake()
        self._tcp.write(_message(2, _SET_CHUNK, 0, 0, struct.pack(">I", _CHUNK), 128))
        app = {
            "app": self._url.app,
            "type": "nonprivate",
            "flashVer": "FMLE/3.0 (compatible; BaxCloud)",
            "tcUrl": self._url.tc_url,
        }
        self._command("connect", 1.0, app)
        self._await_result(1.0)
        self._tcp.write(_message(2, _WINDOW, 0, 0, struct.pack(">I", _ACK_WINDOW)))
        self._command("releaseStream", 2.0, None, self._url.key)
        self._command("FCPublish", 3.0, None, self._url.key)
        self._command("createStream", 4.0, None)
        answer = self._await_result(4.0)
        self._stream = answer if isinstance(answer, float) else 1.0
        self._command("publish", 5.0, None, self._url.key, "live", stream=int(self._stream))
        self._await_publishing()
        self._start_media()

    def _handshake(self) -> None:
        mine = os.urandom(1528)
        self._tcp.write(b"\x03" + struct.pack(">II", 0, 0) + mine)
        deadline = time.monotonic() + ANSWER_SEC
        while len(self._received.raw) < 1 + 2 * 1536:
            self._received.raw += self._tcp.read(deadline)
            if len(self._received.raw) >= 1537 and not self._received.greeted:
                self._received.greeted = True
                self._tcp.write(bytes(self._received.raw[1:1537]))
        del self._received.raw[: 1 + 2 * 1536]

    def _await_result(self, transaction: float) -> amf.Value:
        for values in self._commands():
            if len(values) > 1 and values[1] == transaction:
                if values[0] == "_error":
                    raise LinkError(AUTH_FAILED, _REFUSED)
                if values[0] == "_result":
                    return values[3] if len(values) > 3 else None
        raise AssertionError("unreachable")

    def _await_publishing(self) -> None:
        for values in self._commands():
            info = values[3] if len(values) > 3 else None
            if values[0] != "onStatus" or not isinstance(info, dict):
                continue
            if info.get("code") == "NetStream.Publish.Start":
                return
            if info.get("level") == "error":
                raise LinkError(AUTH_FAILED, "The destination refused the stream key.")

    def _commands(self) -> Iterator[list[amf.Value]]:
        deadline = time.monotonic() + ANSWER_SEC
        while True:
            for kind, body in self._received.messages():
                if kind == _COMMAND:
                    yield _decoded(body)
                else:
                    self._control(kind, body)
            try:
                self._received.raw += self._tcp.read(deadline)
            except HungUp:
                # Servers that know no better way close the connection on a wrong application or key.
                raise LinkError(AUTH_FAILED, _REFUSED) from None

    def _start_media(self) -> None:
        stream = int(self._stream)
        data = amf.encode("@setDataFrame", "onMetaData") + amf.ecma_array(self._headers.metadata)
        first = _message(5, _DATA, 0, stream, data)
        if self._headers.video:
            first += _message(6, VIDEO_TAG, 0, stream, self._headers.video)
        if self._headers.audio:
            first += _message(4, AUDIO_TAG, 0, stream, self._headers.audio)
        self._ack_at = time.monotonic()
        self._tcp.write(first)

    # --- media

    def send(self, packet: Encoded) -> None:
        if self._base is None:
            self._base = packet.dts * packet.time_base
        media = tag(packet, self._base)
        channel = 6 if media.kind == VIDEO_TAG else 4
        self._tcp.write(_message(channel, media.kind, media.at, int(self._stream), media.body))
        self.keep()
        self._check_alive()

    def keep(self) -> None:
        while data := self._tcp.read_available():
            self._received.raw += data
            for kind, body in self._received.messages():
                if kind == _COMMAND:
                    self._heed(_decoded(body))
                else:
                    self._control(kind, body)

    def _heed(self, values: list[amf.Value]) -> None:
        info = values[3] if len(values) > 3 else None
        if isinstance(info, dict) and info.get("level") == "error":
            raise LinkError(FAILED, "The destination ended the stream.")

    def _control(self, kind: int, body: bytes) -> None:
        if kind == _USER and len(body) >= 6 and body[:2] == bytes([0, _PING]):
            self._tcp.write(_message(2, _USER, 0, 0, bytes([0, _PONG]) + body[2:6]))
        elif kind == _ACK and len(body) >= 4:
            self._acked = self._tcp.written
            self._ack_at = time.monotonic()

    def _check_alive(self) -> None:
        self._tcp.check_alive()
        # A stopped server's kernel goes on taking bytes; its acknowledgements stop.
        unheard = self._tcp.written - self._acked
        silent = time.monotonic() - self._ack_at > STALL_SEC
        if self._acked and unheard > 4 * _ACK_WINDOW and silent:
            raise LinkError(TIMEOUT, "The destination stopped taking the stream.")

    def delivered(self) -> int:
        return self._tcp.delivered()

    def _command(self, *values: amf.Value, stream: int = 0) -> None:
        self._tcp.write(_message(3, _COMMAND, 0, stream, amf.encode(*values)))

    def close(self, *, politely: bool) -> None:
        if politely:
            with contextlib.suppress(LinkError):
                self._command("FCUnpublish", 6.0, None, self._url.key)
                self._command("deleteStream", 7.0, None, self._stream)
        self._tcp.close()

    def interrupt(self) -> None:
        self._tcp.interrupt()


class _Received:
    """Takes the server's bytes apart (chunk stream, section 5.3)."""

    def __init__(self) -> None:
        self.raw = bytearray()
        self.greeted = False
        self._chunk = 128
        self._heads: dict[int, tuple[int, int, bool]] = {}  # channel → length, kind, extended timestamp
        self._partial: dict[int, bytearray] = {}

    def messages(self) -> Iterator[tuple[int, bytes]]:
        """(kind, body) of what is whole by now."""
        while (found := self._next_chunk()) is not None:
            kind, body = found
            if kind == _SET_CHUNK and len(body) >= 4:
                self._chunk = max(1, struct.unpack(">I", body[:4])[0] & 0x7FFFFFFF)
            elif kind:
                yield kind, body

    def _next_chunk(self) -> tuple[int, bytes] | None:
        """None: more bytes are needed; kind 0: the message goes on."""
        raw = self.raw
        if not raw:
            return None
        form, channel, at = raw[0] >> 6, raw[0] & 0x3F, 1
        if channel < 2:
            at = 2 + channel
            if len(raw) < at:
                return None
            channel = 64 + raw[1] + (raw[2] << 8 if channel else 0)
        size = (11, 7, 3, 0)[form]
        if len(raw) < at + size:
            return None
        length, kind, extended = self._heads.get(channel, (0, 0, False))
        if size >= 3:
            extended = raw[at : at + 3] == b"\xff\xff\xff"
        if size >= 7:
            length, kind = int.from_bytes(raw[at + 3 : at + 6], "big"), raw[at + 6]
        if length > _MAX_MESSAGE or len(self._heads) > _MAX_CHANNELS:
            raise LinkError(FAILED, "The destination does not speak RTMP.")
        at += size + (4 if extended else 0)
        partial = self._partial.get(channel, bytearray())
        take = min(self._chunk, length - len(partial))
        if len(raw) < at + take:
            return None
        self._heads[channel] = (length, kind, extended)
        partial += raw[at : at + take]
        del raw[: at + take]
        if len(partial) < length:
            self._partial[channel] = partial
            return 0, b""
        self._partial.pop(channel, None)
        return kind, bytes(partial)


def _message(channel: int, kind: int, at: int, stream: int, body: bytes, chunk: int = _CHUNK) -> bytes:
    """One message with a full header in chunks of `chunk` bytes; `at` in ms."""
    at &= 0xFFFFFFFF
    extended = struct.pack(">I", at) if at >= 0xFFFFFF else b""
    head = bytes([channel]) + min(at, 0xFFFFFF).to_bytes(3, "big") + len(body).to_bytes(3, "big")
    written = bytearray(head + bytes([kind]) + struct.pack("<I", stream) + extended + body[:chunk])
    for start in range(chunk, len(body), chunk):
        written += bytes([0xC0 | channel]) + extended + body[start : start + chunk]
    return bytes(written)


def _decoded(body: bytes) -> list[amf.Value]:
    try:
        return amf.decode(body)
    except amf.BadAmf:
        raise LinkError(FAILED, "The destination does not speak RTMP.") from None
