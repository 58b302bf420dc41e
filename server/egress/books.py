"""The rows of an egress and its recording, changed under the fence of the job that owns them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from server.clock import Clock
from server.domain.egress import Destination, Egress, EgressStatus, StreamResult, StreamStatus
from server.domain.job import Job
from server.domain.recording import Recording
from server.egress.events import EgressWatcher
from server.egress.outcome import Caution, details_of
from server.egress.stream_urls import redacted, shown
from server.jobs.owner import host_of
from server.ports.jobs import JobRun
from server.ports.recorder import StreamReport
from server.ports.unit_of_work import UnitOfWork

# Key of the job's result: the start was announced.
ANNOUNCED = "announced"

# Keys of the job's result.
_MEASURED = "measured"
_CAUTIONED = "cautioned"


class Books:
    """Keeps one egress. All methods raise OwnershipLost."""

    def __init__(self, run: JobRun, egress_id: str, watchers: Sequence[EgressWatcher], clock: Clock) -> None:
        self._run = run
        self._egress_id = egress_id
        self._watchers = watchers
        self._clock = clock

    def now(self) -> int:
        """Nanoseconds since 1970."""
        return int(self._clock.now().timestamp() * 1e9)

    async def begin(self, destinations: Sequence[Destination]) -> Egress | None:
        """Tells of the start, once in the life of the egress (E.1); None if there is no such egress."""
        found: Egress | None = None

        async def work(tx: UnitOfWork) -> None:
            nonlocal found
            found = await tx.egresses.get(None, self._egress_id, lock=True)
            job = await tx.jobs.get(None, self._run.job.id)
            if found is None or found.status.is_final or job is None or job.result.get(ANNOUNCED):
                return
            found = with_streams(found, destinations)
            await tx.egresses.save(found)
            await tx.jobs.update(job.id, epoch=job.epoch, result={ANNOUNCED: True})
            for watcher in self._watchers:
                await watcher.started(tx, found)

        await self._run.transact(work)
        return found

    async def change(self, make: Callable[[Egress], Egress]) -> Egress:
        """`make` sees the newest row, for the API changes it too; a final row stays as it is."""
        return await self.finish(make, None)

    async def finish(
        self,
        make: Callable[[Egress], Egress],
        make_recording: Callable[[Recording, Egress], Recording] | None,
    ) -> Egress:
        """`change`, and the recording's row in the same transaction."""
        result: Egress | None = None

        async def work(tx: UnitOfWork) -> None:
            nonlocal result
            result = await rewrite(
                tx, self._egress_id, make, make_recording, watchers=self._watchers, now=self.now()
            )

        await self._run.transact(work)
        assert result is not None
        return result

    async def caution(self, caution: Caution) -> None:
        """Tells of it once on each host, for each has a disk of its own."""
        mark = f"{caution.code} {host_of(self._run.job.owner or '')}"

        async def work(tx: UnitOfWork) -> None:
            egress = await tx.egresses.get(None, self._egress_id, lock=True)
            job = await tx.jobs.get(None, self._run.job.id)
            if egress is None or egress.status.is_final or job is None:
                return
            told = job.result.get(_CAUTIONED, ())
            if mark in told:
                return
            await tx.jobs.update(job.id, epoch=job.epoch, result={_CAUTIONED: [*told, mark]})
            for watcher in self._watchers:
                await watcher.cautioned(tx, egress, caution)

        await self._run.transact(work)

    async def measured(self, values: Mapping[str, Any]) -> None:
        """What `Egress` shows of a running one: kept in the job's result."""
        await self._run.save(result={_MEASURED: dict(values)})


def measured_by(job: Job) -> Mapping[str, Any] | None:
    """How far the capture is or was: `durationMs`, `fps`, `frames…`, `bytes`; None before its first second."""
    measured: Mapping[str, Any] | None = job.result.get(_MEASURED)
    return measured


async def rewrite(
    tx: UnitOfWork,
    egress_id: str,
    make: Callable[[Egress], Egress],
    make_recording: Callable[[Recording, Egress], Recording] | None,
    *,
    watchers: Sequence[EgressWatcher],
    now: int,
) -> Egress:
    """Changes the row, and the recording's with it, and tells of it; a final row stays as it is."""
    before = await tx.egresses.get(None, egress_id, lock=True)
    assert before is not None, "the row of an egress outlives its jobs"
    after = before if before.status.is_final else make(before)
    if after == before:
        return after
    after = replace(after, updated_at=now)
    await tx.egresses.save(after)
    recording = None
    if make_recording is not None and after.recording_id:
        recording = await tx.recordings.of_egress(after.project_id, after.id)
        if recording is not None:
            recording = make_recording(recording, after)
            await tx.recordings.save(recording)
    for watcher in watchers:
        await watcher.changed(tx, before, after, recording)
    return after


def in_room(egress: Egress, room_id: str) -> Egress:
    """Its room may have been unknown when it was accepted."""
    return egress if egress.room_id or not room_id else replace(egress, room_id=room_id)


def active(egress: Egress, at: int) -> Egress:
    """The first media of all was written at `at`."""
    if egress.status is EgressStatus.STARTING:
        egress = replace(egress, status=EgressStatus.ACTIVE)
    return egress if egress.active_at else replace(egress, active_at=at)


def ending(egress: Egress, reason: str) -> Egress:
    """One that never became active stays STARTING until it is ABORTED or FAILED."""
    status = EgressStatus.ENDING if egress.status is EgressStatus.ACTIVE else egress.status
    return replace(egress, status=status, details=details_of(egress, reason))


def with_streams(egress: Egress, destinations: Sequence[Destination]) -> Egress:
    """A result for each destination that has none yet."""
    known = {stream.id for stream in egress.results.streams}
    new = tuple(
        StreamResult(one.id, redacted(one.url), shown(one.url)) for one in destinations if one.id not in known
    )
    return _with_results(egress, (*egress.results.streams, *new)) if new else egress


def with_report(egress: Egress, report: StreamReport) -> Egress:
    """What a recorder said of one destination. One that failed stays failed."""
    return _with_results(
        egress,
        tuple(
            _after(stream, report)
            if stream.id == report.id and stream.status is not StreamStatus.FAILED
            else stream
            for stream in egress.results.streams
        ),
    )


def failed_ids(egress: Egress) -> Collection[str]:
    return {stream.id for stream in egress.results.streams if stream.status is StreamStatus.FAILED}


def _after(stream: StreamResult, report: StreamReport) -> StreamResult:
    match report.state:
        case "active":
            started_at = stream.started_at or report.at
            return replace(
                stream,
                status=StreamStatus.ACTIVE,
                started_at=started_at,
                ended_at=0,
                retries=max(report.retries, stream.retries),
            )
        case "reconnecting":
            return replace(stream, retries=max(report.retries, stream.retries + 1), last_retry_at=report.at)
        case "failed":
            return replace(
                stream,
                status=StreamStatus.FAILED,
                ended_at=report.at,
                error=report.error,
                error_code=report.error_code or "EGRESS_FAILED",
                retries=max(report.retries, stream.retries),
            )
        case _:
            return replace(stream, status=StreamStatus.FINISHED, ended_at=report.at)


def _with_results(egress: Egress, streams: tuple[StreamResult, ...]) -> Egress:
    return replace(egress, results=replace(egress.results, streams=streams))
