"""Composes the pictures of a room's tracks into one frame, drawing again only what differs from the last one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import av

from adapters.compositor.movement import Movement, appearance
from adapters.compositor.picture import Picture, crop, fill, new_frame, planes_of, yuv
from adapters.compositor.scaling import Scaler
from server.domain.layout import Rect, StageTrack, Tile, arrange, is_light

# With more tiles than this a change of layout is a cut: scaling them all to new sizes for every frame of the
# movement would cost more than a frame's time.
_MAX_MOVING = 25


@dataclass(slots=True)
class _Actor:
    """A track on the canvas: its tile, how it gets there, and what of it was drawn last."""

    tile: Tile
    track: StageTrack
    movement: Movement
    scaler: Scaler = field(default_factory=Scaler)
    drawn: object = None


class Compositor:
    """One canvas of even `width` × `height`, composed again for every output frame by one thread.

    Every call returns the same frame, whose memory is the canvas: it is valid until the next call. An encoder takes
    its own copy while `encode` runs (libx264 and libvpx do), so encoding a frame before composing the next is safe,
    and only what changed has to be drawn.
    """

    def __init__(self, width: int, height: int, fps: int) -> None:
        self._width = width
        self._height = height
        self._frame_sec = 1 / fps
        self._frame = new_frame(width, height)
        self._canvas = planes_of(self._frame)
        self._actors: dict[str, _Actor] = {}
        self._wanted: tuple[str, tuple[StageTrack, ...], str | None] | None = None
        self._light = False
        self._moving = False

    def compose(
        self,
        layout: str,
        tracks: Sequence[StageTrack],
        speaker: str | None,
        pictures: Mapping[str, Picture],
        now: float,
    ) -> tuple[av.VideoFrame, bool]:
        """The frame at `now` seconds, and whether it differs from the last one.

        `pictures` holds the newest frame by track id; a track without one, or whose source is `avatar`, is shown by
        its initials.
        """
        wanted = (layout, tuple(tracks), speaker)
        renewed = wanted != self._wanted and self._rearrange(*wanted, now)
        self._wanted = wanted
        if renewed or self._moving:
            self._moving = any(not actor.movement.is_over(now) for actor in self._actors.values())
            fill(self._canvas, self._background())
            for actor in self._actors.values():
                actor.drawn = None
        drawn = [actor for actor in self._actors.values() if self._draw(actor, pictures, now)]
        return self._frame, bool(drawn) or renewed

    def visible(self) -> Mapping[str, Rect]:
        """Where each shown track is, or is on its way to."""
        return {id_: actor.tile.rect for id_, actor in self._actors.items()}

    def _rearrange(
        self, layout: str, tracks: tuple[StageTrack, ...], speaker: str | None, now: float
    ) -> bool:
        """Take up a new layout; returns whether anything moved, came or went."""
        tiles = arrange(layout, tracks, speaker, self._width, self._height)
        known = {track.id: track for track in tracks}
        before = [actor.tile for actor in self._actors.values()]
        light = is_light(layout)
        renewed = list(tiles) != before or light != self._light or self._wanted is None
        cut = not self._actors or len(tiles) > _MAX_MOVING
        # The first frame of a movement shows it already.
        began = now - self._frame_sec
        actors: dict[str, _Actor] = {}
        for tile in tiles:
            actor = self._actors.get(tile.track_id)
            if actor is None:
                movement = Movement(tile.rect, tile.rect, 0.0) if cut else appearance(tile.rect, began)
                actor = _Actor(tile, known[tile.track_id], movement)
            elif actor.tile.rect != tile.rect:
                start = tile.rect if cut else actor.movement.at(now)
                actor.movement = Movement(start, tile.rect, began)
            actor.tile, actor.track = tile, known[tile.track_id]
            actors[tile.track_id] = actor
        self._actors = actors
        self._light = light
        return renewed

    def _draw(self, actor: _Actor, pictures: Mapping[str, Picture], now: float) -> bool:
        rect = actor.movement.at(now) if self._moving else actor.tile.rect
        picture = pictures.get(actor.tile.track_id) if actor.track.source != "avatar" else None
        version = picture.version if picture is not None else None
        key = (rect, version)
        if key == actor.drawn:
            return False
        actor.drawn = key
        target = crop(self._canvas, rect)
        if picture is None:
            fill(target, self._surface())
        else:
            actor.scaler.draw(picture, target, cover=actor.tile.cover, surround=self._surface())
        return True

    def _background(self) -> tuple[int, int, int]:
        return yuv(255, 255, 255) if self._light else yuv(14, 15, 19)

    def _surface(self) -> tuple[int, int, int]:
        return yuv(230, 232, 236) if self._light else yuv(32, 34, 40)
