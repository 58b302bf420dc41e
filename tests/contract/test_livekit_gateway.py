"""The port to the LiveKit behind, over Twirp: against a real server, and against what stands in front of some."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from google.protobuf.message import Message
from livekit.protocol import models, room

from adapters.livekit.configured import AbsentLiveKit, ConfiguredLiveKit, http_url, websocket_url
from adapters.livekit.gateway import TwirpGateway
from server.errors import Code, ServiceError
from server.ports.livekit import LiveKitAddress, LiveKitStatus
from tests.servers.livekit import API_KEY, API_SECRET, LiveKitServer

LIST = "livekit.RoomService/ListRooms"
CREATE = "livekit.RoomService/CreateRoom"
MAY_LIST = {"roomList": True}
MAY_CREATE = {"roomCreate": True}


class Source:
    """A LiveKit at a fixed address."""

    def __init__(self, address: LiveKitAddress) -> None:
        self._address = address

    async def address(self) -> LiveKitAddress:
        return self._address

    async def status(self) -> LiveKitStatus:
        raise AssertionError("a call needs no status")


class Clock:
    def __init__(self) -> None:
        self.time = datetime.now(UTC)

    def now(self) -> datetime:
        return self.time


@contextlib.asynccontextmanager
async def calling(address: LiveKitAddress, clock: Clock | None = None) -> AsyncIterator[TwirpGateway]:
    gateway = TwirpGateway(Source(address), clock)
    try:
        yield gateway
    finally:
        await gateway.close()


@pytest.fixture
async def gateway(livekit: LiveKitServer) -> AsyncIterator[TwirpGateway]:
    async with calling(livekit.address) as calls:
        yield calls


async def refused(call: Awaitable[bytes]) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await call
    return caught.value


# --- a real LiveKit


async def test_messages_go_there_and_back(gateway: TwirpGateway) -> None:
    name = f"room-{uuid.uuid4().hex}"

    made = room.CreateRoomRequest(name=name, max_participants=3, metadata="m")
    created = models.Room.FromString(await gateway.call(CREATE, made.SerializeToString(), grants=MAY_CREATE))
    one = room.ListRoomsRequest(names=[name]).SerializeToString()
    listed = room.ListRoomsResponse.FromString(await gateway.call(LIST, one, grants=MAY_LIST))

    assert (created.name, created.max_participants, created.metadata) == (name, 3, "m")
    assert [found.sid for found in listed.rooms] == [created.sid]


async def test_many_calls_at_once(gateway: TwirpGateway) -> None:
    names = [f"room-{uuid.uuid4().hex}" for _ in range(60)]

    async def create(name: str) -> str:
        request = room.CreateRoomRequest(name=name).SerializeToString()
        return str(models.Room.FromString(await gateway.call(CREATE, request, grants=MAY_CREATE)).name)

    assert await asyncio.gather(*map(create, names)) == names


@pytest.mark.parametrize(
    ("method", "request_", "grants", "code", "words"),
    [
        ("ListRooms", room.ListRoomsRequest(), {}, Code.UNAUTHENTICATED, "permissions denied"),
        ("ListRooms", room.ListRoomsRequest(), MAY_CREATE, Code.UNAUTHENTICATED, "permissions denied"),
        (
            "GetParticipant",
            room.RoomParticipantIdentity(room="nowhere", identity="x"),
            {"roomAdmin": True, "room": "nowhere"},
            Code.NOT_FOUND,
            "participant does not exist",
        ),
        (
            "GetParticipant",
            room.RoomParticipantIdentity(room="elsewhere", identity="x"),
            {"roomAdmin": True, "room": "nowhere"},
            Code.UNAUTHENTICATED,
            "permissions denied",
        ),
        (
            "DeleteRoom",
            room.DeleteRoomRequest(room="nowhere"),
            MAY_CREATE,
            Code.NOT_FOUND,
            "requested room does not exist",
        ),
        (
            "CreateRoom",
            room.CreateRoomRequest(name="n" * 300),
            MAY_CREATE,
            Code.INVALID_ARGUMENT,
            "room name length exceeds limits: max length 256",
        ),
        ("Nothing", room.ListRoomsRequest(), MAY_LIST, Code.BAD_ROUTE, "no handler for path"),
    ],
)  # fmt: skip
async def test_errors_keep_their_code_and_lose_their_wrapping(
    gateway: TwirpGateway, method: str, request_: Message, grants: dict[str, object], code: Code, words: str
) -> None:
    """LK, livekit-surface 1.4 and 15: codes as LiveKit gives them, `twirp error unknown: ` cut off."""
    error = await refused(
        gateway.call(f"livekit.RoomService/{method}", request_.SerializeToString(), grants=grants)
    )

    assert error.code is code
    assert error.message.startswith(words)


async def test_what_an_error_says_besides_is_kept(gateway: TwirpGateway) -> None:
    request = room.CreateRoomRequest(name="big", metadata="m" * 600_000).SerializeToString()

    error = await refused(gateway.call(CREATE, request, grants=MAY_CREATE))

    assert error.code is Code.INVALID_ARGUMENT
    assert "argument" in error.meta


async def test_a_service_that_livekit_lacks(gateway: TwirpGateway) -> None:
    error = await refused(gateway.call("livekit.Nothing/List", b"", grants=MAY_LIST))

    assert error.code is Code.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"api_secret": "another-secret-" * 4}, "signature"), ({"api_key": "APIunknown"}, "API key")],
)
async def test_a_key_that_livekit_refuses(livekit: LiveKitServer, wrong: dict[str, str], words: str) -> None:
    """Its 401 in plain text is the operator's fault, not the caller's, and never repeats what was sent."""
    address = replace(livekit.address, **wrong)
    async with calling(address) as gateway:
        error = await refused(gateway.call(LIST, b"", grants=MAY_LIST))

    assert error.code is Code.UNAVAILABLE
    assert "refused our key" in error.message
    assert words in error.message
    assert address.api_secret not in error.message
    assert "eyJ" not in error.message


async def test_clocks_may_be_some_minutes_apart(livekit: LiveKitServer) -> None:
    for skew in (timedelta(minutes=-8), timedelta(minutes=30)):
        clock = Clock()
        clock.time += skew
        async with calling(livekit.address, clock) as gateway:
            await gateway.call(LIST, b"", grants=MAY_LIST)


async def test_a_clock_far_behind_is_named_as_the_cause(livekit: LiveKitServer) -> None:
    clock = Clock()
    clock.time -= timedelta(hours=1)
    async with calling(livekit.address, clock) as gateway:
        error = await refused(gateway.call(LIST, b"", grants=MAY_LIST))

    assert error.code is Code.UNAVAILABLE
    assert "clocks" in error.message


async def test_a_paused_livekit_is_unavailable_within_the_deadline(
    livekit: LiveKitServer, gateway: TwirpGateway
) -> None:
    """RM: nothing hangs, whether the connection is new or kept; afterwards calls work again."""
    await gateway.call(LIST, b"", grants=MAY_LIST)
    with livekit.paused():
        calls = [gateway.call(LIST, b"", grants=MAY_LIST, timeout_sec=0.4) for _ in range(5)]
        async with asyncio.timeout(5):
            errors = await asyncio.gather(*map(refused, calls))

    assert {error.code for error in errors} == {Code.UNAVAILABLE}
    assert all("did not answer within 0.4 s" in error.message for error in errors)
    await gateway.call(LIST, b"", grants=MAY_LIST)


async def test_a_livekit_that_was_killed_and_started_again(
    livekit: LiveKitServer, gateway: TwirpGateway
) -> None:
    await gateway.call(LIST, b"", grants=MAY_LIST)
    livekit.kill()
    try:
        error = await refused(gateway.call(LIST, b"", grants=MAY_LIST))
        written = await refused(gateway.call(CREATE, b"", grants=MAY_CREATE))
    finally:
        livekit.start()

    assert {error.code, written.code} == {Code.UNAVAILABLE}
    assert f"{livekit.address.url} cannot be reached: Connection refused" in error.message
    await gateway.call(LIST, b"", grants=MAY_LIST)


# --- what stands in front of some LiveKits

Handler = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Front:
    """An HTTP server by hand: `handler` gets the head of each request, with the body read off."""

    def __init__(self, handler: Handler) -> None:
        self.heads: list[bytes] = []
        self.connections = 0
        self._handler = handler
        self._serving: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[LiveKitAddress]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            yield LiveKitAddress(f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}", API_KEY, API_SECRET)
        finally:
            server.close()
            if self._serving:
                await asyncio.wait(self._serving, timeout=10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                await reader.readexactly(int(length[0].split(b":")[1]) if length else 0)
                self.heads.append(head)
                await self._handler(head, reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    def header(self, name: bytes, index: int = -1) -> str:
        lines = [line for line in self.heads[index].split(b"\r\n") if line.lower().startswith(name + b": ")]
        return lines[0].partition(b": ")[2].decode()


def answering(status: str, body: bytes = b"", content_type: str = "application/protobuf") -> Handler:
    async def answer(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()

    return answer


@pytest.mark.parametrize(
    ("status", "content_type", "body", "code"),
    [
        ("502 Bad Gateway", "text/html", b"<h1>nginx</h1>", Code.UNAVAILABLE),
        ("504 Gateway Timeout", "text/plain", b"", Code.UNAVAILABLE),
        ("500 Internal Server Error", "application/json", b"not json", Code.UNAVAILABLE),
        ("500 Internal Server Error", "application/json", b"[1]", Code.UNAVAILABLE),
        ("500 Internal Server Error", "application/json", b'{"code":"surprise"}', Code.UNAVAILABLE),
        ("307 Temporary Redirect", "text/plain", b"", Code.UNAVAILABLE),
        ("413 Payload Too Large", "text/plain", b"request body too large", Code.RESOURCE_EXHAUSTED),
        ("404 Not Found", "text/plain", b"404 page not found", Code.UNIMPLEMENTED),
        ("500 Internal Server Error", "application/json", b'{"code":"data_loss","msg":"m"}', Code.DATALOSS),
        ("429 Too Many Requests", "application/json; charset=utf-8", b'{"code":"resource_exhausted"}',
         Code.RESOURCE_EXHAUSTED),
        ("503 Service Unavailable", "application/json", b'{"code":"unavailable","msg":"no response"}',
         Code.UNAVAILABLE),
    ],
)  # fmt: skip
async def test_every_answer_becomes_an_error(status: str, content_type: str, body: bytes, code: Code) -> None:
    front = Front(answering(status, body, content_type))
    async with front.running() as address, calling(address) as gateway:
        error = await refused(gateway.call(LIST, b"", grants=MAY_LIST))

    assert error.code is code
    assert error.message


async def test_wrapping_is_cut_off_however_often_it_was_put_on() -> None:
    body = json.dumps({"code": "not_found", "msg": "twirp error unknown: twirp error unknown: gone"}).encode()
    front = Front(answering("404 Not Found", body, "application/json"))
    async with front.running() as address, calling(address) as gateway:
        error = await refused(gateway.call(LIST, b"", grants=MAY_LIST))

    assert (error.code, error.message) == (Code.NOT_FOUND, "gone")


async def test_a_body_that_never_ends_is_unavailable() -> None:
    async def hang(_head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        await reader.read()

    async with Front(hang).running() as address, calling(address) as gateway:
        error = await refused(gateway.call(LIST, b"", grants=MAY_LIST, timeout_sec=0.3))

    assert error.code is Code.UNAVAILABLE


async def test_tokens_say_exactly_what_is_granted_and_are_signed_once() -> None:
    """TK: explicit grants; a signature per call would cost more than the call's own work."""
    front = Front(answering("200 OK"))
    clock = Clock()
    grants = {"roomAdmin": True, "room": "r"}
    async with front.running() as address, calling(address, clock) as gateway:
        for later, also in ((0, grants), (240, grants), (0, MAY_LIST), (61, grants)):
            clock.time += timedelta(seconds=later)
            await gateway.call(LIST, b"", grants=also)

    tokens = [front.header(b"authorization", index).removeprefix("Bearer ") for index in range(4)]
    first, again, other, renewed = tokens
    assert first == again
    assert len({first, other, renewed}) == 3
    claims = [jwt.decode(token, API_SECRET, ["HS256"], options={"verify_exp": False}) for token in tokens]
    assert [claim["video"] for claim in claims] == [grants, grants, MAY_LIST, grants]
    assert {claim["iss"] for claim in claims} == {API_KEY}
    assert claims[3]["exp"] - clock.now().timestamp() == pytest.approx(600, abs=1)


async def test_the_deadline_is_told_to_livekit() -> None:
    front = Front(answering("200 OK"))
    async with front.running() as address, calling(address) as gateway:
        await gateway.call(LIST, b"", grants=MAY_LIST)
        await gateway.call(LIST, b"", grants=MAY_LIST, timeout_sec=1.5)

    assert [front.header(b"x-twirp-timeout-ms", index) for index in (0, 1)] == ["5000", "1500"]
    assert front.header(b"content-type") == "application/protobuf"
    assert front.connections == 1


def hanging_up_on(number: int) -> Handler:
    """Closes the connection on the given request, as a front does with one that it thinks idle."""
    seen = 0

    async def answer(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            writer.transport.abort()
            raise ConnectionError
        await answering("200 OK")(head, reader, writer)

    return answer


async def test_a_read_on_a_connection_that_broke_is_sent_again() -> None:
    front = Front(hanging_up_on(2))
    async with front.running() as address, calling(address) as gateway:
        await gateway.call(LIST, b"", grants=MAY_LIST)
        assert await gateway.call(LIST, b"", grants=MAY_LIST) == b""

    assert (len(front.heads), front.connections) == (3, 2)


async def test_a_change_on_a_connection_that_broke_is_sent_once() -> None:
    """LiveKit may have carried it out."""
    front = Front(hanging_up_on(2))
    async with front.running() as address, calling(address) as gateway:
        await gateway.call(LIST, b"", grants=MAY_LIST)
        error = await refused(gateway.call(CREATE, b"", grants=MAY_CREATE))

    assert error.code is Code.UNAVAILABLE
    assert "broke" in error.message
    assert len(front.heads) == 2


async def test_a_read_is_sent_twice_at_most() -> None:
    async def hang_up(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()
        raise ConnectionError

    front = Front(hang_up)
    async with front.running() as address, calling(address) as gateway:
        error = await refused(gateway.call(LIST, b"", grants=MAY_LIST))

    assert error.code is Code.UNAVAILABLE
    assert len(front.heads) == 2


# --- which LiveKit


@pytest.mark.parametrize(
    ("given", "http", "websocket"),
    [
        ("ws://localhost:7880", "http://localhost:7880", "ws://localhost:7880"),
        ("wss://x.livekit.cloud/", "https://x.livekit.cloud", "wss://x.livekit.cloud"),
        ("https://lk.example.com/base/", "https://lk.example.com/base", "wss://lk.example.com/base"),
        (" HTTP://[::1]:7880 ", "http://[::1]:7880", "ws://[::1]:7880"),
    ],
)
def test_addresses_are_brought_into_both_forms(given: str, http: str, websocket: str) -> None:
    assert (http_url(given), websocket_url(given)) == (http, websocket)


@pytest.mark.parametrize("given", ["", "localhost:7880", "ftp://x", "ws://", "ws://u:p@x", "ws://x?token=1"])
def test_addresses_that_cannot_be_used_are_refused_by_name(given: str) -> None:
    with pytest.raises(ValueError, match="BAX_LIVEKIT_URL") as caught:
        ConfiguredLiveKit(given, "key", "secret")
    assert "u:p" not in str(caught.value)


async def test_the_configured_livekit(livekit: LiveKitServer) -> None:
    own = livekit.address
    source = ConfiguredLiveKit(own.public_url, API_KEY, API_SECRET, public_url="wss://public.example.com")
    assert await source.wait_ready(5)
    address, status = await source.address(), await source.status()
    await source.aclose()

    assert (address.url, address.public_url) == (own.url, "wss://public.example.com")
    assert API_SECRET not in repr(address)
    assert (status.embedded, status.address, status.problem) == (False, own.url, None)


async def test_a_configured_livekit_that_is_away_says_why() -> None:
    source = ConfiguredLiveKit("ws://127.0.0.1:1", API_KEY, API_SECRET)
    assert not await source.wait_ready(5)
    status = await source.status()
    await source.aclose()

    assert status.problem is not None
    assert "Connection refused" in status.problem


async def test_without_any_livekit_calls_say_which_settings_matter() -> None:
    gateway = TwirpGateway(AbsentLiveKit())

    error = await refused(gateway.call(LIST, b"", grants=MAY_LIST))

    assert error.code is Code.UNAVAILABLE
    assert "BAX_LIVEKIT_URL" in error.message
