"""One connection of a stream: to a checked address, with TLS if asked, and never waiting for longer than it says."""

from __future__ import annotations

import contextlib
import fcntl
import select
import socket
import ssl
import struct
import termios
import time
from collections.abc import Callable, Sequence

from adapters.recorder.outputs.link import CONNECTION_REFUSED, FAILED, TIMEOUT, HungUp, LinkError

CONNECT_SEC = 5.0
STALL_SEC = 10.0
_ADDRESSES_TRIED = 3
_WRITE = 1 << 16
# Small enough that a stall is noticed soon, large enough for 20 Mbit/s over 200 ms.
_SEND_BUFFER = 1 << 19

Resolve = Callable[[str, int], Sequence[str]]
"""Host and port → addresses that may be connected to; raises OSError."""


def resolve_anything(host: str, port: int) -> Sequence[str]:
    """The system's resolver, without a check."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Tcp:
    """Used by one thread but for `interrupt`. Everything raises LinkError."""

    def __init__(self, *, resolve: Resolve, tls: ssl.SSLContext) -> None:
        self._resolve = resolve
        self._tls = tls
        self._socket: socket.socket | None = None
        self._interrupted = False
        self._moved = (0, 0.0)  # bytes delivered, and when that last grew
        self.written = 0

    def open(self, host: str, port: int, *, secure: bool) -> None:
        """The name is looked up once and the answer connected to, so that nothing can be put in its place."""
        try:
            addresses = self._resolve(host, port)
        except OSError:
            addresses = ()
        error = LinkError(CONNECTION_REFUSED, "The destination's address cannot be reached.")
        for address in addresses[:_ADDRESSES_TRIED]:
            try:
                self._socket = self._connect(address, port, host if secure else None)
            except LinkError as failed:
                error = failed
            else:
                self._moved = (0, time.monotonic())
                return
        raise error

    def _connect(self, address: str, port: int, verified_name: str | None) -> socket.socket:
        self._check_interrupted()
        made: socket.socket | None = None
        try:
            made = socket.create_connection((address, port), CONNECT_SEC)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            if verified_name is not None:
                made = self._tls.wrap_socket(made, server_hostname=verified_name)
            made.settimeout(0)
        except ssl.SSLCertVerificationError:
            _close(made)
            raise LinkError(FAILED, "The destination's certificate is not valid.") from None
        except ssl.SSLError:
            _close(made)
            raise LinkError(FAILED, "The destination does not speak TLS.") from None
        except TimeoutError:
            _close(made)
            raise LinkError(TIMEOUT, "The destination did not answer in time.") from None
        except OSError:
            _close(made)
            raise LinkError(CONNECTION_REFUSED, "The destination refused the connection.") from None
        return made

    def write(self, data: bytes) -> None:
        """Everything, or LinkError when nothing more is taken for `STALL_SEC`."""
        rest = memoryview(data)
        deadline = time.monotonic() + STALL_SEC
        while rest:
            try:
                sent = self._open_socket().send(rest[:_WRITE])
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._wait(select.POLLOUT, deadline)
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN, deadline)
            except OSError:
                raise HungUp from None
            else:
                self.written += sent
                rest = rest[sent:]
                deadline = time.monotonic() + STALL_SEC

    def read(self, deadline: float) -> bytes:
        """At least one byte, before the monotonic time `deadline`."""
        while not (data := self.read_available()):
            self._wait(select.POLLIN, deadline)
        if time.monotonic() > deadline:
            # One that talks without an end has not answered either.
            raise LinkError(TIMEOUT, "The destination did not answer in time.")
        return data

    def read_available(self) -> bytes:
        """What has come; empty if nothing has."""
        try:
            data = self._open_socket().recv(1 << 16)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return b""
        except OSError:
            raise HungUp from None
        if not data:
            raise HungUp
        return data

    def delivered(self) -> int:
        """Bytes that the other side's kernel has acknowledged, roughly where TLS adds its own."""
        if self._socket is None:
            return 0
        waiting = struct.unpack("i", fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0]
        return max(0, self.written - int(waiting))

    def check_alive(self) -> None:
        """LinkError when what was written has not moved on for `STALL_SEC`."""
        now, done = time.monotonic(), self.delivered()
        if done > self._moved[0] or done >= self.written:
            self._moved = (done, now)
        elif now - self._moved[1] > STALL_SEC:
            raise LinkError(TIMEOUT, "The destination stopped taking the stream.")

    def close(self) -> None:
        _close(self._socket)
        self._socket = None

    def interrupt(self) -> None:
        """From another thread: what is waited for ends within a second."""
        self._interrupted = True

    def _wait(self, event: int, deadline: float) -> None:
        made = self._open_socket()
        left = min(deadline - time.monotonic(), 1.0)
        if left <= 0:
            raise LinkError(TIMEOUT, "The destination did not answer in time.")
        waiter = select.poll()
        waiter.register(made, event)
        waiter.poll(left * 1000)

    def _open_socket(self) -> socket.socket:
        self._check_interrupted()
        if self._socket is None:
            raise LinkError(FAILED, "The connection to the destination is closed.")
        return self._socket

    def _check_interrupted(self) -> None:
        if self._interrupted:
            raise LinkError(FAILED, "The stream was ended.")


def _close(made: socket.socket | None) -> None:
    if made is not None:
        with contextlib.suppress(OSError):
            made.close()
