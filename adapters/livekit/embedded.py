"""Starts a livekit-server of our own, keeps it running, and takes over the one that a crash of ours left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog

from adapters.livekit import processes
from adapters.livekit.binary import find_binary, version_of
from adapters.livekit.configured import websocket_url
from adapters.livekit.log_tail import LogTail
from adapters.livekit.options import EmbeddedOptions, Timing
from adapters.livekit.ports import Ports, PortTaken
from adapters.livekit.server_config import (
    Binding,
    KeyPair,
    config_text,
    fingerprint,
    keys_variable,
    load_or_make_pair,
    load_pair,
    write_private,
)
from adapters.livekit.state import ServerRecord, read_record, try_lock
from adapters.livekit.twirp import TwirpClient
from server.errors import unavailable
from server.ports.livekit import LiveKitAddress, LiveKitStatus
from server.ports.secret_box import SecretBox, SecretsUnreadable

FOLDER = "livekit"
_log = structlog.get_logger("livekit")


@dataclass(slots=True)
class _Server:
    """A running server; `child` is None if it was adopted."""

    pid: int
    address: LiveKitAddress
    record: ServerRecord
    child: subprocess.Popen[bytes] | None


class _Failure(Exception):
    """It cannot be started or has ended; the message is for the operator."""


class _Hopeless(_Failure):
    """Only the operator can change that."""


class EmbeddedLiveKit:
    """`LiveKitSource` over a livekit-server in a process group of its own.

    Of several supervisors on one data directory the one that holds the lock runs the server; the others use it, and
    one of them takes over when the lock is free. The server outlives a crash of ours and is adopted if it was started
    with the same settings; `aclose` ends it.
    """

    def __init__(self, options: EmbeddedOptions, box: SecretBox, timing: Timing | None = None) -> None:
        """Raise ValueError for an address that cannot be used."""
        self._options = options
        self._box = box
        self._timing = timing or Timing()
        self._binding = Binding.of(options.http_host)
        self._public_url = websocket_url(options.public_url) if options.public_url else None
        self._folder = options.data_dir.resolve() / FOLDER
        self._config = self._folder / "livekit.yaml"
        self._state = self._folder / "server.json"
        self._client = TwirpClient()
        self._versions: dict[Path, str | None] = {}
        self._address: LiveKitAddress | None = None
        self._record: ServerRecord | None = None
        self._problem = "the embedded LiveKit is not started"
        self._decided = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to supervise; `wait_ready` tells when there is something to call."""
        self._problem = "the embedded LiveKit is starting"
        self._task = asyncio.create_task(self._supervise(), name="livekit")

    async def wait_ready(self, timeout_sec: float) -> bool:
        """True once it answers; False after the timeout, or earlier where waiting is no use (no binary)."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_sec):
                await self._decided.wait()
        return self._address is not None

    async def address(self) -> LiveKitAddress:
        """See `LiveKitSource.address`; never waits."""
        if self._address is None:
            raise unavailable(self._problem)
        return self._address

    async def status(self) -> LiveKitStatus:
        """Also before `start`, for commands beside a running server: then it only looks."""
        if self._task is None:
            await self._follow()
        address, problem = self._address, self._problem
        if address is not None:
            unwell = await self._client.healthy(address)
            problem = f"the embedded LiveKit is unwell: {unwell}" if unwell else ""
        binary = Path(self._record.binary) if self._record else self._found_binary()
        return LiveKitStatus(
            embedded=True,
            address=address.url if address else None,
            version=await self._version(binary) if binary else None,
            binary=str(binary) if binary else None,
            problem=problem or None,
        )

    @property
    def ports(self) -> Ports | None:
        """Those of the running server, or of the last one that is known."""
        return self._record.ports if self._record else None

    async def aclose(self) -> None:
        """Ends the server if it is ours to end."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        self._lost("the embedded LiveKit is stopped")
        await self._client.close()

    async def _supervise(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._folder / "lock").open("w") as lock:
            while self._options.follow_only or not try_lock(lock):
                await self._follow()
                await asyncio.sleep(self._timing.follow_every)
            self._lost("the embedded LiveKit is starting")
            try:
                await self._keep_running()
            finally:
                await asyncio.shield(asyncio.to_thread(processes.end_all, self._config))

    async def _keep_running(self) -> None:
        pause = self._timing.first_pause
        before: Ports | None = None
        while True:
            began = time.monotonic()
            try:
                pair = load_or_make_pair(self._options.data_dir, self._box)
                tail = LogTail(
                    self._folder / "livekit.log", [pair.api_secret, *self._options.further_keys.values()]
                )
                server = await self._adopt(pair, tail) or await self._launch(pair, tail, before)
                before = server.record.ports
                self._found(server.address, server.record)
                try:
                    await self._watch(server, tail)
                finally:
                    await self._end(server)
            except _Failure as failure:
                cause = str(failure)
                if isinstance(failure, _Hopeless):
                    self._decided.set()
            except OSError as error:
                cause = f"livekit-server cannot be started: {error.strerror or error}"
            if time.monotonic() - began > self._timing.steady_after:
                pause = self._timing.first_pause
            self._lost(cause)
            _log.error("no embedded LiveKit", cause=cause, next_try_sec=pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, self._timing.last_pause)

    async def _adopt(self, pair: KeyPair, tail: LogTail) -> _Server | None:
        """The server that a crash of ours left, if it is what we would start; any other of ours is ended."""
        left = processes.started_with(self._config)
        record = read_record(self._state)
        if len(left) == 1 and record is not None and self._is_wanted(record, pair):
            address = self._address_of(pair, record)
            if await self._client.healthy(address) is None:
                _log.info("adopted the LiveKit that was running", address=address.url, pid=left[0])
                tail.skip()
                return _Server(left[0], address, record, None)
        if left:
            _log.warning("ending the LiveKit that was left behind: it is not what is configured", pids=left)
            await asyncio.to_thread(processes.end_all, self._config)
        return None

    def _is_wanted(self, record: ServerRecord, pair: KeyPair) -> bool:
        plan = self._options.ports
        binary = self._found_binary()
        return (
            plan.allows(record.ports)
            and str(binary) == record.binary
            and record.fingerprint == self._fingerprint(pair, record.ports, record.binary)
        )

    async def _launch(self, pair: KeyPair, tail: LogTail, before: Ports | None) -> _Server:
        try:
            binary = find_binary(self._options.binary)
        except FileNotFoundError as error:
            raise _Hopeless(str(error)) from None
        try:
            ports = self._options.ports.choose(self._binding.host, self._binding.media_host, before)
        except PortTaken as taken:
            raise _Hopeless(f"the embedded LiveKit cannot listen: {taken}") from None
        self._tell_moves(ports)
        record = ServerRecord(
            f"http://{self._binding.reachable}:{ports.signal}",
            ports,
            self._fingerprint(pair, ports, str(binary)),
            str(binary),
            await self._version(binary),
        )
        write_private(self._config, self._config_text(pair, ports).encode())
        record.write(self._state)
        child = self._spawn(binary, pair, tail)
        server = _Server(child.pid, self._address_of(pair, record), record, child)
        try:
            await self._until_ready(server, tail)
        except BaseException:
            await self._end(server)
            raise
        _log.info("LiveKit is running", address=server.address.url, pid=child.pid, ports=asdict(ports))
        return server

    def _spawn(self, binary: Path, pair: KeyPair, tail: LogTail) -> subprocess.Popen[bytes]:
        # In the environment, where only this user can read them: not on the command line, and in no file.
        keys = {**self._options.further_keys, pair.api_key: pair.api_secret}
        descriptor = tail.open_for_writing()
        try:
            return subprocess.Popen(
                [binary, "--config", self._config],
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                cwd=self._folder,
                env={"PATH": os.environ.get("PATH", ""), "LIVEKIT_KEYS": keys_variable(keys)},
                start_new_session=True,
            )
        finally:
            os.close(descriptor)

    async def _until_ready(self, server: _Server, tail: LogTail) -> None:
        deadline = time.monotonic() + self._timing.start
        while (unwell := await self._client.healthy(server.address)) is not None:
            self._check_runs(server, tail)
            if time.monotonic() > deadline:
                raise _Failure(f"livekit-server did not get ready within {self._timing.start:g} s: {unwell}")
            await asyncio.sleep(self._timing.tick / 4)
        # Whatever answered must be the server that we started, not one that holds its port.
        self._check_runs(server, tail)

    async def _watch(self, server: _Server, tail: LogTail) -> None:
        """Raise _Failure when it has ended or answers no more."""
        well = asked = time.monotonic()
        while True:
            await asyncio.sleep(self._timing.tick)
            self._check_runs(server, tail)
            tail.poll()
            now = time.monotonic()
            if now - asked < self._timing.health_every:
                continue
            unwell = await self._client.healthy(server.address)
            asked = time.monotonic()
            if unwell is None:
                well = asked
            elif asked - well > self._timing.hung_after:
                raise _Failure(f"livekit-server did not answer for {asked - well:.0f} s ({unwell})")

    def _check_runs(self, server: _Server, tail: LogTail) -> None:
        if server.child is None:
            if not processes.runs(server.pid, self._config):
                raise _Failure(_with("livekit-server has ended", tail.last_words()))
        elif (status := server.child.poll()) is not None:
            how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
            raise _Failure(_with(f"livekit-server {how}", tail.last_words()))

    async def _end(self, server: _Server) -> None:
        """Shielded: a supervisor that is cancelled must not leave its server."""
        await asyncio.shield(asyncio.to_thread(_end, server, self._config))

    async def _follow(self) -> None:
        """Use the server of whoever holds the lock."""
        record = read_record(self._state)
        try:
            pair = load_pair(self._options.data_dir, self._box)
        except SecretsUnreadable:
            pair = None
        if record is None or pair is None:
            self._lost(self._why_no_server())
            return
        address = self._address_of(pair, record)
        unwell = await self._client.healthy(address)
        if unwell is None:
            self._found(address, record)
        else:
            self._record = record
            self._lost(f"{self._why_no_server()}: {unwell}")

    def _why_no_server(self) -> str:
        try:
            find_binary(self._options.binary)
        except FileNotFoundError as error:
            return str(error)
        follows = self._task is None or self._options.follow_only
        return f"the embedded LiveKit is {'not running' if follows else 'starting'}"

    def _found(self, address: LiveKitAddress, record: ServerRecord) -> None:
        self._address, self._record, self._problem = address, record, ""
        self._decided.set()

    def _lost(self, problem: str) -> None:
        self._address, self._problem = None, problem

    def _tell_moves(self, ports: Ports) -> None:
        plan = self._options.ports
        wishes = ((plan.signal, str(ports.signal)), (plan.tcp, str(ports.tcp)), (plan.udp, ports.udp))
        for wish, got in wishes:
            if wish is not None and wish.first and wish.text != got:
                _log.warning(
                    "a port of LiveKit is taken, using another",
                    setting=wish.variable,
                    port=wish.text,
                    instead=got,
                )

    def _address_of(self, pair: KeyPair, record: ServerRecord) -> LiveKitAddress:
        return LiveKitAddress(
            url=record.url,
            public_url=self._public_url or websocket_url(record.url),
            api_key=pair.api_key,
            api_secret=pair.api_secret,
        )

    def _config_text(self, pair: KeyPair, ports: Ports) -> str:
        return config_text(self._binding, ports, api_key=pair.api_key, webhook_url=self._options.webhook_url)

    def _fingerprint(self, pair: KeyPair, ports: Ports, binary: str) -> str:
        keys = keys_variable(dict(sorted(self._options.further_keys.items())))
        return fingerprint(pair, self._config_text(pair, ports), keys, binary)

    def _found_binary(self) -> Path | None:
        try:
            return find_binary(self._options.binary)
        except FileNotFoundError:
            return None

    async def _version(self, binary: Path) -> str | None:
        if binary not in self._versions:
            self._versions[binary] = await asyncio.to_thread(version_of, binary)
        return self._versions[binary]


def _end(server: _Server, config: Path) -> None:
    child = server.child
    if child is None:
        processes.end(server.pid, lambda: processes.runs(server.pid, config))
    else:
        # Not by its arguments: it may be something else that the operator named.
        processes.end(server.pid, lambda: child.poll() is None)


def _with(event: str, words: str) -> str:
    return f"{event}: {words}" if words else event
