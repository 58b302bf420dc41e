"""Draws what no camera delivers: names, the tile of a camera that is off, the empty stage, and the card of a pause."""

from __future__ import annotations

import unicodedata

import numpy as np
from PIL import Image, ImageDraw

from adapters.compositor import text
from adapters.compositor.colours import (
    LABEL,
    MUTED,
    Rgb,
    Theme,
    add_offset,
    lighter,
    mix,
    of_person,
    to_yuv,
    yuv,
)
from adapters.compositor.overlay import Patch, patch
from adapters.compositor.picture import Planes, crop, fill, i420, new_planes, paste
from server.domain.layout import Rect

# Shapes are drawn this much larger and then reduced, for smooth edges.
_FINE = 4
_LABEL_OPACITY = 0.62
_MIN_LABEL_HEIGHT = 48
_WHITE: Rgb = (255, 255, 255)
# Initials are at most so wide in their disc.
_LETTERS_PART = 0.66
# Scripts whose one character says what two letters say elsewhere.
_DENSE = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL")


def label(name: str, muted: bool, width: int, height: int) -> Patch | None:
    """The name and the sign of a muted microphone at the lower left of a `width` × `height` tile, if they fit."""
    if height < _MIN_LABEL_HEIGHT:
        return None
    size = round(height * 0.03 + 8)
    padding, inset = round(size * 0.55), _even(size * 0.7)
    icon = round(size * 1.1) if muted else 0
    gap = round(size * 0.3) if muted else 0
    room = width - 2 * inset - 2 * padding - icon - gap
    shown = text.shorten(name, size, room) if room > 0 else ""
    if not shown and not muted:
        return None
    letters = text.measure(shown, size) if shown else 0
    across = _even(2 * padding + icon + (gap + letters if shown else 0) + 1)
    down = _even(size * 1.75)
    if across > width - 2 * inset:
        return None
    ink = _at(text.line(shown, size) if shown else None, across, down, padding + icon + gap - text.MARGIN)
    sign = _at(_microphone(icon) if muted else None, across, down, padding)
    pill = _rounded(across, down, down * 0.32) * _LABEL_OPACITY
    stays = (1 - pill) * (1 - ink) * (1 - sign)
    added = _painted(pill * (1 - ink) * (1 - sign), LABEL) + _painted(ink, _WHITE) + _painted(sign, MUTED)
    return patch(inset, height - inset - down, stays, added)


def _painted(alpha: np.ndarray, colour: Rgb) -> np.ndarray:
    painted: np.ndarray = alpha[:, :, None] * np.array(colour, np.float32)
    return painted


def _at(mask: Image.Image | None, across: int, down: int, x: int) -> np.ndarray:
    """A mask at `x` and half-way down an area, as 0–1."""
    placed = Image.new("L", (across, down), 0)
    if mask is not None:
        placed.paste(mask, (x, (down - mask.height) // 2))
    return np.asarray(placed, dtype=np.float32) / 255


def _rounded(width: int, height: int, radius: float) -> np.ndarray:
    fine = Image.new("L", (width * _FINE, height * _FINE), 0)
    ImageDraw.Draw(fine).rounded_rectangle(
        (0, 0, width * _FINE - 1, height * _FINE - 1), radius=radius * _FINE, fill=255
    )
    return np.asarray(fine.resize((width, height), Image.Resampling.BOX), dtype=np.float32) / 255


def _microphone(size: int) -> Image.Image:
    """A crossed-out microphone, as a mask."""
    fine = size * _FINE
    mask = Image.new("L", (fine, fine), 0)
    pen = ImageDraw.Draw(mask)

    def at(*parts: float) -> tuple[float, ...]:
        return tuple(part * fine for part in parts)

    line = max(1, round(fine * 0.09))
    pen.rounded_rectangle(at(0.36, 0.04, 0.64, 0.60), radius=fine * 0.14, fill=255)
    pen.arc(at(0.22, 0.20, 0.78, 0.76), 0, 180, fill=255, width=line)
    pen.line(at(0.5, 0.74, 0.5, 0.94), fill=255, width=line)
    pen.line(at(0.34, 0.94, 0.66, 0.94), fill=255, width=line)
    pen.line(at(0.16, 0.08, 0.92, 0.90), fill=0, width=line * 3)
    pen.line(at(0.12, 0.10, 0.86, 0.90), fill=255, width=line)
    return mask.resize((size, size), Image.Resampling.BOX)


def initials(name: str) -> str:
    """One or two characters that stand for a name: first and last word, or the first of a dense script."""
    words = [word for word in ("".join(c for c in part if _stands(c)) for part in name.split()) if word]
    if not words:
        return ""
    first = _capital(words[0])
    dense = unicodedata.name(words[0][0], "").startswith(_DENSE)
    if dense or len(words) == 1 or unicodedata.bidirectional(words[0][0]) in {"R", "AL"}:
        return first
    return first + _capital(words[-1])


def _stands(character: str) -> bool:
    return unicodedata.category(character)[0] in "LNM"


def _capital(word: str) -> str:
    end = 1
    while end < len(word) and unicodedata.category(word[end])[0] == "M":
        end += 1
    return word[:end].upper()[:end]


def avatar(name: str, identity: str, width: int, height: int, theme: Theme) -> Planes:
    """The tile of somebody without a camera: their colour and their initials."""
    colour = of_person(identity)
    ground = mix(colour, theme.background, theme.tint)
    planes = new_planes(width, height)
    fill(planes, yuv(ground))
    across = _even(min(min(width, height) * 0.46, 0.36 * max(width, height)))
    if across < 8:
        return planes
    face = Image.new("RGB", (across, across), ground)
    face.paste(_shaded(colour, across), (0, 0), _disc(across))
    letters = initials(name) or initials(identity)
    if letters:
        size = round(across * (0.40 if len(letters) > 1 else 0.46))
        size = min(size, max(1, round(size * across * _LETTERS_PART / max(1, text.measure(letters, size)))))
        line = text.line(letters, size)
        face.paste(_WHITE, ((across - line.width) // 2, (across - line.height) // 2), line)
    else:
        _silhouette(face, across)
    paste(
        crop(planes, Rect(_even((width - across) / 2), _even((height - across) / 2), across, across)),
        i420(face),
    )
    return planes


def _disc(across: int) -> Image.Image:
    fine = Image.new("L", (across * _FINE, across * _FINE), 0)
    ImageDraw.Draw(fine).ellipse((0, 0, across * _FINE - 1, across * _FINE - 1), fill=255)
    return fine.resize((across, across), Image.Resampling.BOX)


def _shaded(colour: Rgb, across: int) -> Image.Image:
    """The colour, a little lighter at the top."""
    top, bottom = np.array(lighter(colour, 0.14)), np.array(mix(colour, (0, 0, 0), 0.08))
    part = np.linspace(0, 1, across, dtype=np.float32)[:, None, None]
    rows = np.broadcast_to(top + (bottom - top) * part, (across, across, 3))
    return Image.fromarray(rows.round().astype(np.uint8))


def _silhouette(face: Image.Image, across: int) -> None:
    mask = Image.new("L", (across * _FINE, across * _FINE), 0)
    pen = ImageDraw.Draw(mask)
    scale = across * _FINE
    pen.ellipse((scale * 0.36, scale * 0.22, scale * 0.64, scale * 0.50), fill=255)
    pen.ellipse((scale * 0.22, scale * 0.56, scale * 0.78, scale * 1.12), fill=255)
    small = mask.resize((across, across), Image.Resampling.BOX)
    inside = np.minimum(np.asarray(small), np.asarray(_disc(across)))
    face.paste(_WHITE, (0, 0), Image.fromarray(inside))


def empty_stage(width: int, height: int, theme: Theme) -> Planes:
    """What a room nobody is in looks like: a soft light, and three empty seats in it."""
    planes = _glow(width, height, theme)
    seat = _even(min(width, height) * 0.09)
    if seat < 8:
        return planes
    step = _even(seat * 1.5)
    left, top = _even((width - seat - 2 * step) / 2), _even((height - seat) / 2)
    ring, disc = (np.asarray(mask, dtype=np.float32) / 255 for mask in (_ring(seat), _disc(seat)))
    for index, strength in enumerate((0.5, 1.0, 0.5)):
        alpha = (ring * 0.34 + disc * 0.07) * strength
        _tinted(planes, Rect(left + index * step, top, seat, seat), alpha, theme.ink)
    return planes


def _ring(across: int) -> Image.Image:
    fine = across * _FINE
    mask = Image.new("L", (fine, fine), 0)
    line = max(_FINE * 2, round(fine * 0.035))
    ImageDraw.Draw(mask).ellipse((0, 0, fine - 1, fine - 1), outline=255, width=line)
    return mask.resize((across, across), Image.Resampling.BOX)


def card(caption: str, width: int, height: int, theme: Theme) -> Planes:
    """What is shown during a pause: the sign for it, and below it the caption."""
    planes = _glow(width, height, theme)
    sign = _even(min(width, height) * 0.16)
    top = _even(height * 0.5 - sign * (0.72 if caption else 0.5))
    mask = np.asarray(_pause(sign), dtype=np.float32) / 255
    _tinted(planes, Rect(_even((width - sign) / 2), top, sign, sign), mask * 0.92, theme.ink)
    size = max(10, round(min(width, height) * 0.05))
    shown = text.shorten(caption, size, round(width * 0.86))
    if shown:
        line = text.line(shown, size)
        across, down = _even(line.width + 1), line.height
        under = Rect(
            _even((width - across) / 2), min(_even(top + sign + size / 2), _even(height) - down), across, down
        )
        _tinted(planes, under, _at(line, across, down, 0) * 0.92, theme.ink)
    return planes


def _pause(across: int) -> Image.Image:
    fine = across * _FINE
    mask = Image.new("L", (fine, fine), 0)
    pen = ImageDraw.Draw(mask)
    pen.ellipse((0, 0, fine - 1, fine - 1), outline=255, width=max(_FINE * 2, round(fine * 0.045)))
    for left in (0.35, 0.55):
        pen.rounded_rectangle(
            (fine * left, fine * 0.32, fine * (left + 0.1), fine * 0.68), radius=fine * 0.03, fill=255
        )
    return mask.resize((across, across), Image.Resampling.BOX)


def _glow(width: int, height: int, theme: Theme) -> Planes:
    """From the glow in the middle to the background at the edges, dithered so that no steps are seen."""
    planes = new_planes(width, height)
    noise = np.random.default_rng(7)
    centre, edge = (to_yuv(np.array(colour, np.float32)) for colour in (theme.glow, theme.background))
    for index, plane in enumerate(planes):
        rows, columns = plane.shape
        y = np.linspace(-1, 1, rows, dtype=np.float32)[:, None]
        x = np.linspace(-1, 1, columns, dtype=np.float32)[None, :]
        light = np.exp(-1.6 * (x * x + y * y))
        value = edge[index] + (centre[index] - edge[index]) * light + add_offset(index)
        plane[...] = (value + noise.random(value.shape, dtype=np.float32)).astype(np.uint8)
    return planes


def _tinted(planes: Planes, rect: Rect, alpha: np.ndarray, colour: Rgb) -> None:
    halved = alpha.reshape(rect.height // 2, 2, rect.width // 2, 2).mean(axis=(1, 3))
    for plane, value, part in zip(crop(planes, rect), yuv(colour), (alpha, halved, halved), strict=True):
        plane[...] = (plane + (value - plane.astype(np.float32)) * part).round().astype(np.uint8)


def _even(length: float) -> int:
    return int(length) // 2 * 2
