"""Packets in their order: what is missing is asked for again, and given up after a while."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.passthrough.rtp import Packet, Unwrapper

# LiveKit answers for the same packet three times, at least 100 ms apart.
ASK_AGAIN_SEC = 0.11
GIVE_UP_SEC = 1.0
# More than this at once is another beginning, not a loss.
_JUMP = 3000
# Reordering on the way is no loss yet.
_PATIENCE_SEC = 0.01


@dataclass(slots=True)
class _Missing:
    since: float
    ask_at: float


class ReorderBuffer:
    """One stream of packets. Times are seconds of a monotonic clock; with `nack` false nothing can be asked for again."""

    def __init__(self, *, nack: bool) -> None:
        self._nack = nack
        self._sequences = Unwrapper(16)
        self._next: int | None = None
        self._held: dict[int, Packet] = {}
        self._missing: dict[int, _Missing] = {}
        self._skipped = 0
        self.highest = 0
        self.received = 0
        self.lost = 0

    @property
    def waiting(self) -> bool:
        """Whether `service` must be called soon."""
        return bool(self._missing)

    def add(self, packet: Packet, now: float) -> list[Packet]:
        """What is in order now."""
        sequence = self._sequences.unwrap(packet.sequence)
        packet.sequence = sequence
        self.received += 1
        self.highest = max(self.highest, sequence)
        if self._next is None:
            self._next = sequence
        if sequence == self._next and not self._held:
            self._next += 1
            return [self._released(packet)]
        if sequence < self._next or sequence in self._held:
            return []
        if sequence - self._next > _JUMP:
            return self._jump(packet)
        self._held[sequence] = packet
        self._missing.pop(sequence, None)
        first_unknown = max(self._next, max(self._missing, default=-1) + 1)
        for absent in range(first_unknown, sequence):
            if absent not in self._held:
                self._missing[absent] = _Missing(now, now + _PATIENCE_SEC)
        return self._run()

    def service(self, now: float) -> tuple[list[int], list[Packet]]:
        """The numbers to ask for now, and what is in order because something was given up."""
        ask = []
        gone = [absent for absent, known in self._missing.items() if now - known.since > GIVE_UP_SEC]
        for absent in gone:
            del self._missing[absent]
        for absent, known in self._missing.items():
            if self._nack and now >= known.ask_at:
                known.ask_at = now + ASK_AGAIN_SEC
                ask.append(absent)
        return ask, self._run() if gone else []

    def flush(self) -> list[Packet]:
        """Everything that is held, with its gaps; at the end."""
        self._missing.clear()
        return self._run()

    def _run(self) -> list[Packet]:
        out = []
        assert self._next is not None
        while self._held:
            packet = self._held.pop(self._next, None)
            if packet is not None:
                out.append(self._released(packet))
            elif self._next in self._missing:
                break
            else:
                self._skipped += 1
                self.lost += 1
            self._next += 1
        return out

    def _jump(self, packet: Packet) -> list[Packet]:
        out = self.flush()
        self._next = packet.sequence + 1
        self._skipped += 1
        return [*out, self._released(packet)]

    def _released(self, packet: Packet) -> Packet:
        packet.lost, self._skipped = self._skipped, 0
        return packet
