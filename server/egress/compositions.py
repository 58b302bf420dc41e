"""Egresses of whole rooms as BaxCloud's own calls, its rules and RTCstack's routes ask for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from server.domain.egress import (
    Destination,
    Egress,
    EgressPlan,
    EgressSecrets,
    Encoding,
    FileOutput,
    Orders,
    Outputs,
    Surface,
)
from server.domain.egress_sources import RoomSource, RoomTracksSource
from server.domain.room_names import RoomNames
from server.egress.control import Decide, EgressControl
from server.egress.qualities import DEFAULT_FILE_TYPE, DEFAULT_QUALITY, FORMATS, encoding_of
from server.egress.stream_urls import RTMP, canonical, redacted
from server.errors import ServiceError, invalid, not_found
from server.ids import ProjectId, derived_recording_id, new_egress_id, new_id, new_recording_id

DEFAULT_LAYOUT = "default"
_SCHEMES = ("rtmp://", "rtmps://")


class UrlCheck(Protocol):
    """The address guard for streams."""

    def __call__(self, url: str, *, field: str) -> object:
        """Without a look-up: raise ServiceError invalid_argument naming `field` for what must never be reached."""
        ...


@dataclass(frozen=True, slots=True)
class Composition:
    """What is wanted of a room. `mode` is `record`, `stream` or `both`; `file_type` one of `FORMATS`.

    `tracks` records every track as it comes instead. `path` is the key of the file, "" for `recordings/{id}.{ext}` (B-36).
    """

    room_name: str
    mode: str = "record"
    layout: str = DEFAULT_LAYOUT
    quality: str = DEFAULT_QUALITY
    file_type: str = DEFAULT_FILE_TYPE
    urls: tuple[str, ...] = field(default=(), repr=False)
    tracks: bool = False
    path: str = ""

    @property
    def records(self) -> bool:
        return self.mode != "stream"

    @property
    def streams(self) -> bool:
        return self.mode != "record"


class Compositions:
    """Turns what is wanted into plan, orders and echo, and starts it."""

    def __init__(self, control: EgressControl, names: RoomNames, check_url: UrlCheck) -> None:
        self._control = control
        self._names = names
        self._check_url = check_url

    def check(self, wanted: Composition) -> None:
        """Raise ServiceError invalid_argument naming what the caller must mend."""
        if wanted.streams:
            self.check_urls(wanted.urls)
            if wanted.records and wanted.file_type != DEFAULT_FILE_TYPE:
                raise invalid("file.fileType", "must be MP4 with mode both: streams share its encoding")
        if wanted.tracks and wanted.streams:
            raise invalid("tracks", "needs mode record")

    def check_urls(self, urls: Sequence[str]) -> None:
        """EG-25, EG-32."""
        if not urls:
            raise invalid("stream.urls", "is required for modes stream and both")
        for index, url in enumerate(urls):
            at = f"stream.urls[{index}]"
            if not url.lower().startswith(_SCHEMES):
                raise invalid(at, "must start with rtmp:// or rtmps://")
            self._check_url(url, field=at)
            try:
                canonical(url, RTMP)
            except ServiceError:
                raise invalid(at, "must be of the form rtmp(s)://host/app/key") from None

    async def start(
        self,
        project_id: ProjectId,
        wanted: Composition,
        *,
        surface: Surface,
        egress_id: str | None = None,
        decide: Decide | None = None,
    ) -> Egress:
        """For what `check` has passed. Raise ServiceError as `EgressControl.start` does."""
        # Under the same id everything must come out the same, for a repeated call is known by its request.
        recording_id = derived_recording_id(egress_id) if egress_id else new_recording_id()
        plan = self._plan(project_id, wanted, recording_id)
        destinations = tuple(
            Destination(new_id("dst"), canonical(url, RTMP))
            for url in (wanted.urls if wanted.streams else ())
        )
        return await self._control.start(
            project_id,
            room_name=wanted.room_name,
            surface=surface,
            type=wanted.mode,
            layout=wanted.layout,
            quality=wanted.quality,
            file_type=wanted.file_type if wanted.records and not wanted.tracks else "",
            plan=plan,
            request=_echo(wanted, plan, destinations),
            orders=Orders(layout=wanted.layout, destinations=destinations),
            secrets=EgressSecrets(),
            egress_id=egress_id or new_egress_id(),
            recording_id=recording_id,
            decide=decide,
        )

    def _plan(self, project_id: ProjectId, wanted: Composition, recording_id: str) -> EgressPlan:
        try:
            livekit_room = self._names.to_livekit(project_id, wanted.room_name)
        except ServiceError:
            # What can be nobody's name is just not there.
            raise not_found("room", wanted.room_name) from None
        files: tuple[FileOutput, ...] = ()
        if wanted.tracks:
            files = (FileOutput("", f"recordings/{recording_id}/"),)
        elif wanted.records:
            container = FORMATS[wanted.file_type].container
            files = (FileOutput(container, wanted.path or f"recordings/{recording_id}.{container}"),)
        encoding = encoding_of(wanted.quality, wanted.file_type if wanted.records else DEFAULT_FILE_TYPE)
        return EgressPlan(
            livekit_room=livekit_room,
            source=RoomTracksSource()
            if wanted.tracks
            else RoomSource(layout=wanted.layout, audio_only=encoding.video is None),
            encoding=Encoding(None, None) if wanted.tracks else encoding,
            outputs=Outputs(files=files, streams=RTMP if wanted.streams else ""),
        )


def _echo(wanted: Composition, plan: EgressPlan, destinations: Sequence[Destination]) -> Mapping[str, Any]:
    """As LiveKit would have been asked for the same; its proto knows no WebM."""
    body: dict[str, Any] = {"roomName": wanted.room_name, "layout": wanted.layout}
    if isinstance(plan.source, RoomSource) and plan.source.audio_only:
        body["audioOnly"] = True
    if not wanted.tracks:
        body["advanced"] = _advanced(plan.encoding)
    if plan.outputs.files:
        file = plan.outputs.files[0]
        known = {"mp4": "MP4", "ogg": "OGG"}.get(file.container, "DEFAULT_FILETYPE")
        body["fileOutputs"] = [{"fileType": known, "filepath": file.path}]
    if destinations:
        body["streamOutputs"] = [{"protocol": "RTMP", "urls": [redacted(one.url) for one in destinations]}]
    return {"type": "room_composite", "body": body}


def _advanced(encoding: Encoding) -> Mapping[str, Any]:
    options: dict[str, Any] = {}
    if encoding.video is not None:
        video = encoding.video
        options |= {
            "width": video.width,
            "height": video.height,
            "framerate": video.fps,
            "videoBitrate": video.kbps,
            "keyFrameInterval": video.key_frame_sec,
        }
    if encoding.audio is not None:
        audio = encoding.audio
        options |= {
            "audioCodec": audio.codec.upper(),
            "audioBitrate": audio.kbps,
            "audioFrequency": audio.hz,
        }
    return options
