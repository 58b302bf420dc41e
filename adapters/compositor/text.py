"""Sets names and titles in any script: Noto where its packages are, else the system's fonts, else Pillow's own."""

from __future__ import annotations

import importlib.util
import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_CJK = "NotoSansCJK-VF.otf.ttc"
# In this order a character looks for a font that has it; a file counts where it is met first.
_PACKAGES = (
    ("manimgx_fonts", "NotoSans[[]*.ttf"),
    ("manimgx_fonts_cjk", _CJK),
    ("manimgx_fonts", "NotoSans[A-RT-Z]*[[]*.ttf"),
    ("manimgx_fonts", "NotoEmoji*.ttf"),
    ("manimgx_fonts", "NotoSansS*.ttf"),
)
_SYSTEM_FOLDERS = (
    "/usr/share/fonts", "/usr/local/share/fonts", "/System/Library/Fonts", "/Library/Fonts", "C:/Windows/Fonts",
)  # fmt: skip
_SYSTEM_FONTS = (
    "NotoSans-Regular.ttf", "DejaVuSans.ttf", "LiberationSans-Regular.ttf", "Arial.ttf", "arial.ttf",
    "NotoSansCJK-Regular.ttc", "NotoEmoji-Regular.ttf", "Arial Unicode.ttf", "seguisym.ttf",
)  # fmt: skip
# Faces of Noto Sans CJK: the same characters in the forms of Japan, Korea and mainland China.
_JAPANESE, _KOREAN, _CHINESE = 0, 1, 2
_KANA = range(0x3040, 0x3100)
_HANGUL = (range(0x1100, 0x1200), range(0x3130, 0x3190), range(0xAC00, 0xD7B0))
# A code point that no font has.
_NOWHERE = "\uffff"
_JOINING = frozenset(("Mn", "Me", "Mc", "Cf", "Sk"))
_ELLIPSIS = "…"
_WEIGHT = 550
_FINE = 4
# Free pixels at both ends of a line's mask: strokes may reach beyond a letter's advance.
MARGIN = 2
# Where letters stand in a line's mask, as a part of its height: their middle is then in the middle of the mask.
BASELINE = 0.68


@dataclass(frozen=True, slots=True)
class Face:
    """A font file; `index` is the face in a collection."""

    path: str
    index: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """Characters that one font draws together, so that letters join and ligatures form."""

    text: str
    face: Face | None


@lru_cache(maxsize=1)
def faces() -> tuple[Face, ...]:
    """Every font at hand, the one for Latin, Greek and Cyrillic first."""
    folders = [Path(folder) for folder in _SYSTEM_FOLDERS]
    return find_faces(_PACKAGES, (*folders, Path.home() / ".fonts"))


def find_faces(packages: Sequence[tuple[str, str]], folders: Sequence[Path]) -> tuple[Face, ...]:
    """Fonts by package and pattern, in that order, then those of the system's that are known to be good."""
    found: dict[Path, None] = {}
    for package, pattern in packages:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            found.update(dict.fromkeys(sorted(Path(spec.origin).parent.glob(pattern))))
    files = {path.name: path for folder in folders if folder.is_dir() for path in folder.rglob("*.tt[cf]")}
    found.update(dict.fromkeys(files[name] for name in _SYSTEM_FONTS if name in files))
    return tuple(Face(str(path)) for path in found)


@lru_cache(maxsize=64)
def font(face: Face | None, size: int) -> Font:
    """A face at a size in pixels; None is Pillow's own font."""
    if face is None:
        return ImageFont.load_default(size)
    made = ImageFont.truetype(face.path, size, index=face.index)
    try:
        axes = made.get_variation_axes()
    except OSError:  # not a variable font
        return made
    values = [
        min(_WEIGHT, axis["maximum"] or _WEIGHT) if _is_weight(axis) else axis["default"] for axis in axes
    ]
    made.set_variation_by_axes([float(value or 0) for value in values])
    return made


def _is_weight(axis: ImageFont.Axis) -> bool:
    return axis["name"] == b"Weight"


@lru_cache(maxsize=4096)
def has(face: Face, character: str) -> bool:
    """Whether a font has a character: what it draws differs from what it draws for one it cannot have."""
    made = font(face, 24)
    drawn, missing = made.getmask(character), made.getmask(_NOWHERE)
    return drawn.size != missing.size or bytes(drawn) != bytes(missing)


def _face_for(character: str, region: int) -> Face | None:
    for face in faces():
        if has(face, character):
            return Face(face.path, region) if face.path.endswith(_CJK) else face
    return faces()[0] if faces() else None


def runs(text: str) -> list[Run]:
    """Split into runs of one font each, in the order they stand from left to right."""
    region = _region(text)
    pieces: list[tuple[str, Face | None]] = []
    for character in text:
        if pieces and unicodedata.category(character) in _JOINING:
            pieces[-1] = (pieces[-1][0] + character, pieces[-1][1])
        elif character.isspace():
            pieces.append((" ", _spaced_by(pieces[-1][1] if pieces else None)))
        else:
            pieces.append((character, _face_for(character, region)))
    merged: list[Run] = []
    for piece, face in pieces:
        if merged and merged[-1].face == face:
            merged[-1] = Run(merged[-1].text + piece, face)
        else:
            merged.append(Run(piece, face))
    return _spaces_apart(merged)[::-1] if _runs_right_to_left(text) else merged


def _spaced_by(before: Face | None) -> Face | None:
    """Whose space follows a font's characters: its own, but an emoji's is as wide as an emoji."""
    if before is None or "Emoji" in before.path:
        return faces()[0] if faces() else None
    return before


def _spaces_apart(merged: Sequence[Run]) -> list[Run]:
    """A space between two fonts on its own, so that it stays between them when their order is turned."""
    apart: list[Run] = []
    for run in merged:
        body = run.text.rstrip()
        if body:
            apart.append(Run(body, run.face))
        if body != run.text:
            apart.append(Run(run.text[len(body) :], run.face))
    return apart


def _region(text: str) -> int:
    points = [ord(character) for character in text]
    if any(point in _KANA for point in points):
        return _JAPANESE
    return _KOREAN if any(point in block for block in _HANGUL for point in points) else _CHINESE


def _runs_right_to_left(text: str) -> bool:
    strong = (unicodedata.bidirectional(character) for character in text)
    return next((kind for kind in strong if kind in {"L", "R", "AL"}), "L") != "L"


def measure(text: str, size: int) -> int:
    """The width of a line in pixels."""
    large = size * _FINE
    return math.ceil(sum(font(run.face, large).getlength(run.text) for run in runs(text)) / _FINE)


def shorten(text: str, size: int, width: int) -> str:
    """As much of `text` as fits into `width` pixels, with an ellipsis if that is not all; empty if nothing does."""
    clean = " ".join("".join(_printable(text)).split())
    if measure(clean, size) <= width:
        return clean
    kept, too_many = 0, len(clean)
    while too_many - kept > 1:
        middle = (kept + too_many) // 2
        if measure(clean[:middle].rstrip() + _ELLIPSIS, size) <= width:
            kept = middle
        else:
            too_many = middle
    while 0 < kept < len(clean) and unicodedata.category(clean[kept]) in _JOINING:
        kept -= 1
    return clean[:kept].rstrip() + _ELLIPSIS if kept else ""


def _printable(text: str) -> Iterator[str]:
    for character in text:
        if unicodedata.category(character) == "Cc" or character in "\u2028\u2029":
            yield " "
        elif unicodedata.bidirectional(character) not in {
            "LRE",
            "RLE",
            "LRO",
            "RLO",
            "PDF",
            "LRI",
            "RLI",
            "FSI",
            "PDI",
        }:
            yield character


def line(text: str, size: int) -> Image.Image:
    """One line as a mask (mode L), `2 × size` high with the letters standing at `BASELINE` of the height.

    It is drawn larger and reduced: small letters keep their shapes and distances instead of snapping to pixels.
    """
    large, height = size * _FINE, 2 * size
    parts = runs(text)
    widths = [font(run.face, large).getlength(run.text) for run in parts]
    width = math.ceil(sum(widths) / _FINE) + 2 * MARGIN
    mask = Image.new("L", (width * _FINE, height * _FINE), 0)
    pen = ImageDraw.Draw(mask)
    x = float(MARGIN * _FINE)
    for run, advance in zip(parts, widths, strict=True):
        pen.text((x, BASELINE * height * _FINE), run.text, font=font(run.face, large), fill=255, anchor="ls")
        x += advance
    return mask.reduce(_FINE)
