"""Calls the LiveKit behind with our own credentials."""

from __future__ import annotations

from collections.abc import Mapping

from adapters.livekit.twirp import TwirpClient
from server.clock import Clock
from server.ports.livekit import LiveKitSource


class TwirpGateway:
    """`LiveKitGateway` over Twirp, wherever the source says that LiveKit is at the moment of the call."""

    def __init__(self, source: LiveKitSource, clock: Clock | None = None) -> None:
        self._source = source
        self._client = TwirpClient(clock)

    async def call(
        self,
        method: str,
        request: bytes,
        *,
        grants: Mapping[str, object],
        sip: Mapping[str, object] | None = None,
        timeout_sec: float | None = None,
    ) -> bytes:
        """See `LiveKitGateway.call`."""
        address = await self._source.address()
        return await self._client.call(
            address, method, request, grants=grants, sip=sip, timeout_sec=timeout_sec
        )

    async def close(self) -> None:
        await self._client.close()
