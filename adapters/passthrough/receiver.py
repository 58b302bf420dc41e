"""The subscriber's transport out of parts of aiortc: ICE, DTLS, SRTP and the association of the data channels.

The only module that knows aiortc, and private names of it, which is why its version is pinned exactly: its peer
connection decodes what it receives, so the transports stand alone here and every datagram is taken as it comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any

import aiortc
import pylibsrtp
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcicetransport import RTCIceGatherer, RTCIceTransport
from aiortc.rtcsctptransport import RTCSctpTransport
from aiortc.sdp import candidate_from_sdp, candidate_to_sdp

from adapters.passthrough.rtp import is_rtcp
from adapters.passthrough.sdp import LocalSide, Offer, answer, parse_offer

PINNED = "1.16.0"
if aiortc.__version__ != PINNED:
    raise ImportError(f"adapters.passthrough needs aiortc {PINNED}, this is {aiortc.__version__}")

_CONNECT_SEC = 10.0
_POLL_SEC = 0.02
_BUSY = 24
_MOST_AT_ONCE = 256
_MAX_DATAGRAM = 2048
_BUFFER_BYTES = 4 << 20


class ConnectionLost(Exception):
    """The media's way to LiveKit is gone, or never came about."""


class MediaLink:
    """One subscriber connection. `on_media` gets each decrypted RTP packet, `on_control` each RTCP packet.

    `stood` once media could come through, `lost` when it no longer can, or when `on_media` or `on_control` raised
    `failure`. `ice_servers` are those of the join response, for networks that let only relayed media through; [] for
    direct ways.
    """

    def __init__(
        self,
        on_media: Callable[[bytes], None],
        on_control: Callable[[bytes], None],
        ice_servers: list[aiortc.RTCIceServer] | None = None,
    ) -> None:
        self._on_media = on_media
        self._on_control = on_control
        self._certificate = aiortc.RTCCertificate.generateCertificate()
        self._ice = RTCIceTransport(RTCIceGatherer(iceServers=ice_servers or []))
        self._dtls = RTCDtlsTransport(self._ice, [self._certificate])
        self._dtls._set_role("client")
        self._sctp: RTCSctpTransport | None = None
        self._starting: asyncio.Task[None] | None = None
        self._sends: set[asyncio.Task[None]] = set()
        self._username = ""
        self.offer: Offer | None = None
        self.stood = False
        self.failure: Exception | None = None
        self._polls: list[_Poll] = []
        self.lost = asyncio.Event()

    async def accept(self, text: str) -> str:
        """The answer to an offer; the first one starts the transport. Raise ConnectionLost when it asks for another one."""
        offer = parse_offer(text)
        if self._username not in ("", offer.username):
            # A restart of ICE, which aioice can't do.
            raise ConnectionLost("the transport was asked to start again")
        first, self._username, self.offer = not self._username, offer.username, offer
        await self._ice.iceGatherer.gather()
        for candidate in offer.candidates:
            await self.add_candidate(candidate)
        if first:
            self._starting = asyncio.create_task(self._start(offer))
        return answer(offer, self._local())

    async def add_candidate(self, line: str) -> None:
        """`line` with or without `candidate:` in front; an empty one ends them."""
        line = line.removeprefix("candidate:")
        if not line:
            return
        candidate = candidate_from_sdp(line)
        candidate.sdpMid = "0"
        await self._ice.addRemoteCandidate(candidate)

    def send(self, data: bytes) -> None:
        """RTCP of ours, as soon as can be; nothing before the connection stands or after it fell."""
        if self._dtls.state == "connected":
            task = asyncio.get_running_loop().create_task(self._send(data))
            self._sends.add(task)
            task.add_done_callback(self._sends.discard)

    async def close(self) -> None:
        for poll in self._polls:
            poll.stop()
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        with contextlib.suppress(ConnectionError):
            if self._sctp is not None:
                await self._sctp.stop()
        with contextlib.suppress(ConnectionError):
            await self._dtls.stop()
        await self._ice.stop()

    def _local(self) -> LocalSide:
        ice = self._ice.iceGatherer.getLocalParameters()
        prints = self._certificate.getFingerprints()
        return LocalSide(
            username=ice.usernameFragment or "",
            password=ice.password or "",
            fingerprints=tuple((one.algorithm, one.value) for one in prints if one.algorithm == "sha-256"),
            candidates=tuple(candidate_to_sdp(one) for one in self._ice.iceGatherer.getLocalCandidates()),
        )

    async def _start(self, offer: Offer) -> None:
        try:
            async with asyncio.timeout(_CONNECT_SEC):
                await self._connect(offer)
        except TimeoutError:
            self.lost.set()
        if self._ice.state != "completed" or self._dtls.state != "connected":
            self.lost.set()

    async def _connect(self, offer: Offer) -> None:
        self._ice._connection.ice_controlling = offer.ice_lite
        await self._ice.start(
            aiortc.RTCIceParameters(
                usernameFragment=offer.username, password=offer.password, iceLite=offer.ice_lite
            )
        )
        if self._ice.state != "completed":
            return
        # Patched before the handshake ends: media may come with its last packet.
        vars(self._dtls).update(_handle_rtp_data=self._media, _handle_rtcp_data=self._control)
        self._dtls.on("statechange", self._changed)
        await self._dtls.start(
            aiortc.RTCDtlsParameters(
                fingerprints=[aiortc.RTCDtlsFingerprint(*one) for one in offer.fingerprints], role="server"
            )
        )
        if self._dtls.state == "connected":
            self.stood = True
            self._take_datagrams()
            # LiveKit counts a subscriber as connected once its data channels are open.
            self._sctp = RTCSctpTransport(self._dtls)
            await self._sctp.start(None, 5000)

    def _take_datagrams(self) -> None:
        """Media skips the queues and tasks between the socket and the decryption: they cost more than it does."""
        session = self._dtls._rx_srtp
        for protocol in self._ice._connection._protocols:
            usual = protocol.datagram_received

            def received(data: bytes, address: Any, usual: Callable[[bytes, Any], None] = usual) -> None:
                if not data or not 127 < data[0] < 192:
                    usual(data, address)
                    return
                try:
                    if is_rtcp(data):
                        self._on_control(session.unprotect_rtcp(data))
                    else:
                        self._on_media(session.unprotect(data))
                except pylibsrtp.Error:
                    # A repeated or foreign packet.
                    return
                except Exception as error:  # noqa: BLE001 - in a callback of the loop it would only be logged
                    self.failure = error
                    self.lost.set()

            self._polls.append(_Poll(protocol, received))

    async def _media(self, data: bytes, arrival_time_ms: int) -> None:
        self._on_media(data)

    async def _control(self, data: bytes) -> None:
        self._on_control(data)

    def _changed(self) -> None:
        if self._dtls.state in ("closed", "failed"):
            self.lost.set()

    async def _send(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            await self._dtls._send_rtp(data)


class _Poll:
    """Reads a socket fifty times a second instead of at every packet: waking up for each costs more than reading it.

    A recorder is in no hurry, and the kernel keeps what comes in between; when much comes, it is read more often.
    """

    def __init__(self, protocol: Any, received: Callable[[bytes, Any], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._received = received
        number = protocol.transport.get_extra_info("socket").fileno()
        # The transport, which still sends, must not see what is read here.
        self._loop._remove_reader(number)  # type: ignore[attr-defined]
        self._socket = socket.socket(fileno=os.dup(number))
        self._socket.settimeout(0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        self._timer = self._loop.call_soon(self._read)

    def stop(self) -> None:
        self._timer.cancel()
        self._socket.close()

    def _read(self) -> None:
        count = 0
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while count < _MOST_AT_ONCE:
                self._received(*self._socket.recvfrom(_MAX_DATAGRAM))
                count += 1
        pause = _POLL_SEC if count < _BUSY else _POLL_SEC * _BUSY / (4 * count)
        self._timer = self._loop.call_later(pause, self._read)
