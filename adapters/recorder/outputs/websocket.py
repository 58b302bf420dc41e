"""Sound over a websocket, as LiveKit sends it: S16LE, 48 kHz, stereo (livekit-surface 4.3)."""

from __future__ import annotations

import contextlib
import ssl
import time
from urllib.parse import urlsplit

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import ProtocolError

from adapters.recorder.encoders import Encoded
from adapters.recorder.outputs.link import AUTH_FAILED, FAILED, LinkError
from adapters.recorder.outputs.tcp import Resolve, Tcp

ANSWER_SEC = 5.0
PING_SEC = 30.0


class WebsocketLink:
    """Packets of medium `text` go out as text messages, all others as binary ones. See `Link`."""

    def __init__(self, url: str, *, resolve: Resolve, tls: ssl.SSLContext) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise ValueError("not a websocket URL")
        self._secure = parts.scheme == "wss"
        self._host, self._port = parts.hostname, parts.port or (443 if self._secure else 80)
        self._authority = parts.netloc.rpartition("@")[2]
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._tcp = Tcp(resolve=resolve, tls=tls)
        self._websocket = WSConnection(ConnectionType.CLIENT)
        self._pinged = 0.0

    def open(self) -> None:
        self._tcp.open(self._host, self._port, secure=self._secure)
        headers = [(b"Content-Type", b"audio/x-raw")]
        self._write(Request(host=self._authority, target=self._path, extra_headers=headers))
        deadline = time.monotonic() + ANSWER_SEC
        while not self._take(self._tcp.read(deadline)):
            pass
        self._pinged = time.monotonic()

    def send(self, packet: Encoded) -> None:
        if packet.media == "text":
            self._write(TextMessage(packet.data.decode()))
        else:
            self._write(BytesMessage(packet.data))
        self.keep()
        self._tcp.check_alive()

    def keep(self) -> None:
        if time.monotonic() - self._pinged >= PING_SEC:
            self._write(Ping(b"ping"))
            self._pinged = time.monotonic()
        while data := self._tcp.read_available():
            self._take(data)

    def delivered(self) -> int:
        return self._tcp.delivered()

    def close(self, *, politely: bool) -> None:
        if politely:
            with contextlib.suppress(LinkError):
                self._write(CloseConnection(code=1000))
        self._tcp.close()

    def interrupt(self) -> None:
        self._tcp.interrupt()

    def _take(self, data: bytes) -> bool:
        """Whether the server has accepted now. What it says is read and dropped."""
        accepted = False
        try:
            self._websocket.receive_data(data)
            for event in self._websocket.events():
                if isinstance(event, Ping):
                    self._write(event.response())
                elif isinstance(event, RejectConnection):
                    raise LinkError(AUTH_FAILED, f"The destination refused with status {event.status_code}.")
                elif isinstance(event, CloseConnection):
                    raise LinkError(FAILED, "The destination closed the connection.")
                accepted = accepted or isinstance(event, AcceptConnection)
        except ProtocolError:
            raise LinkError(FAILED, "The destination does not speak websocket.") from None
        return accepted

    def _write(self, event: Event) -> None:
        try:
            data = self._websocket.send(event)
        except ProtocolError:
            raise LinkError(FAILED, "The destination closed the connection.") from None
        self._tcp.write(data)
