"""The thread that writes to the disk, so that a slow one holds up neither pictures nor streams."""

from __future__ import annotations

import queue
import threading
from typing import Final

from adapters.recorder.encoders import Encoded
from adapters.recorder.outputs.images import Images, Still
from adapters.recorder.outputs.part_file import PartFile
from adapters.recorder.outputs.segments import Segments

# About two minutes of 3 Mbit/s with sound; a disk that is behind by more will not catch up.
_QUEUE_LIMIT: Final = 10_000


class DiskBehind(OSError):
    """The disk takes less than is recorded."""


class Writer:
    """Part file, segments and images. After `failure` is set it takes nothing more."""

    def __init__(self, part: PartFile | None, segments: Segments | None, images: Images | None) -> None:
        self._part = part
        self._segments = segments
        self._images = images
        self._queue: queue.SimpleQueue[Encoded | Still | None] = queue.SimpleQueue()
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def put(self, item: Encoded | Still) -> None:
        """Raise OSError with what went wrong before."""
        if self.failure is None and self._queue.qsize() > _QUEUE_LIMIT:
            self.failure = DiskBehind("the disk is too slow for the recording")
        if self.failure is not None:
            raise self.failure
        self._queue.put(item)

    def close(self) -> None:
        """Writes the rest; all files are whole and synced afterwards. Raise OSError."""
        self._queue.put(None)
        self._thread.join()
        if self.failure is not None:
            raise self.failure

    @property
    def bytes_written(self) -> int:
        part = self._part.size if self._part is not None else 0
        return part + (self._segments.bytes_written if self._segments is not None else 0)

    @property
    def backlog(self) -> int:
        return self._queue.qsize()

    def _run(self) -> None:
        try:
            while (item := self._queue.get()) is not None:
                self._write(item)
        except Exception as error:  # noqa: BLE001 - whatever it is, the recording must not go on unwritten
            self.failure = error
        finally:
            self._close_outputs()

    def _write(self, item: Encoded | Still) -> None:
        if isinstance(item, Still):
            assert self._images is not None
            self._images.write(item)
            return
        if self._part is not None:
            self._part.write(item)
        if self._segments is not None:
            self._segments.write(item)

    def _close_outputs(self) -> None:
        for output in (self._part, self._segments):
            try:
                if output is not None:
                    output.close()
            except Exception as error:  # noqa: BLE001 - the other output must be closed as well
                self.failure = self.failure or error
