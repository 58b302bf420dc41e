"""The port that posts one webhook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class PostResult:
    """What came of one POST (WB-47).

    `status_code` None means no answer; then `error` says why, in words that are safe to show. `latency_ms` runs
    until the head of the answer, or until the failure.
    """

    status_code: int | None
    error: str | None
    latency_ms: int

    @property
    def delivered(self) -> bool:
        """Any 2xx (WB-46); a redirect is a failure."""
        return self.status_code is not None and 200 <= self.status_code < 300


class WebhookSender(Protocol):
    def check_url(self, url: str, *, field: str) -> None:
        """Without a look-up: ServiceError invalid_argument naming `field` for what can never be posted to."""
        ...

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> PostResult:
        """Sends exactly these bytes and headers, `Content-Type` among them.

        Never raises for what the endpoint or the network does.
        """
        ...
