"""Still pictures of the composition, as JPEG."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from server.ports.recorder import ImageWritten, WantedImages

if TYPE_CHECKING:
    import av

_QUALITY = 85


@dataclass(frozen=True, slots=True)
class Still:
    """A picture to be written: RGB already, for its frame may be painted over."""

    output: int
    number: int
    picture: av.VideoFrame
    taken_at: int


class Images:
    """`take` is called with every frame from the composing thread and must be quick; `write` from the writer's."""

    def __init__(
        self,
        folder: Path,
        part: int,
        wanted: Sequence[WantedImages],
        *,
        fps: int,
        first: int,
        report: Callable[[ImageWritten], None],
    ) -> None:
        self._folder = folder
        self._part = part
        self._wanted = wanted
        self._fps = fps
        self._numbers = [first] * len(wanted)
        self._report = report

    def take(self, frame: av.VideoFrame, number: int, taken_at: int) -> Iterator[Still]:
        for output, wanted in enumerate(self._wanted):
            if number % (wanted.interval_sec * self._fps):
                continue
            picture = frame.reformat(
                width=wanted.width or frame.width,
                height=wanted.height or frame.height,
                format="rgb24",
                src_colorspace="ITU709",
                src_color_range="MPEG",
                dst_color_range="JPEG",
            )
            yield Still(output, self._numbers[output], picture, taken_at)
            self._numbers[output] += 1

    def write(self, still: Still) -> None:
        from PIL import Image

        name = f"image-{still.output}-{self._part:03d}-{still.number:05d}.jpeg"
        buffer = io.BytesIO()
        Image.fromarray(still.picture.to_ndarray()).save(buffer, "JPEG", quality=_QUALITY)
        (self._folder / name).write_bytes(buffer.getvalue())
        self._report(ImageWritten(still.output, name, still.number, still.taken_at))
