"""Progress of one conversion: stages weighted into one percentage, written to the job about once a second."""

from __future__ import annotations

import asyncio
import time

from server.domain.job import Progress
from server.ports.encoder import EncodeProgress
from server.ports.jobs import JobRun

WRITE_INTERVAL_SEC = 1.0

DOWNLOADING = "downloading"
PROBING = "probing"
TRANSCODING = "transcoding"
UPLOADING = "uploading"
VERIFYING = "verifying"

# Where each stage begins and ends on the scale of the whole job, percent.
_SHARES = {
    DOWNLOADING: (0.0, 10.0),
    PROBING: (10.0, 11.0),
    TRANSCODING: (11.0, 96.0),
    UPLOADING: (96.0, 98.0),
    VERIFYING: (98.0, 100.0),
}


class ProgressReporter:
    """Collects what the stages say and writes the newest of it through the fence of the run."""

    def __init__(self, run: JobRun) -> None:
        self._run = run
        self._latest = Progress(percent=0.0, stage=DOWNLOADING)
        self._changed = asyncio.Event()
        self._download_began = time.monotonic()

    async def write_regularly(self) -> None:
        """Runs until cancelled. Raise OwnershipLost when the job now belongs to another worker."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._run.save(progress=self._latest)
            await asyncio.sleep(WRITE_INTERVAL_SEC)

    def enter(self, stage: str) -> None:
        self._set(stage, 0.0)

    def downloaded(self, received: int, total: int | None) -> None:
        """Bytes; without a total the percentage stays at the stage's start."""
        if not total:
            self._set(DOWNLOADING, 0.0)
            return
        elapsed = time.monotonic() - self._download_began
        eta = elapsed / received * (total - received) if received else None
        self._set(DOWNLOADING, received / total, eta_sec=eta)

    def encoded(self, progress: EncodeProgress) -> None:
        self._set(
            TRANSCODING, (progress.percent or 0.0) / 100, speed=progress.speed, eta_sec=progress.eta_sec
        )

    def _set(
        self, stage: str, share: float, *, speed: float | None = None, eta_sec: float | None = None
    ) -> None:
        low, high = _SHARES[stage]
        percent = low + (high - low) * min(1.0, max(0.0, share))
        # A retried download starts over, but the shown percentage never goes back.
        percent = max(percent, self._latest.percent)
        self._latest = Progress(percent=percent, stage=stage, speed=speed, eta_sec=eta_sec)
        self._changed.set()
