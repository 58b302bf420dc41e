"""EgressService, put together from its parts."""

from __future__ import annotations

from server.services.auto_egress import AutoEgressRules
from server.services.egresses import Egresses
from server.services.recording_compositions import RecordingCompositions
from server.services.recordings import Recordings
from server.services.room_recording import RoomRecordings


class EgressService:
    """Implements `baxcloud.v1.EgressService`."""

    def __init__(
        self,
        egresses: Egresses,
        recordings: Recordings,
        compositions: RecordingCompositions,
        rules: AutoEgressRules,
        rooms: RoomRecordings,
    ) -> None:
        self.start_egress = egresses.start_egress
        self.stop_egress = egresses.stop_egress
        self.pause_egress = egresses.pause_egress
        self.resume_egress = egresses.resume_egress
        self.list_egress = egresses.list_egress
        self.get_egress = egresses.get_egress
        self.delete_egress = egresses.delete_egress
        self.get_auto_egress = rules.get_auto_egress
        self.update_auto_egress = rules.update_auto_egress
        self.start_recording = recordings.start_recording
        self.stop_recording = recordings.stop_recording
        self.list_recordings = recordings.list_recordings
        self.list_active_recordings = recordings.list_active_recordings
        self.get_recording = recordings.get_recording
        self.get_recording_download_url = recordings.get_recording_download_url
        self.get_recording_manifest = recordings.get_recording_manifest
        self.compose_recording = compositions.compose_recording
        self.start_room_recording = rooms.start_room_recording
        self.stop_room_recording = rooms.stop_room_recording
        self.get_room_recording = rooms.get_room_recording
