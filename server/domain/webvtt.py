"""WebVTT as HLS wants it: one long file cut into segments on the video's clock (RFC 8216 3.5)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_TIMING = re.compile(r"^((?:\d+:)?\d\d:\d\d\.\d{3})[ \t]+-->[ \t]+((?:\d+:)?\d\d:\d\d\.\d{3})(.*)$")

# ISO 639-2 codes, as containers carry them, to the two-letter tags that players show a name for (BCP 47 2.2.1 wants
# the shortest). What is missing here stays a valid three-letter tag.
_SHORT_TAGS = dict(
    pair.split(":")
    for pair in [
        "ara:ar",
        "ben:bn",
        "bul:bg",
        "cat:ca",
        "ces:cs",
        "cze:cs",
        "chi:zh",
        "zho:zh",
        "dan:da",
        "deu:de",
        "ger:de",
        "ell:el",
        "gre:el",
        "eng:en",
        "est:et",
        "fas:fa",
        "per:fa",
        "fin:fi",
        "fra:fr",
        "fre:fr",
        "heb:he",
        "hin:hi",
        "hrv:hr",
        "hun:hu",
        "ind:id",
        "isl:is",
        "ice:is",
        "ita:it",
        "jpn:ja",
        "kor:ko",
        "lav:lv",
        "lit:lt",
        "may:ms",
        "msa:ms",
        "nld:nl",
        "dut:nl",
        "nor:no",
        "nob:nb",
        "pol:pl",
        "por:pt",
        "ron:ro",
        "rum:ro",
        "rus:ru",
        "slk:sk",
        "slo:sk",
        "slv:sl",
        "spa:es",
        "srp:sr",
        "swe:sv",
        "tam:ta",
        "tel:te",
        "tha:th",
        "tur:tr",
        "ukr:uk",
        "urd:ur",
        "vie:vi",
    ]
)


@dataclass(frozen=True, slots=True)
class Cue:
    """Times in seconds; `settings` as written after the end time, `text` may have several lines."""

    start_sec: float
    end_sec: float
    settings: str
    text: str


def parse_cues(document: str) -> tuple[Cue, ...]:
    """The cues of a WebVTT file in order; other blocks (styles, notes) and malformed cues are left out."""
    cues: list[Cue] = []
    for block in re.split(r"\n{2,}", document.replace("\r\n", "\n")):
        lines = block.strip("\n").split("\n")
        for number, line in enumerate(lines[:2]):
            match = _TIMING.match(line)
            text = "\n".join(lines[number + 1 :]).strip()
            if match and text:
                start, end = _seconds(match[1]), _seconds(match[2])
                if end > start:
                    cues.append(Cue(start, end, match[3].strip(), text))
                break
    return tuple(cues)


def cut_cues(
    cues: Sequence[Cue], *, length_sec: float, total_sec: float, start_pts: int
) -> list[tuple[str, float]]:
    """(document, duration) of each segment of `length_sec`; a cue is repeated in every segment that it touches.

    `start_pts` is the 90 kHz time stamp of media time 0 in the video segments.
    """
    segments: list[tuple[str, float]] = []
    start = 0.0
    while start < total_sec - 1e-6:
        end = min(start + length_sec, total_sec)
        inside = [cue for cue in cues if cue.start_sec < end and cue.end_sec > start]
        blocks = [
            f"WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:{start_pts},LOCAL:00:00:00.000",
            *(_render(c) for c in inside),
        ]
        segments.append(("\n\n".join(blocks) + "\n", end - start))
        start = end
    return segments


def language_tag(code: str) -> str:
    """BCP 47 of a container's language field, `und` for what is none."""
    lowered = code.strip().lower().replace("_", "-")
    if not re.fullmatch(r"[a-z]{2,3}(-[a-z0-9]{2,8})*", lowered):
        return "und"
    primary, _, rest = lowered.partition("-")
    return _SHORT_TAGS.get(primary, primary) + (f"-{rest}" if rest else "")


def _render(cue: Cue) -> str:
    timing = f"{_clock(cue.start_sec)} --> {_clock(cue.end_sec)} {cue.settings}".rstrip()
    return f"{timing}\n{cue.text}"


def _seconds(clock: str) -> float:
    minutes, _, rest = clock.rpartition(":")
    hours, _, minutes = minutes.rpartition(":")
    millis = int(rest.replace(".", "")) + int(minutes) * 60_000 + int(hours or 0) * 3_600_000
    return millis / 1000


def _clock(seconds: float) -> str:
    millis = round(seconds * 1000)
    return (
        f"{millis // 3_600_000:02d}:{millis // 60_000 % 60:02d}:{millis // 1000 % 60:02d}.{millis % 1000:03d}"
    )
