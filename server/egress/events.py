"""Webhook events of egresses, told from how their rows change (WH-01 to WH-46, RT-22 to RT-28, contract E.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from server.clock import Clock, iso_millis
from server.domain.egress import Egress, EgressStatus, StreamResult, StreamStatus, shown_status
from server.domain.recording import Recording
from server.domain.webhook import NewEvent
from server.egress.outcome import Caution, whole_seconds
from server.ports.jobs import EventRecorder
from server.ports.unit_of_work import UnitOfWork
from server.webhooks.envelopes import core_event, rtcstack_event
from server.webhooks.events import EGRESS_ENDED, EGRESS_UPDATED, rtcstack_names

RTCSTACK_ENDED = "egress_ended"
_RTCSTACK_STARTED = "recording_started"


class EgressWatcher(Protocol):
    """Told of every change of an egress inside the transaction that makes it."""

    async def started(self, tx: UnitOfWork, egress: Egress) -> None:
        """A worker has taken it for the first time."""
        ...

    async def changed(
        self, tx: UnitOfWork, before: Egress, after: Egress, recording: Recording | None
    ) -> None:
        """`recording` is the new row when `after` is final and there is one."""
        ...

    async def cautioned(self, tx: UnitOfWork, egress: Egress, caution: Caution) -> None:
        """It goes on, but may not for long."""
        ...


class EgressEvents:
    """The `EgressWatcher` of the project's webhook endpoints, for the API's changes and the owner's alike."""

    def __init__(self, recorder: EventRecorder, clock: Clock) -> None:
        self._recorder = recorder
        self._clock = clock

    async def started(self, tx: UnitOfWork, egress: Egress) -> None:
        await self._record(tx, started_events(egress, self._clock.now()))

    async def changed(
        self, tx: UnitOfWork, before: Egress, after: Egress, recording: Recording | None
    ) -> None:
        await self._record(tx, changed_events(before, after, recording, self._clock.now()))

    async def cautioned(self, tx: UnitOfWork, egress: Egress, caution: Caution) -> None:
        await self._record(tx, [cautioned_event(egress, caution, self._clock.now())])

    async def _record(self, tx: UnitOfWork, events: Sequence[NewEvent]) -> None:
        for event in events:
            await self._recorder.record(tx, event)


def started_events(egress: Egress, now: datetime) -> list[NewEvent]:
    """`recording.started` and `stream.started`, both for type `both` (B-45)."""
    events = []
    if records(egress):
        fields = {"egressId": egress.id, "roomId": egress.room_name, "startedAt": _moment(egress.started_at)}
        events.append(_core("recording.started", egress, _about_recording(egress), now))
        events.append(_flat(_RTCSTACK_STARTED, egress, fields, now))
    if streams(egress):
        events.append(_core("stream.started", egress, _about_streams(egress), now))
    return events


def changed_events(
    before: Egress, after: Egress, recording: Recording | None, now: datetime
) -> list[NewEvent]:
    """`stream.updated` for each change of a destination; at the end one event for each kind of output (B-45).

    Where something else goes on, `stream.failed` comes as soon as no destination is left that has not failed.
    """
    events = []
    if streams(after) and _standing(before) != _standing(after):
        data = _about_streams(after) | {"status": _stream_status(after), "streams": _stream_list(after)}
        events.append(_core("stream.updated", after, data, now))
    ended = after.status.is_final and not before.status.is_final
    if streams(after) and after.type == "both" and _all_failed(after) and not _all_failed(before):
        events.append(_core("stream.failed", after, _ended_stream(after, failed=True), now))
    elif ended and streams(after) and not (after.type == "both" and _all_failed(before)):
        failed = streams_failed(after)
        name = "stream.failed" if failed else "stream.completed"
        events.append(_core(name, after, _ended_stream(after, failed=failed), now))
    if ended:
        events += _ended_events(after, recording, now)
    return events


def cautioned_event(egress: Egress, caution: Caution, now: datetime) -> NewEvent:
    """`egress.updated`: the egress as `egress.ended` names it, and what threatens it."""
    data = {
        "egressId": egress.id,
        "roomName": egress.room_name,
        "type": egress.type,
        "status": shown_status(egress),
        **({"recordingId": egress.recording_id} if records(egress) else {}),
        "warning": {"code": caution.code, "message": caution.message},
    }
    return _core(EGRESS_UPDATED, egress, data, now)


def records(egress: Egress) -> bool:
    """Whether there is a recording to tell of: images alone are none."""
    return egress.type in ("record", "both") and egress.recording_id is not None


def streams(egress: Egress) -> bool:
    return egress.type in ("stream", "both")


def streams_failed(egress: Egress) -> bool:
    """Whether the stream side of an ended egress failed; with a file beside it, it is judged on its own (B-45)."""
    if egress.type == "stream":
        return shown_status(egress) == "FAILED"
    return egress.status is EgressStatus.ABORTED or _all_failed(egress)


def _ended_events(egress: Egress, recording: Recording | None, now: datetime) -> list[NewEvent]:
    events = []
    if records(egress):
        failed = shown_status(egress) == "FAILED"
        name = "recording.failed" if failed else "recording.completed"
        events.append(_core(name, egress, _ended_recording(egress, recording), now))
        events += _rtcstack_ended(name, egress, now)
    data = {
        "egressId": egress.id,
        "roomName": egress.room_name,
        "type": egress.type,
        "status": shown_status(egress),
        **_failing(egress),
    }
    if recording is not None:
        data |= {"recordingId": recording.id, **_file(recording)}
    events.append(_core(EGRESS_ENDED, egress, data, now))
    return events


def _rtcstack_ended(canonical: str, egress: Egress, now: datetime) -> list[NewEvent]:
    """`egress_ended` tells of a file, so there is none without one; its siblings tell of the end itself."""
    fields: dict[str, Any] = {"egressId": egress.id, "roomId": egress.room_name}
    if egress.results.files:
        file = egress.results.files[0]
        fields |= {"file": file.filename, "duration": whole_seconds(file.duration), "size": file.size}
    return [
        _flat(name, egress, fields, now)
        for name in rtcstack_names(canonical)
        if egress.results.files or name != RTCSTACK_ENDED
    ]


def _about_recording(egress: Egress) -> dict[str, Any]:
    return {
        "recordingId": egress.recording_id,
        "egressId": egress.id,
        "roomName": egress.room_name,
        "type": "record",
        "quality": egress.quality,
        "layout": egress.layout,
    }


def _about_streams(egress: Egress) -> dict[str, Any]:
    return {
        "egressId": egress.id,
        "roomName": egress.room_name,
        "type": "stream",
        "quality": egress.quality,
        "layout": egress.layout,
        "destinations": [stream.shown_url for stream in egress.results.streams],
    }


def _ended_recording(egress: Egress, recording: Recording | None) -> dict[str, Any]:
    return {
        "recordingId": egress.recording_id,
        "egressId": egress.id,
        "roomName": egress.room_name,
        "status": shown_status(egress),
        **(_file(recording) if recording else {}),
        **_failing(egress),
    }


def _ended_stream(egress: Egress, *, failed: bool) -> dict[str, Any]:
    data = {
        "egressId": egress.id,
        "roomName": egress.room_name,
        "type": "stream",
        "status": "FAILED" if failed else "COMPLETED",
        "destinations": [stream.shown_url for stream in egress.results.streams],
    }
    if failed:
        worst = next((stream for stream in egress.results.streams if stream.error), None)
        if worst is not None:
            return data | {"errorMessage": worst.error, "errorCode": worst.error_code or "EGRESS_FAILED"}
        return data | _failing(egress)
    begun = [stream.started_at for stream in egress.results.streams if stream.started_at]
    over = max((stream.ended_at for stream in egress.results.streams), default=0)
    return data | ({"durationSec": whole_seconds(max(over - min(begun), 0))} if begun and over else {})


def _failing(egress: Egress) -> dict[str, Any]:
    if egress.failing is None:
        return {}
    return {"errorMessage": egress.failing.message, "errorCode": egress.failing.code}


def _file(recording: Recording) -> dict[str, Any]:
    known = {
        "durationSec": recording.duration_sec,
        "fileUrl": recording.file_url,
        "fileSize": recording.file_size,
    }
    return {name: value for name, value in known.items() if value is not None}


def _stream_status(egress: Egress) -> str:
    if not egress.status.is_final:
        return shown_status(egress)
    return "FAILED" if streams_failed(egress) else "COMPLETED"


def _stream_list(egress: Egress) -> list[dict[str, Any]]:
    return [
        {
            "url": stream.shown_url,
            "status": stream.status.value,
            "connected": stream.status is StreamStatus.ACTIVE and stream.started_at > 0,
            **({"startedAt": _moment(stream.started_at)} if stream.started_at else {}),
            **({"endedAt": _moment(stream.ended_at)} if stream.ended_at else {}),
            **({"errorMessage": stream.error} if stream.error else {}),
            **({"errorCode": stream.error_code} if stream.error_code else {}),
            "retries": stream.retries,
        }
        for stream in egress.results.streams
    ]


def _standing(egress: Egress) -> list[tuple[Any, ...]]:
    return [
        (stream.id, stream.status, stream.started_at > 0, stream.retries) for stream in egress.results.streams
    ]


def _all_failed(egress: Egress) -> bool:
    results: tuple[StreamResult, ...] = egress.results.streams
    return bool(results) and all(stream.status is StreamStatus.FAILED for stream in results)


def _moment(nanoseconds: int) -> str:
    return iso_millis(datetime.fromtimestamp(nanoseconds / 1e9, UTC))


def _core(name: str, egress: Egress, data: Mapping[str, Any], now: datetime) -> NewEvent:
    return core_event(name, project_id=egress.project_id, subject=egress.id, data=data, now=now)


def _flat(name: str, egress: Egress, fields: Mapping[str, Any], now: datetime) -> NewEvent:
    return rtcstack_event(name, project_id=egress.project_id, subject=egress.id, fields=fields, now=now)
