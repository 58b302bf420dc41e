"""The crash-safe file of one part: what was written two seconds ago survives whatever happens to the process."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapters.recorder.encoders import Encoded, Encoders, add_streams, packet_for

SYNC_SEC = 1.0
# Tells a part with a constant rate from a track as it came.
_MARK = "constant rate "
_OPTIONS = {
    # The index comes with the first fragment (delay_moov), for only then are the edit lists known that hide
    # reordering and the audio encoder's start.
    "mp4": {"movflags": "delay_moov+default_base_moof", "frag_duration": "1000000"},
    "webm": {"cluster_time_limit": "1000", "cluster_size_limit": str(4 << 20)},
    "ogg": {"page_duration": "1000000"},
    "mp3": {"write_xing": "0", "id3v2_version": "0"},
}
EXTENSIONS = {"mp4": "mp4", "webm": "webm", "ogg": "ogg", "mp3": "mp3"}


def fps_of_program(metadata: Mapping[str, str]) -> int:
    """The constant rate of a part that `PartFile` wrote, 0 for any other file. `metadata` of its container."""
    text = next((value for name, value in metadata.items() if name.lower() == "comment"), "")
    rate = text.removeprefix(_MARK)
    return int(rate) if rate != text and rate.isdigit() else 0


class PartFile:
    """`part-NNN.{ext}`; called from the writer's thread. Raise OSError when the disk refuses."""

    def __init__(self, folder: Path, part: int, container: str, encoders: Encoders) -> None:
        import av

        self.path = folder / f"part-{part:03d}.{EXTENSIONS[container]}"
        self._container: Any = av.open(
            str(self.path),
            "w",
            format=container,
            options=_OPTIONS[container],
            container_options={"flush_packets": "1"},
        )
        self._streams = add_streams(self._container, encoders)
        if encoders.video is not None:
            self._container.metadata["comment"] = f"{_MARK}{encoders.video.codec_context.framerate}"
        self._container.start_encoding()
        self._fd = os.open(self.path, os.O_RDONLY)
        self._synced = time.monotonic()

    def write(self, packet: Encoded) -> None:
        self._container.mux_one(packet_for(self._streams[packet.media], packet))
        if time.monotonic() - self._synced >= SYNC_SEC:
            os.fsync(self._fd)
            self._synced = time.monotonic()

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def close(self) -> None:
        try:
            self._container.close()
            os.fsync(self._fd)
        finally:
            os.close(self._fd)
