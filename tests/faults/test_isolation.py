"""The isolation matrix: every implemented method, with its own, another project's, unknown and malformed ids."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from generated.baxcloud.v1 import egress_pb2, project_pb2, webhook_pb2
from generated.baxcloud.v1 import video_conversion_pb2 as pb
from server.context import CallContext, Caller, CallerKind
from server.domain.webhook import NewEvent
from server.errors import Code, ServiceError
from server.ids import (
    ProjectId,
    new_egress_id,
    new_event_id,
    new_id,
    new_job_id,
    new_livekit_key,
    new_project_id,
    new_recording_id,
)
from server.rpc.registry import OWN_FILES
from server.services.egress import EgressService
from server.services.webhooks import WebhookService
from server.webhooks.recorder import OutboxRecorder
from tests.conftest import Eventually
from tests.faults.egress_rows import add_egress
from tests.integration.conversion_stage import Stage, backend_stage

pytestmark = pytest.mark.timeout(120)

ADMIN = CallContext("t", "t", "r", Caller(CallerKind.ADMIN, None), {})
MALFORMED = ("", ".", "../x", "x" * 300, "ключ", "' OR 1=1 --", "%")
UNKNOWN = {
    "job_id": new_job_id,
    "webhook_id": lambda: new_id("wh"),
    "event_id": new_event_id,
    "project_id": new_project_id,
    "key_id": lambda: new_id("key"),
    "api_key": new_livekit_key,
    "egress_id": new_egress_id,
    "recording_id": new_recording_id,
}
# Methods whose requests name nothing that exists: what they make or list is the caller's project's.
NAMES_NOTHING = {
    "CreateConversionJob",
    "UploadVideo",
    "ListConversionJobs",
    "CreateWebhook",
    "ListWebhooks",
    # For the operator only, who sees all projects.
    "CreateProject",
    "ListProjects",
    # Rooms are named by the project's own names, and kept apart in LiveKit: tests/livekit/test_isolation.py.
    "StartEgress",
    "StartRecording",
    "StartRoomRecording",
    "StopRoomRecording",
    "GetRoomRecording",
    "ListEgress",
    "ListRecordings",
    "ListActiveRecordings",
    "GetAutoEgress",
    "UpdateAutoEgress",
}
# Method → the fields that name something, and what else a valid request needs.
NAMES: Mapping[str, tuple[tuple[str, ...], Mapping[str, Any]]] = {
    "GetConversionJob": (("job_id",), {}),
    "WatchConversionJob": (("job_id",), {}),
    "CancelConversionJob": (("job_id",), {}),
    "GetWebhook": (("webhook_id",), {}),
    "UpdateWebhook": (("webhook_id",), {"enabled": False}),
    "DeleteWebhook": (("webhook_id",), {}),
    "TestWebhook": (("webhook_id",), {}),
    "RotateWebhookSecret": (("webhook_id",), {}),
    "ReplayWebhook": (("webhook_id", "event_id"), {}),
    "ListDeliveries": (("webhook_id",), {}),
    "GetProject": (("project_id",), {}),
    "UpdateProject": (("project_id",), {"name": "new"}),
    "SetS3Config": (("project_id",), {"s3_config": {"bucket": "my-bucket"}}),
    "CreateApiKey": (("project_id",), {"name": "k"}),
    "ListApiKeys": (("project_id",), {}),
    "RevokeApiKey": (("project_id", "key_id"), {}),
    "CreateLiveKitKey": (("project_id",), {}),
    "ListLiveKitKeys": (("project_id",), {}),
    "RevokeLiveKitKey": (("project_id", "api_key"), {}),
    "GetUsage": (("project_id",), {}),
    "StopEgress": (("egress_id",), {}),
    "PauseEgress": (("egress_id",), {}),
    "ResumeEgress": (("egress_id",), {}),
    "GetEgress": (("egress_id",), {}),
    "DeleteEgress": (("egress_id",), {}),
    "StopRecording": (("egress_id",), {}),
    "GetRecording": (("recording_id",), {}),
    "GetRecordingDownloadUrl": (("recording_id",), {}),
    "GetRecordingManifest": (("recording_id",), {}),
    "ComposeRecording": (("recording_id",), {}),
    "ConvertRecording": (("recording_id",), {}),
}
# Of one that runs, and of one that holds tracks; the others are of one that has a file.
OF_RUNNING = {"PauseEgress", "ResumeEgress"}
OF_TRACKS = {"ComposeRecording"}


@pytest.fixture
async def stage(data_dir: Path, database_url: str, eventually: Eventually) -> AsyncIterator[Stage]:
    async with backend_stage(data_dir, eventually, work=False, database_url=database_url) as stage:
        yield stage


def implemented(stage: Stage) -> dict[str, tuple[MethodDescriptor, Any]]:
    """Name → descriptor and bound method, of all conversion, webhook and project methods that there are."""
    found = {}
    for file in OWN_FILES:
        for service in file.services_by_name.values():
            target = stage.backend.services.get(service.name)
            for method in service.methods:
                name = re.sub(r"(?<!^)(?=[A-Z])", "_", method.name).lower()
                if hasattr(target, name) and service.name != "RoomService":
                    found[method.name] = (method, getattr(target, name))
    return found


def test_the_matrix_names_every_method_and_every_field(stage: Stage) -> None:
    """A new method without a row here fails."""
    methods = implemented(stage)
    assert set(methods) == set(NAMES) | NAMES_NOTHING
    for name, (method, _) in methods.items():
        fields = {field.name for field in method.input_type.fields if field.name.endswith("_id")} - {
            "room_id"
        }
        assert fields - set(NAMES.get(name, ((), {}))[0]) == set(), name


class Owned:
    """One thing of each kind in one project."""

    def __init__(self, stage: Stage, project_id: str, url: str) -> None:
        self._stage = stage
        self.ctx = stage.context(project_id)
        self._url = url
        self.ids: dict[str, str] = {"project_id": project_id}

    async def make(self, *, running: bool = False, tracks: bool = False) -> None:
        stage, ctx = self._stage, self.ctx
        job = await stage.conversions.create_conversion_job(
            pb.CreateConversionJobRequest(input_url="http://127.0.0.1:9/a.mp4"), ctx
        )
        webhooks = stage.backend.services["WebhookService"]
        assert isinstance(webhooks, WebhookService)
        hook = await webhooks.create_webhook(
            webhook_pb2.CreateWebhookRequest(url=self._url, events=["*"]), ctx
        )
        project_id = self.ids["project_id"]
        key = await stage.projects.create_api_key(
            project_pb2.CreateApiKeyRequest(project_id=project_id, name="k"), ADMIN
        )
        pair = await stage.projects.create_live_kit_key(
            project_pb2.CreateLiveKitKeyRequest(project_id=project_id), ADMIN
        )
        now = stage.backend.clock.now()
        event = NewEvent(
            new_event_id(), ProjectId(project_id), "room.ended", "subject", "baxstream", b"{}", now
        )
        async with stage.backend.database.begin() as tx:
            await OutboxRecorder(lambda: None).record(tx, event)
            await tx.commit()
        egress_id, recording_id = await add_egress(
            stage.backend.database, ProjectId(project_id), now, running=running, tracks=tracks
        )
        self.ids |= {
            "egress_id": egress_id,
            "recording_id": recording_id,
            "job_id": job.id,
            "webhook_id": hook.id,
            "event_id": event.id,
            "key_id": key.id,
            "api_key": pair.api_key,
        }

    async def seen(self) -> list[str]:
        """All of it as its owner sees it."""
        projects = self._stage.projects
        webhooks = self._stage.backend.services["WebhookService"]
        assert isinstance(webhooks, WebhookService)
        egress = self._stage.backend.services["EgressService"]
        assert isinstance(egress, EgressService)
        named = {"project_id": self.ids["project_id"]}
        replies: list[Message] = [
            await self._stage.conversions.list_conversion_jobs(pb.ListConversionJobsRequest(), self.ctx),
            await webhooks.list_webhooks(webhook_pb2.ListWebhooksRequest(), self.ctx),
            await egress.list_egress(egress_pb2.ListEgressRequest(), self.ctx),
            await egress.list_recordings(egress_pb2.ListRecordingsRequest(), self.ctx),
            await projects.get_project(project_pb2.GetProjectRequest(**named), ADMIN),
            await projects.list_api_keys(project_pb2.ListApiKeysRequest(**named), ADMIN),
            await projects.list_live_kit_keys(project_pb2.ListLiveKitKeysRequest(**named), ADMIN),
        ]
        return [str(reply) for reply in replies]


async def answer(method: MethodDescriptor, call: Any, ctx: CallContext, values: Mapping[str, Any]) -> str:
    """The reply or the error as text, the ids of the request left out."""
    request = GetMessageClass(method.input_type)(**values)
    try:
        result = call(request, ctx)
        text = str([item async for item in result] if hasattr(result, "__aiter__") else await result)
    except ServiceError as error:
        text = f"{error.code} {error.message} {error.field} {error.reason} {error.retry_after_sec}"
    for value in values.values():
        if isinstance(value, str) and len(value) > 8:
            text = text.replace(value, "ID")
    return text


async def test_another_projects_ids_are_answered_like_unknown_ones(stage: Stage) -> None:
    """I5, case 23: nothing of it can be read, changed or told from what does not exist; malformed ids are no defect."""
    sink = await stage.listen()
    other = await stage.projects.create_project(project_pb2.CreateProjectRequest(name="other"), ADMIN)
    methods = implemented(stage)
    for name, (fields, values) in NAMES.items():
        method, call = methods[name]
        victim = Owned(stage, stage.project_id, sink.url)
        caller = Owned(stage, other.id, sink.url)
        kind = {"running": name in OF_RUNNING, "tracks": name in OF_TRACKS}
        await victim.make(**kind)
        await caller.make(**kind)
        before = await victim.seen()
        own = {field: caller.ids[field] for field in fields}
        for field in fields:
            foreign = await answer(method, call, caller.ctx, {**values, **own, field: victim.ids[field]})
            unknown = await answer(method, call, caller.ctx, {**values, **own, field: UNKNOWN[field]()})
            assert foreign == unknown, f"{name} {field}"
            assert foreign.startswith(str(Code.NOT_FOUND)), f"{name} {field}: {foreign}"
            for malformed in MALFORMED:
                said = await answer(method, call, caller.ctx, {**values, **own, field: malformed})
                told = {str(Code.NOT_FOUND), str(Code.INVALID_ARGUMENT)}
                optional = field == "event_id" and not malformed
                assert optional or said.split(" ")[0] in told, f"{name} {field}={malformed!r}: {said}"
        assert await victim.seen() == before, name
        if name != "WatchConversionJob":
            mine = await answer(method, call, caller.ctx, {**values, **own})
            assert not mine.startswith("Code."), f"{name}: {mine}"


async def test_lists_show_one_project_only(stage: Stage) -> None:
    """Row-level isolation of everything that is listed."""
    sink = await stage.listen()
    other = await stage.projects.create_project(project_pb2.CreateProjectRequest(name="other"), ADMIN)
    victim, caller = Owned(stage, stage.project_id, sink.url), Owned(stage, other.id, sink.url)
    await victim.make()
    await caller.make()
    theirs = set(victim.ids.values())
    for text in await caller.seen():
        assert not [ident for ident in theirs if ident in text]
