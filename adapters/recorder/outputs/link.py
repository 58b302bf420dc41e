"""One connection to a destination, as the stream's thread uses it, and what can be wrong with it."""

from __future__ import annotations

from typing import Protocol

from adapters.recorder.encoders import Encoded

CONNECTION_REFUSED = "RTMP_CONNECTION_REFUSED"
TIMEOUT = "RTMP_TIMEOUT"
AUTH_FAILED = "RTMP_AUTH_FAILED"
FAILED = "EGRESS_FAILED"


class LinkError(Exception):
    """A destination cannot be reached or does not take more. The message never holds its URL."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class HungUp(LinkError):
    """The other side ended the connection."""

    def __init__(self) -> None:
        super().__init__(FAILED, "The destination closed the connection.")


class Link(Protocol):
    """Used by one thread; every method ends within seconds. All raise LinkError."""

    def open(self) -> None:
        """Returns when the destination takes media."""
        ...

    def send(self, packet: Encoded) -> None: ...

    def keep(self) -> None:
        """Answers what the destination asked; called each second while there is nothing to send."""
        ...

    def delivered(self) -> int:
        """Bytes that have left this host so far, as far as can be known."""
        ...

    def close(self, *, politely: bool) -> None:
        """Says good-bye if `politely`; never raises."""
        ...

    def interrupt(self) -> None:
        """From another thread: whatever is waited for ends now."""
        ...
