"""The LiveKit that the operator names, and the absence of one."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from adapters.livekit.twirp import TwirpClient
from server.errors import unavailable
from server.ports.livekit import LiveKitAddress, LiveKitStatus

_HTTP = {"ws": "http", "wss": "https", "http": "http", "https": "https"}
_WEBSOCKET = {"http": "ws", "https": "wss"}


def http_url(url: str) -> str:
    """`ws(s)://` and `http(s)://` as `http(s)://` without a slash at the end. Raise ValueError for anything else."""
    parts = urlsplit(url.strip())
    if parts.scheme.lower() not in _HTTP or not parts.hostname:
        raise ValueError("a LiveKit address must look like wss://host, ws://host:port or https://host")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("a LiveKit address has no credentials, query or fragment")
    return urlunsplit((_HTTP[parts.scheme.lower()], parts.netloc, parts.path.rstrip("/"), "", ""))


def websocket_url(url: str) -> str:
    """The same as `ws(s)://`, as participants are given it."""
    base = http_url(url)
    scheme, rest = base.split("://", 1)
    return f"{_WEBSOCKET[scheme]}://{rest}"


class ConfiguredLiveKit:
    """`BAX_LIVEKIT_URL` with its key and secret: a LiveKit of the operator's or LiveKit Cloud."""

    def __init__(self, url: str, api_key: str, api_secret: str, *, public_url: str | None = None) -> None:
        """Raise ValueError naming the variable whose address cannot be used."""
        try:
            base = http_url(url)
        except ValueError as error:
            raise ValueError(f"BAX_LIVEKIT_URL: {error}") from None
        try:
            public = websocket_url(public_url or url)
        except ValueError as error:
            raise ValueError(f"BAX_LIVEKIT_PUBLIC_URL: {error}") from None
        self._address = LiveKitAddress(url=base, public_url=public, api_key=api_key, api_secret=api_secret)
        self._client = TwirpClient()

    async def start(self) -> None:
        """Nothing to start; here because the embedded one has it."""

    async def wait_ready(self, timeout_sec: float) -> bool:
        """Whether it answers now; one that does not is no reason to wait."""
        return await self._client.healthy(self._address, timeout_sec=timeout_sec) is None

    async def address(self) -> LiveKitAddress:
        return self._address

    async def status(self) -> LiveKitStatus:
        return LiveKitStatus(
            embedded=False,
            address=self._address.url,
            version=None,
            binary=None,
            problem=await self._client.healthy(self._address),
        )

    async def aclose(self) -> None:
        await self._client.close()


class AbsentLiveKit:
    """`BAX_LIVEKIT_EMBEDDED=0` and no `BAX_LIVEKIT_URL`: everything that needs LiveKit is unavailable."""

    _WHY = "no LiveKit: BAX_LIVEKIT_EMBEDDED is 0 and BAX_LIVEKIT_URL is not set"

    async def start(self) -> None:
        """Nothing to start."""

    async def wait_ready(self, timeout_sec: float) -> bool:
        return False

    async def address(self) -> LiveKitAddress:
        raise unavailable(self._WHY)

    async def status(self) -> LiveKitStatus:
        return LiveKitStatus(embedded=False, address=None, version=None, binary=None, problem=self._WHY)

    async def aclose(self) -> None:
        """Nothing to close."""
