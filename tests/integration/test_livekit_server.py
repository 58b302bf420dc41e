"""The embedded LiveKit: started, watched, restarted, adopted, ended; all on a real livekit-server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from livekit.protocol import models, room
from structlog.testing import capture_logs

from adapters.crypto import AesGcmSecretBox, load_or_create_keys, new_key_text
from adapters.livekit import processes
from adapters.livekit.binary import RELEASE
from adapters.livekit.embedded import EmbeddedLiveKit
from adapters.livekit.gateway import TwirpGateway
from adapters.livekit.media_probe import probe_media
from adapters.livekit.options import EmbeddedOptions, Timing
from adapters.livekit.ports import PortPlan
from server.errors import Code, ServiceError
from server.ports.livekit import LiveKitAddress
from tests.conftest import Eventually
from tests.descriptors import descriptors
from tests.servers.livekit import FREE_PORTS, livekit_binary

QUICK = Timing(first_pause=0.05, last_pause=0.4, follow_every=0.1, health_every=0.2)
Open = Callable[..., EmbeddedLiveKit]


@pytest.fixture(autouse=True)
def _binary() -> None:
    livekit_binary()


@pytest.fixture
async def embedded(data_dir: Path) -> AsyncIterator[Open]:
    """Makes supervisors over the test's data directory; they and what they started end with the test."""
    async with AsyncExitStack() as stack:

        def make(
            timing: Timing = QUICK, box: AesGcmSecretBox | None = None, **options: object
        ) -> EmbeddedLiveKit:
            chosen = replace(EmbeddedOptions(data_dir, "127.0.0.1", FREE_PORTS), **options)  # type: ignore[arg-type]
            box = box or AesGcmSecretBox.parse(load_or_create_keys(data_dir))
            made = EmbeddedLiveKit(chosen, box, timing)
            stack.push_async_callback(made.aclose)
            return made

        yield make
    processes.end_all(config_of(data_dir))


def config_of(data_dir: Path) -> Path:
    return data_dir.resolve() / "livekit" / "livekit.yaml"


def running(data_dir: Path) -> list[int]:
    return processes.started_with(config_of(data_dir))


async def ready(livekit: EmbeddedLiveKit) -> EmbeddedLiveKit:
    await livekit.start()
    assert await livekit.wait_ready(20), await livekit.status()
    return livekit


async def answers(livekit: EmbeddedLiveKit) -> bool:
    return (await livekit.status()).problem is None


async def create_room(livekit: EmbeddedLiveKit, name: str) -> str:
    gateway = TwirpGateway(livekit)
    request = room.CreateRoomRequest(name=name).SerializeToString()
    reply = await gateway.call("livekit.RoomService/CreateRoom", request, grants={"roomCreate": True})
    await gateway.close()
    return str(models.Room.FromString(reply).sid)


async def refusal(livekit: EmbeddedLiveKit) -> str:
    with pytest.raises(ServiceError) as caught:
        await livekit.address()
    assert caught.value.code is Code.UNAVAILABLE
    return caught.value.message


def script(folder: Path, text: str) -> Path:
    path = folder / "pretended-livekit-server"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


# --- start and stop


async def test_it_starts_serves_and_ends_with_us(embedded: Open, data_dir: Path) -> None:
    livekit = embedded()
    assert "not started" in await refusal(livekit)

    await ready(livekit)
    address, status = await livekit.address(), await livekit.status()
    assert (await create_room(livekit, "a")).startswith("RM_")
    (pid,) = running(data_dir)
    await livekit.aclose()

    assert address.url.startswith("http://127.0.0.1:")
    assert address.public_url == address.url.replace("http://", "ws://")
    assert (status.embedded, status.address, status.version) == (True, address.url, RELEASE)
    assert status.problem is None
    assert status.binary is not None
    assert not running(data_dir)
    assert not processes.runs(pid, config_of(data_dir))
    assert "stopped" in await refusal(livekit)


async def test_media_gets_through(embedded: Open) -> None:
    """`bax doctor` shows whether media ports answer; a room of its own is all that it touches."""
    livekit = await ready(embedded())
    ports = livekit.ports
    assert ports is not None

    found = await probe_media(await livekit.address(), timeout_sec=20)

    assert (found.problem, found.route) == (None, f"udp 127.0.0.1:{ports.udp}")
    assert found.version == RELEASE
    gateway = TwirpGateway(livekit)
    reply = await gateway.call("livekit.RoomService/ListRooms", b"", grants={"roomList": True})
    await gateway.close()
    assert not room.ListRoomsResponse.FromString(reply).rooms


async def test_other_addresses_than_loopback(embedded: Open) -> None:
    """BAX_HTTP_HOST tells it where to listen, media over TCP included."""
    everywhere = PortPlan.of(signal=0, tcp=0, udp="0", fixed=(), loopback=False)
    livekit = await ready(embedded(http_host="0.0.0.0", ports=everywhere))
    ports = livekit.ports

    assert ports is not None
    assert ports.tcp is not None
    assert (await livekit.address()).url == f"http://127.0.0.1:{ports.signal}"
    with socket.create_connection(("127.0.0.1", ports.tcp), timeout=5):
        pass
    found = await probe_media(await livekit.address(), timeout_sec=20)
    assert (found.problem, (found.route or "")[-5:]) == (None, ports.udp[-5:])


async def test_it_listens_on_loopback_only(embedded: Open, data_dir: Path) -> None:
    await ready(embedded())
    (pid,) = running(data_dir)

    inodes = {link[8:-1] for link in descriptors(pid) if link.startswith("socket:[")}
    local = [
        fields[1]
        for table in ("tcp", "tcp6", "udp", "udp6")
        for fields in map(str.split, Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:])
        if fields[9] in inodes and fields[3] in {"0A", "07"}
    ]
    assert len(local) >= 2
    assert {address.partition(":")[0] for address in local} == {"0100007F"}


async def test_secrets_are_sealed_and_shown_nowhere(embedded: Open, data_dir: Path) -> None:
    with capture_logs() as logs:
        livekit = await ready(embedded(webhook_url="http://127.0.0.1:1/livekit/webhook"))
        secret = (await livekit.address()).api_secret
        # Its first complaint shows that LiveKit's log comes through.
        await create_room(livekit, "noisy")
        (pid,) = running(data_dir)
        command_line = Path(f"/proc/{pid}/cmdline").read_text()
        status = await livekit.status()
        await livekit.aclose()

    files = [path for path in data_dir.rglob("*") if path.is_file()]
    assert all(secret.encode() not in path.read_bytes() for path in files)
    assert secret not in command_line
    assert secret not in repr(status) + repr(logs) + repr(livekit)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in files}
    for name in ("livekit.yaml", "server.json", "livekit.log", "livekit.keys"):
        assert modes[name] == 0o600, name
    assert stat.S_IMODE((data_dir / "livekit").stat().st_mode) == 0o700


async def test_the_log_of_livekit_becomes_ours(
    embedded: Open, data_dir: Path, eventually: Eventually
) -> None:
    livekit = await ready(embedded())
    secret = (await livekit.address()).api_secret
    with capture_logs() as logs, (data_dir / "livekit" / "livekit.log").open("a") as log:
        log.write(
            json.dumps({"level": "error", "msg": "bad token eyJhbGciOi.eyJ2aWRl.c2ln", "error": secret})
        )
        log.write("\nplain words\n")
        log.flush()
        await eventually(lambda: len([entry for entry in logs if "livekit-server" in entry["event"]]) >= 2)

    reported, plain = [entry for entry in logs if "livekit-server" in entry["event"]]
    assert (reported["text"], reported["log_level"]) == ("bad token ***", "error")
    assert reported["livekit_error"] == "***"
    assert plain["line"] == "plain words"


async def test_the_operators_pair_is_accepted_too(embedded: Open) -> None:
    """BAX_BOOTSTRAP_LIVEKIT_API_KEY: with the embedded LiveKit also its own."""
    pair = {"APIoperator": "the-operators-own-secret-0123456789"}
    livekit = await ready(embedded(further_keys=pair))
    own = await livekit.address()

    class Operator:
        async def address(self) -> LiveKitAddress:
            return replace(own, api_key="APIoperator", api_secret=pair["APIoperator"])

    gateway = TwirpGateway(Operator())  # type: ignore[arg-type]
    await gateway.call("livekit.RoomService/ListRooms", b"", grants={"roomList": True})
    await gateway.close()


async def test_keys_stay_the_same_over_restarts_and_are_sealed_under_the_newest_key(
    embedded: Open, data_dir: Path
) -> None:
    old, new = new_key_text("old"), new_key_text("new")
    pairs = []
    for keys in (old, f"{new},{old}", new, new_key_text("lost")):
        livekit = await ready(embedded(box=AesGcmSecretBox.parse(keys)))
        address = await livekit.address()
        pairs.append((address.api_key, address.api_secret))
        await livekit.aclose()

    assert pairs[0] == pairs[1] == pairs[2]
    # A pair that no key opens any more is replaced: only the server that we start ever knew it.
    assert pairs[3] != pairs[2]


# --- when it dies


async def test_a_killed_livekit_is_started_again_on_its_ports(
    embedded: Open, data_dir: Path, eventually: Eventually
) -> None:
    livekit = await ready(embedded())
    before = await livekit.address()
    ports = livekit.ports
    (pid,) = running(data_dir)
    with capture_logs() as logs:
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: [entry for entry in logs if entry["event"] == "no embedded LiveKit"])
        await eventually(lambda: running(data_dir) not in ([], [pid]))
        await eventually(lambda: answers(livekit), within=20)

    assert logs[0]["cause"] == "livekit-server was killed by signal 9"
    assert (await livekit.address(), livekit.ports) == (before, ports)
    await create_room(livekit, "again")
    assert len(running(data_dir)) == 1


async def test_one_that_keeps_dying_is_tried_ever_more_rarely(
    embedded: Open, tmp_path: Path, eventually: Eventually
) -> None:
    broken = script(tmp_path, 'echo "could not bind: no such thing" >&2; exit 3')
    livekit = embedded(binary=broken)
    with capture_logs() as logs:
        await livekit.start()
        await eventually(lambda: len([entry for entry in logs if "next_try_sec" in entry]) >= 6)

    pauses = [entry["next_try_sec"] for entry in logs if "next_try_sec" in entry]
    assert pauses[:6] == [0.05, 0.1, 0.2, 0.4, 0.4, 0.4]
    assert "livekit-server ended with status 3: could not bind: no such thing" in await refusal(livekit)
    status = await livekit.status()
    assert status.address is None
    assert status.problem is not None
    assert "status 3" in status.problem


async def test_one_that_never_gets_ready_is_given_up(
    embedded: Open, tmp_path: Path, data_dir: Path, eventually: Eventually
) -> None:
    livekit = embedded(timing=replace(QUICK, start=0.5), binary=script(tmp_path, "exec sleep 600"))
    with capture_logs() as logs:
        await livekit.start()
        assert not await livekit.wait_ready(0.1)
        await eventually(lambda: [entry for entry in logs if "did not get ready" in entry.get("cause", "")])
    await livekit.aclose()
    assert not running(data_dir)


async def test_one_that_hangs_is_replaced(embedded: Open, data_dir: Path, eventually: Eventually) -> None:
    livekit = await ready(embedded(timing=replace(QUICK, hung_after=0.5)))
    (pid,) = running(data_dir)
    os.kill(pid, signal.SIGSTOP)

    await eventually(lambda: pid not in running(data_dir), within=40)
    await eventually(lambda: answers(livekit), within=20)
    await create_room(livekit, "again")


async def test_a_binary_that_comes_later_is_started(
    embedded: Open, tmp_path: Path, eventually: Eventually
) -> None:
    """LK: without a binary calls are unavailable and name what installs one; nothing waits for it."""
    later = tmp_path / "livekit-server"
    livekit = embedded(binary=later)
    await livekit.start()
    assert not await livekit.wait_ready(20)
    assert "BAX_LIVEKIT_SERVER" in await refusal(livekit)

    later.symlink_to(livekit_binary())
    await eventually(lambda: answers(livekit), within=20)


async def test_without_a_binary_the_installing_command_is_named(
    embedded: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("PATH", str(tmp_path))
    livekit = embedded()
    await livekit.start()

    assert not await livekit.wait_ready(20)
    assert "bax livekit install" in await refusal(livekit)
    status = await livekit.status()
    assert (status.binary, status.version) == (None, None)
    assert "bax livekit install" in (status.problem or "")


# --- ports


@asynccontextmanager
async def taken(kind: socket.SocketKind) -> AsyncIterator[int]:
    with socket.socket(socket.AF_INET, kind) as holder:
        holder.bind(("127.0.0.1", 0))
        if kind is socket.SOCK_STREAM:
            holder.listen()
        yield holder.getsockname()[1]


def plan(signal_port: int, udp: str, *fixed: str) -> PortPlan:
    return PortPlan.of(signal=signal_port, tcp=0, udp=udp, fixed=fixed, loopback=True)


async def test_a_default_port_that_is_taken_falls_to_a_free_one(embedded: Open) -> None:
    async with taken(socket.SOCK_STREAM) as port, taken(socket.SOCK_DGRAM) as udp:
        with capture_logs() as logs:
            livekit = await ready(embedded(ports=plan(port, str(udp))))
        got = livekit.ports
        assert got is not None
        status = await livekit.status()

        assert got.signal != port
        assert got.udp != str(udp)
        assert status.address == f"http://127.0.0.1:{got.signal}"
        moved = {entry["setting"]: entry["instead"] for entry in logs if "setting" in entry}
        assert moved == {"BAX_LIVEKIT_PORT": str(got.signal), "BAX_LIVEKIT_UDP_PORTS": got.udp}
        await create_room(livekit, "a")


async def test_a_port_that_was_asked_for_is_never_replaced(embedded: Open, eventually: Eventually) -> None:
    async with taken(socket.SOCK_STREAM) as port:
        livekit = embedded(ports=plan(port, "0", "livekit_port"))
        await livekit.start()
        assert not await livekit.wait_ready(20)
        assert f"port {port} is taken by another program" in await refusal(livekit)
        assert "BAX_LIVEKIT_PORT" in await refusal(livekit)

    await eventually(lambda: answers(livekit), within=20)
    assert (await livekit.address()).url == f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("udp", ["", "x", "7882-", "9-8", "70000", "0-5", "1-2-3"])
def test_udp_ports_that_cannot_be_used_are_refused_by_name(udp: str) -> None:
    if udp == "7882-":
        assert plan(0, udp).udp.text == "7882"
        return
    with pytest.raises(ValueError, match="BAX_LIVEKIT_UDP_PORTS"):
        plan(0, udp)


def test_media_over_tcp_is_off_on_loopback_unless_asked_for() -> None:
    """LiveKit opens that port on every address."""
    fixed = ("livekit_tcp_port",)
    assert PortPlan.of(signal=1, tcp=7881, udp="1", fixed=(), loopback=True).tcp is None
    assert PortPlan.of(signal=1, tcp=7881, udp="1", fixed=fixed, loopback=True).tcp is not None
    assert PortPlan.of(signal=1, tcp=7881, udp="1", fixed=(), loopback=False).tcp is not None


# --- several of us, and crashes of ours


async def test_two_supervisors_on_one_data_directory_share_one_server(
    embedded: Open, data_dir: Path, eventually: Eventually
) -> None:
    first = await ready(embedded())
    second = await ready(embedded())

    assert len(running(data_dir)) == 1
    assert await first.address() == await second.address()
    sid = await create_room(first, "shared")
    assert await create_room(second, "shared") == sid
    await second.aclose()
    assert len(running(data_dir)) == 1

    third = await ready(embedded())
    (pid,) = running(data_dir)
    await first.aclose()
    # The one that is left takes over.
    await eventually(lambda: running(data_dir) not in ([], [pid]))
    await eventually(lambda: answers(third), within=20)
    assert len(running(data_dir)) == 1


async def test_one_that_only_follows_starts_nothing(
    embedded: Open, data_dir: Path, eventually: Eventually
) -> None:
    """A worker beside the API uses its LiveKit; after it has gone there is none."""
    follower = embedded(follow_only=True)
    await follower.start()
    assert not await follower.wait_ready(0.5)
    assert not running(data_dir)

    leader = await ready(embedded())
    assert await follower.wait_ready(20)
    assert await follower.address() == await leader.address()
    await leader.aclose()
    await eventually(lambda: follower._address is None)
    assert not running(data_dir)
    assert "not running" in await refusal(follower)


async def test_two_that_start_at_once_start_one_server(embedded: Open, data_dir: Path) -> None:
    both = await asyncio.gather(*(ready(embedded()) for _ in range(3)))

    assert len(running(data_dir)) == 1
    assert len({(await livekit.address()).url for livekit in both}) == 1


class Supervisor:
    """The program of `livekit_supervisor`, in a process of its own."""

    def __init__(self, data_dir: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.livekit_supervisor", str(data_dir)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def end(self, how: signal.Signals) -> None:
        self.process.send_signal(how)
        self.process.communicate(timeout=30)


@pytest.fixture
def crashed(embedded: Open, data_dir: Path) -> str:
    """A supervisor was killed; its server is alone now. The server's address."""
    supervisor = Supervisor(data_dir)
    try:
        assert supervisor.url.startswith("http://")
    finally:
        supervisor.end(signal.SIGKILL)
    return supervisor.url


async def test_after_a_crash_of_ours_the_server_is_adopted(
    embedded: Open, data_dir: Path, crashed: str
) -> None:
    """Design 13: people stay in their call."""
    (pid,) = running(data_dir)
    with capture_logs() as logs:
        livekit = await ready(embedded())

    assert [entry["event"] for entry in logs] == ["adopted the LiveKit that was running"]
    assert running(data_dir) == [pid]
    assert (await livekit.address()).url == crashed
    sid = await create_room(livekit, "kept")
    assert await create_room(livekit, "kept") == sid
    await livekit.aclose()
    assert not running(data_dir)


async def test_an_adopted_server_that_dies_is_started_again(
    embedded: Open, data_dir: Path, crashed: str, eventually: Eventually
) -> None:
    (pid,) = running(data_dir)
    livekit = await ready(embedded())
    os.kill(pid, signal.SIGKILL)

    await eventually(lambda: running(data_dir) not in ([], [pid]))
    await eventually(lambda: answers(livekit), within=20)
    assert (await livekit.address()).url == crashed


async def test_a_server_with_other_settings_is_replaced(embedded: Open, data_dir: Path, crashed: str) -> None:
    (pid,) = running(data_dir)

    await ready(embedded(webhook_url="http://127.0.0.1:1/livekit/webhook"))

    assert pid not in running(data_dir)
    assert len(running(data_dir)) == 1


async def test_a_server_that_does_not_answer_is_replaced(
    embedded: Open, data_dir: Path, crashed: str
) -> None:
    (pid,) = running(data_dir)
    os.kill(pid, signal.SIGSTOP)

    await ready(embedded())

    assert pid not in running(data_dir)
    assert len(running(data_dir)) == 1


async def test_a_server_with_lost_keys_is_replaced(embedded: Open, data_dir: Path, crashed: str) -> None:
    (pid,) = running(data_dir)

    await ready(embedded(box=AesGcmSecretBox.parse(new_key_text())))

    assert pid not in running(data_dir)
    assert len(running(data_dir)) == 1


async def test_a_clean_stop_of_ours_ends_the_server(data_dir: Path, embedded: Open) -> None:
    supervisor = Supervisor(data_dir)
    try:
        assert len(running(data_dir)) == 1
    finally:
        supervisor.end(signal.SIGTERM)

    assert supervisor.process.returncode == 0
    assert not running(data_dir)


async def test_looking_from_outside_starts_and_writes_nothing(embedded: Open, data_dir: Path) -> None:
    """What `bax doctor` does beside a running server, and without one."""
    outside = embedded()
    before = await outside.status()
    assert before.problem == "the embedded LiveKit is not running"
    assert not (data_dir / "livekit").exists()

    livekit = await ready(embedded())
    beside = await outside.status()

    assert (beside.problem, beside.address) == (None, (await livekit.address()).url)
