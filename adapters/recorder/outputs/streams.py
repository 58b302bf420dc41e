"""All destinations of a program, each with a thread, a bounded queue and retries of its own."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from adapters.recorder.encoders import Encoded
from adapters.recorder.outputs.link import AUTH_FAILED, FAILED, HungUp, Link, LinkError
from server.domain.egress import Destination
from server.ports.recorder import StreamReport

MAX_DESTINATIONS: Final = 50
PROVEN_SEC: Final = 2.0
GIVE_UP_SEC: Final = 30.0
QUEUE_SEC: Final = 5.0
DRAIN_SEC: Final = 2.0
_LIVE_BYTES: Final = 4096
_DELAYS: Final = (0.2, 0.5, 1.0, 2.0, 3.0)

_log = logging.getLogger(__name__)

Dial = Callable[[Destination], Link]
"""Makes a link; raises ValueError when the URL is none."""


class Stream:
    """One destination from start to end. Reports `active` once it takes media, then what changes."""

    def __init__(
        self,
        destination: Destination,
        dial: Dial,
        *,
        report: Callable[[StreamReport], None],
        ask_key: Callable[[], None],
        begins_at_key: bool,
        retries: bool,
    ) -> None:
        self.destination = destination
        self._dial = dial
        self._report = report
        self._ask_key = ask_key
        self._begins_at_key = begins_at_key
        self._may_retry = retries
        self._queue: deque[Encoded] = deque()
        self._changed = threading.Condition()
        self._accepting = False
        self._awaiting_key = True
        self._ending = False
        self._deadline = 0.0
        self._link: Link | None = None
        self._retries = 0
        # Proven: media was really taken once, so that a failure is the network's and not the address's.
        self._proven = False
        self._progress_at = 0.0
        self.failed = False
        self._thread = threading.Thread(target=self._run, name="stream", daemon=True)
        self._thread.start()

    # --- the composing thread's side; never waits

    def put(self, packet: Encoded) -> None:
        with self._changed:
            if not self._accepting or self._ending:
                return
            unfit = self._begins_at_key and not (packet.media == "video" and packet.key)
            if self._awaiting_key and unfit:
                return
            self._awaiting_key = False
            if self._queue and packet.start - self._queue[0].start > QUEUE_SEC:
                self._queue.clear()
                self._awaiting_key = True
                self._ask_key()
                return
            self._queue.append(packet)
            self._changed.notify()

    def end(self, *, drain_sec: float = DRAIN_SEC) -> None:
        """What is queued may still be sent for `drain_sec`."""
        with self._changed:
            self._ending = True
            self._deadline = time.monotonic() + drain_sec
            if not self._accepting and self._link is not None:
                self._link.interrupt()
            self._changed.notify()

    def join(self, timeout_sec: float) -> None:
        self._thread.join(timeout_sec)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    # --- its own thread

    def _run(self) -> None:
        try:
            self._stream_until_over()
        except Exception as error:  # noqa: BLE001 - a thread that dies unheard would look like a stream that goes on
            _log.error("a stream broke: %s", type(error).__name__)
            self._fail(LinkError(FAILED, "The stream broke."))
        finally:
            if self._link is not None:
                self._link.close(politely=False)

    def _stream_until_over(self) -> None:
        while not self._is_ending():
            try:
                self._link = self._dial(self.destination)
            except ValueError:
                self._fail(LinkError(FAILED, "The destination's URL is not valid."))
                return
            try:
                self._once(self._link)
            except LinkError as error:
                self._link.close(politely=False)
                if not self._is_ending() and not self._wait_to_retry(self._told(error)):
                    return
        self._tell("finished")

    def _told(self, error: LinkError) -> LinkError:
        """Many servers take any key, and hang up when they have looked at it."""
        if self._proven or not isinstance(error, HungUp):
            return error
        return LinkError(AUTH_FAILED, f"{error} The application or the stream key may be wrong.")

    def _is_ending(self) -> bool:
        with self._changed:
            return self._ending

    def _once(self, link: Link) -> None:
        """One connection, until it breaks (LinkError) or the stream ends."""
        link.open()
        opened = time.monotonic()
        self._tell("active")
        with self._changed:
            self._queue.clear()
            self._awaiting_key = True
            self._accepting = True
        self._ask_key()
        seen = link.delivered()
        try:
            while not self._is_over():
                packet = self._next()
                if packet is None:
                    link.keep()
                    # A pause, in which a server may hang up: that it got nothing is no fault of its own.
                    self._progress_at = time.monotonic()
                    continue
                link.send(packet)
                sent, now = link.delivered(), time.monotonic()
                if sent - seen >= _LIVE_BYTES and now - opened >= PROVEN_SEC:
                    seen, self._proven, self._progress_at = sent, True, now
        finally:
            with self._changed:
                self._accepting = False
        link.close(politely=True)

    def _next(self) -> Encoded | None:
        """None: nothing came for a while."""
        with self._changed:
            if not self._queue and not self._ending:
                self._changed.wait(1.0)
            return self._queue.popleft() if self._queue else None

    def _is_over(self) -> bool:
        """Ended, and what was queued is sent or its time is up."""
        with self._changed:
            return self._ending and (not self._queue or time.monotonic() > self._deadline)

    def _wait_to_retry(self, error: LinkError) -> bool:
        now = time.monotonic()
        if not (self._may_retry and self._proven) or now - self._progress_at >= GIVE_UP_SEC:
            self._fail(error)
            return False
        # Half to all of the step, so that many destinations of one server do not come back at once.
        delay = _DELAYS[min(self._retries, len(_DELAYS) - 1)] * random.uniform(0.5, 1.0)  # noqa: S311
        self._retries += 1
        self._tell("reconnecting", error)
        with self._changed:
            self._changed.wait_for(lambda: self._ending, min(delay, GIVE_UP_SEC))
        return True

    def _fail(self, error: LinkError) -> None:
        self.failed = True
        self._tell("failed", error)

    def _tell(self, state: str, error: LinkError | None = None) -> None:
        self._report(
            StreamReport(
                self.destination.id,
                state,
                time.time_ns(),
                str(error) if error else "",
                error.code if error else "",
                self._retries,
            )
        )


class Streams:
    """The wanted set of destinations; a failed one stays failed until it is taken out and wanted again."""

    def __init__(
        self,
        dial: Dial,
        *,
        report: Callable[[StreamReport], None],
        begins_at_key: bool,
        retries: bool = True,
    ) -> None:
        self._dial = dial
        self._report = report
        self._begins_at_key = begins_at_key
        self._retries = retries
        self._streams: dict[str, Stream] = {}
        self._leaving: list[Stream] = []
        self._refused: set[str] = set()
        self._key_asked = threading.Event()

    def want(self, destinations: Sequence[Destination]) -> None:
        """Starts and ends what differs, and refuses what is too many. Never waits."""
        self._refuse(destinations[MAX_DESTINATIONS:])
        wanted = {destination.id: destination for destination in destinations[:MAX_DESTINATIONS]}
        for identity, stream in list(self._streams.items()):
            if wanted.get(identity) != stream.destination:
                stream.end(drain_sec=0.0)
                self._leaving.append(self._streams.pop(identity))
        self._leaving = [stream for stream in self._leaving if stream.alive]
        for identity, destination in wanted.items():
            if identity not in self._streams:
                self._streams[identity] = Stream(
                    destination,
                    self._dial,
                    report=self._report,
                    ask_key=self._key_asked.set,
                    begins_at_key=self._begins_at_key,
                    retries=self._retries,
                )

    def _refuse(self, destinations: Sequence[Destination]) -> None:
        error = f"More than {MAX_DESTINATIONS} destinations."
        for destination in destinations:
            if destination.id not in self._refused:
                self._report(StreamReport(destination.id, "failed", time.time_ns(), error, FAILED))
        self._refused = {destination.id for destination in destinations}

    def put(self, packet: Encoded) -> None:
        for stream in self._streams.values():
            stream.put(packet)

    def take_key_request(self) -> bool:
        """Whether a key frame was asked for since the last call."""
        if not self._key_asked.is_set():
            return False
        self._key_asked.clear()
        return True

    @property
    def running(self) -> int:
        """Destinations that have not failed."""
        return sum(not stream.failed for stream in self._streams.values())

    def close(self, timeout_sec: float = DRAIN_SEC + 1.0) -> None:
        """Ends all; returns after `timeout_sec` at the latest."""
        everyone = [*self._streams.values(), *self._leaving]
        for stream in everyone:
            stream.end()
        deadline = time.monotonic() + timeout_sec
        for stream in everyone:
            stream.join(max(0.0, deadline - time.monotonic()))
        self._streams.clear()
