"""The offers of LiveKit's subscriber connection, and our answers to them: receive everything, send nothing.

The codecs' lines go back as they came, so whatever a browser publishes is accepted in every profile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

# Redundant audio would need a decoder of its own; LiveKit sends plain Opus to who doesn't take it.
_UNWANTED = frozenset({"red", "ulpfec", "flexfec-03"})
_RTX = "rtx"


@dataclass(frozen=True, slots=True)
class Codec:
    """`name` in small letters, `clock_rate` in Hz; `nack`: lost packets can be asked for again."""

    name: str
    payload_type: int
    clock_rate: int
    nack: bool = False


@dataclass(frozen=True, slots=True)
class Media:
    """One section. `rtx_types` leads from payload types of retransmissions to those of what they repeat.

    `track_id` is LiveKit's sid of the track, `repairs` leads from SSRCs of retransmissions to those of media.
    """

    mid: str
    kind: str
    head: str
    active: bool
    track_id: str
    codecs: Mapping[int, Codec]
    rtx_types: Mapping[int, int]
    ssrcs: tuple[int, ...]
    repairs: Mapping[int, int]
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """`fingerprints` are pairs of algorithm and value."""

    username: str
    password: str
    fingerprints: tuple[tuple[str, str], ...]
    ice_lite: bool
    candidates: tuple[str, ...]
    media: tuple[Media, ...]


@dataclass(frozen=True, slots=True)
class LocalSide:
    """Our end of the transport; `candidates` without the `a=candidate:`."""

    username: str
    password: str
    fingerprints: tuple[tuple[str, str], ...]
    candidates: tuple[str, ...]


def parse_offer(text: str) -> Offer:
    """Raise ValueError for what is no offer of a bundled connection."""
    sections = _sections(text)
    everything = [line for section in sections for line in section]
    try:
        return Offer(
            username=_values(everything, "ice-ufrag")[0],
            password=_values(everything, "ice-pwd")[0],
            fingerprints=tuple(dict.fromkeys(_pair(value) for value in _values(everything, "fingerprint"))),
            ice_lite="a=ice-lite" in everything,
            candidates=tuple(dict.fromkeys(_values(everything, "candidate"))),
            media=tuple(_media(section) for section in sections[1:]),
        )
    except IndexError:
        raise ValueError("the offer lacks what a connection needs") from None


def answer(offer: Offer, local: LocalSide) -> str:
    """The answer that takes all of the offer."""
    lines = ["v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0"]
    lines.append("a=group:BUNDLE " + " ".join(media.mid for media in offer.media))
    lines.append("a=msid-semantic:WMS *")
    for media in offer.media:
        lines += _application(media) if media.kind == "application" else _receiving(media)
        lines += [f"a=ice-ufrag:{local.username}", f"a=ice-pwd:{local.password}"]
        lines += [f"a=fingerprint:{algorithm} {value}" for algorithm, value in local.fingerprints]
        lines += [f"a=candidate:{candidate}" for candidate in local.candidates]
        lines += ["a=end-of-candidates", "a=setup:active"]
    return "\r\n".join(lines) + "\r\n"


def _application(media: Media) -> list[str]:
    port = _values(media.lines, "sctp-port") or ["5000"]
    return [
        media.head,
        "c=IN IP4 0.0.0.0",
        f"a=mid:{media.mid}",
        f"a=sctp-port:{port[0]}",
        "a=max-message-size:65536",
    ]


def _receiving(media: Media) -> list[str]:
    taken = [str(kind) for kind in (*media.codecs, *media.rtx_types)]
    head = " ".join(media.head.split(" ")[:3])
    lines = [f"{head} {' '.join(taken)}", "c=IN IP4 0.0.0.0", f"a=mid:{media.mid}"]
    lines.append("a=recvonly" if media.active else "a=inactive")
    lines += ["a=rtcp-mux", "a=rtcp-rsize"]
    prefixes = tuple(f"a={name}:{kind} " for name in ("rtpmap", "fmtp", "rtcp-fb") for kind in taken)
    # No congestion feedback is offered back: a recorder wants the whole picture, and sends no estimates.
    return lines + [
        line
        for line in media.lines
        if line.startswith(prefixes) and "transport-cc" not in line and "goog-remb" not in line
    ]


def _media(section: Sequence[str]) -> Media:
    kind = section[0][2:].split(" ", 1)[0]
    if kind == "application":
        mid = _values(section, "mid")[0]
        return Media(
            mid,
            kind,
            section[0],
            active=True,
            track_id="",
            codecs={},
            rtx_types={},
            ssrcs=(),
            repairs={},
            lines=tuple(section),
        )
    codecs, rtx_types = _codecs(section)
    streams = [value.split(" ") for value in _values(section, "msid")]
    repairs = {}
    for value in _values(section, "ssrc-group"):
        words = value.split(" ")
        if words[0] == "FID" and len(words) == 3:
            repairs[int(words[2])] = int(words[1])
    ssrcs = dict.fromkeys(int(value.split(" ", 1)[0]) for value in _values(section, "ssrc"))
    return Media(
        mid=_values(section, "mid")[0],
        kind=kind,
        head=section[0],
        active="a=sendonly" in section or "a=sendrecv" in section,
        track_id=streams[0][-1] if streams else "",
        codecs=codecs,
        rtx_types=rtx_types,
        ssrcs=tuple(ssrc for ssrc in ssrcs if ssrc not in repairs),
        repairs=repairs,
        lines=tuple(section),
    )


def _codecs(section: Sequence[str]) -> tuple[dict[int, Codec], dict[int, int]]:
    parameters = dict(_numbered(_values(section, "fmtp")))
    nacked = {kind for kind, value in _numbered(_values(section, "rtcp-fb")) if value == "nack"}
    codecs: dict[int, Codec] = {}
    repeats: dict[int, int] = {}
    for kind, value in _numbered(_values(section, "rtpmap")):
        name, rate = value.split("/")[:2]
        if name.lower() == _RTX:
            repeats[kind] = int(parameters[kind].split("apt=", 1)[1].split(";", 1)[0])
        elif name.lower() not in _UNWANTED:
            codecs[kind] = Codec(name.lower(), kind, int(rate), kind in nacked)
    return codecs, {kind: of for kind, of in repeats.items() if of in codecs}


def _numbered(values: Iterable[str]) -> list[tuple[int, str]]:
    pairs = [value.split(" ", 1) for value in values]
    return [(int(pair[0]), pair[1]) for pair in pairs if len(pair) == 2 and pair[0].isdigit()]


def _sections(text: str) -> list[list[str]]:
    sections: list[list[str]] = [[]]
    for line in text.replace("\r\n", "\n").split("\n"):
        if line.startswith("m="):
            sections.append([])
        if line:
            sections[-1].append(line)
    return sections


def _values(lines: Iterable[str], name: str) -> list[str]:
    prefix = f"a={name}:"
    return [line[len(prefix) :] for line in lines if line.startswith(prefix)]


def _pair(value: str) -> tuple[str, str]:
    first, second = value.split(" ", 1)
    return first, second
