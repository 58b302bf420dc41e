"""Which ports the embedded LiveKit gets: those asked for, or free ones where a default is taken."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection
from dataclasses import dataclass

_ATTEMPTS = 20


class PortTaken(Exception):
    """A port that the operator chose is in use; the message names its variable."""


@dataclass(frozen=True, slots=True)
class PortWish:
    """`first` to `last` (one port: the same number); 0 is any free one. `fixed`: asked for, so never replaced."""

    variable: str
    first: int
    last: int
    fixed: bool = False

    @classmethod
    def parse(cls, variable: str, text: str | int, *, fixed: bool = False) -> PortWish:
        """`7882` or `50000-50100`. Raise ValueError naming the variable."""
        first, _, last = str(text).replace(" ", "").partition("-")
        numbers = [first, last or first]
        if not all(number.isascii() and number.isdecimal() and int(number) <= 65535 for number in numbers):
            raise ValueError(f"{variable}: must be a port like 7882 or a range like 50000-50100")
        wish = cls(variable, int(numbers[0]), int(numbers[1]), fixed)
        if wish.last < wish.first or (wish.first == 0 and wish.last):
            raise ValueError(f"{variable}: the range must end above its start")
        return wish

    @property
    def text(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


@dataclass(frozen=True, slots=True)
class Ports:
    """What one livekit-server uses; `tcp` None: no media over TCP; `udp` is a number or a range."""

    signal: int
    tcp: int | None
    udp: str


@dataclass(frozen=True, slots=True)
class PortPlan:
    """What is asked for. `tcp` None: none."""

    signal: PortWish
    tcp: PortWish | None
    udp: PortWish

    @classmethod
    def of(cls, *, signal: int, tcp: int, udp: str, fixed: Collection[str], loopback: bool) -> PortPlan:
        """From the settings `livekit_port`, `livekit_tcp_port` and `livekit_udp_ports`; `fixed` names those given.

        LiveKit opens its TCP media port on every address: on loopback there is none unless it was asked for.
        Raise ValueError naming the variable.
        """
        tcp_given = "livekit_tcp_port" in fixed
        return cls(
            signal=PortWish.parse("BAX_LIVEKIT_PORT", signal, fixed="livekit_port" in fixed),
            tcp=PortWish.parse("BAX_LIVEKIT_TCP_PORT", tcp, fixed=tcp_given)
            if tcp_given or not loopback
            else None,
            udp=PortWish.parse("BAX_LIVEKIT_UDP_PORTS", udp, fixed="livekit_udp_ports" in fixed),
        )

    def allows(self, ports: Ports) -> bool:
        """Whether a server on these ports is what is asked for, given that defaults may be moved."""
        return (
            _fits(self.signal, str(ports.signal))
            and (ports.tcp is None) == (self.tcp is None)
            and (self.tcp is None or _fits(self.tcp, str(ports.tcp)))
            and _fits(self.udp, ports.udp)
        )

    def choose(self, host: str, media_host: str, before: Ports | None) -> Ports:
        """Those in use `before` if they are free, else those wished, else free ones. Raise PortTaken."""
        used: set[int] = set()
        last = before or Ports(0, None, "0")
        signal = _choose(self.signal, last.signal, socket.SOCK_STREAM, host, used)
        tcp = _choose(self.tcp, last.tcp or 0, socket.SOCK_STREAM, "", used) if self.tcp else None
        udp = _choose(self.udp, last.udp, socket.SOCK_DGRAM, media_host, set())
        return Ports(int(signal), int(tcp) if tcp else None, udp)


def _fits(wish: PortWish, port: str) -> bool:
    return wish.text == port or not wish.fixed or wish.first == 0


def _choose(wish: PortWish, before: str | int, kind: socket.SocketKind, host: str, used: set[int]) -> str:
    for text in (str(before), wish.text):
        candidate = PortWish.parse(wish.variable, text)
        if candidate.first and _are_free(candidate, kind, host) and candidate.first not in used:
            used.add(candidate.first)
            return text
    if wish.fixed and wish.first:
        raise PortTaken(f"port {wish.text} is taken by another program; choose another with {wish.variable}")
    for _ in range(_ATTEMPTS):
        with socket.socket(_family(host), kind) as probe:
            probe.bind((host, 0))
            number: int = probe.getsockname()[1]
        if number not in used:
            used.add(number)
            return str(number)
    raise PortTaken(f"no free port instead of {wish.text} ({wish.variable})")


def _are_free(wish: PortWish, kind: socket.SocketKind, host: str) -> bool:
    # LiveKit binds one port of a range per core.
    last = min(wish.last, wish.first + (os.cpu_count() or 1) - 1)
    return all(_is_free(number, kind, host) for number in range(wish.first, last + 1))


def _is_free(number: int, kind: socket.SocketKind, host: str) -> bool:
    with socket.socket(_family(host), kind) as probe:
        if kind is socket.SOCK_STREAM:
            # As Go does; without it a port would look taken for a minute after its server ended.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, number))
        except OSError:
            return False
        return True


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
