"""ProjectService: projects, their keys, storage defaults and usage."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

from google.protobuf.empty_pb2 import Empty

from generated.baxcloud.v1 import project_pb2 as pb
from server.clock import Clock
from server.context import CallContext, CallerKind
from server.domain.objects import check_s3
from server.domain.project import ApiKey, LiveKitKey, Plan, Project, S3Config
from server.errors import not_found
from server.ids import ProjectId, new_api_key, new_id, new_livekit_key, new_livekit_secret, new_project_id
from server.ports.unit_of_work import Database, UnitOfWork
from server.services.messages import page_of, s3_from_message, s3_to_settings, to_timestamp

UNCHANGED = "***"


class Projects:
    """Implements `baxcloud.v1.ProjectService`.

    `on_key_revoked(key_id)` drops what this process has cached of an API key or, by its key, of a LiveKit-style pair.
    """

    def __init__(self, database: Database, clock: Clock, *, on_key_revoked: Callable[[str], None]) -> None:
        self._database = database
        self._clock = clock
        self._on_key_revoked = on_key_revoked

    async def create_project(self, request: pb.CreateProjectRequest, ctx: CallContext) -> pb.Project:
        project = Project(
            id=ProjectId(request.id) if request.HasField("id") else new_project_id(),
            name=request.name,
            created_at=self._clock.now(),
            s3=_checked_s3(s3_from_message(request.s3_config)) if request.HasField("s3_config") else None,
            plan=_merge_plan(Plan(), request.plan),
        )
        async with self._database.begin() as tx:
            await tx.projects.add(project)
            await tx.commit()
        return _to_message(project)

    async def list_projects(
        self, request: pb.ListProjectsRequest, ctx: CallContext
    ) -> pb.ListProjectsResponse:
        page, size = page_of(request)
        async with self._database.read() as tx:
            items, total = await tx.projects.list(page=page, size=size)
        return pb.ListProjectsResponse(items=map(_to_message, items), total=total, page=page, limit=size)

    async def get_project(self, request: pb.GetProjectRequest, ctx: CallContext) -> pb.Project:
        async with self._database.read() as tx:
            return _to_message(await _get(tx, request.project_id, ctx))

    async def update_project(self, request: pb.UpdateProjectRequest, ctx: CallContext) -> pb.Project:
        async with self._database.begin() as tx:
            project = await _get(tx, request.project_id, ctx)
            project = replace(
                project,
                name=request.name if request.HasField("name") else project.name,
                plan=_merge_plan(project.plan, request.plan),
            )
            await tx.projects.save(project)
            await tx.commit()
        return _to_message(project)

    async def set_s3_config(self, request: pb.SetS3ConfigRequest, ctx: CallContext) -> pb.Project:
        given = s3_from_message(request.s3_config)
        async with self._database.begin() as tx:
            project = await _get(tx, request.project_id, ctx)
            stored = project.s3 or S3Config()
            given = replace(
                given,
                access_key=stored.access_key if given.access_key == UNCHANGED else given.access_key,
                secret_key=stored.secret_key if given.secret_key == UNCHANGED else given.secret_key,
            )
            project = replace(project, s3=None if given == S3Config() else _checked_s3(given))
            await tx.projects.save(project)
            await tx.commit()
        return _to_message(project)

    async def create_api_key(self, request: pb.CreateApiKeyRequest, ctx: CallContext) -> pb.ApiKey:
        secret = new_api_key()
        key = ApiKey(
            id=new_id("key"),
            project_id=ProjectId(request.project_id),
            name=request.name,
            digest=key_digest(secret),
            baxstream=request.baxstream,
            created_at=self._clock.now(),
        )
        async with self._database.begin() as tx:
            await _get(tx, request.project_id, ctx)
            await tx.keys.add_api_key(key)
            await tx.commit()
        message = _key_to_message(key)
        message.key = secret
        return message

    async def list_api_keys(self, request: pb.ListApiKeysRequest, ctx: CallContext) -> pb.ListApiKeysResponse:
        async with self._database.read() as tx:
            project = await _get(tx, request.project_id, ctx)
            keys = await tx.keys.list_api_keys(project.id)
        return pb.ListApiKeysResponse(items=map(_key_to_message, keys), total=len(keys))

    async def revoke_api_key(self, request: pb.RevokeApiKeyRequest, ctx: CallContext) -> Empty:
        async with self._database.begin() as tx:
            project = await _get(tx, request.project_id, ctx)
            key = await tx.keys.revoke_api_key(project.id, request.key_id, self._clock.now())
            if key is None:
                raise not_found("API key", request.key_id)
            await tx.commit()
        self._on_key_revoked(key.id)
        return Empty()

    async def create_live_kit_key(
        self, request: pb.CreateLiveKitKeyRequest, ctx: CallContext
    ) -> pb.LiveKitKey:
        pair = LiveKitKey(
            api_key=new_livekit_key(),
            project_id=ProjectId(request.project_id),
            api_secret=new_livekit_secret(),
            created_at=self._clock.now(),
        )
        async with self._database.begin() as tx:
            await _get(tx, request.project_id, ctx)
            await tx.keys.add_livekit_key(pair)
            await tx.commit()
        message = _pair_to_message(pair)
        message.api_secret = pair.api_secret
        return message

    async def list_live_kit_keys(
        self, request: pb.ListLiveKitKeysRequest, ctx: CallContext
    ) -> pb.ListLiveKitKeysResponse:
        async with self._database.read() as tx:
            project = await _get(tx, request.project_id, ctx)
            pairs = await tx.keys.list_livekit_keys(project.id)
        return pb.ListLiveKitKeysResponse(items=map(_pair_to_message, pairs), total=len(pairs))

    async def revoke_live_kit_key(self, request: pb.RevokeLiveKitKeyRequest, ctx: CallContext) -> Empty:
        async with self._database.begin() as tx:
            project = await _get(tx, request.project_id, ctx)
            if not await tx.keys.revoke_livekit_key(project.id, request.api_key):
                raise not_found("LiveKit key", request.api_key)
            await tx.commit()
        self._on_key_revoked(request.api_key)
        return Empty()

    async def get_usage(self, request: pb.GetUsageRequest, ctx: CallContext) -> pb.Usage:
        async with self._database.read() as tx:
            project = await _get(tx, request.project_id, ctx)
            usage = await tx.projects.usage(project.id)
        plan = project.plan
        categorizations_over = max(0, usage.categorization_jobs - plan.included_categorization_jobs)
        moderations_over = max(0, usage.moderation_jobs - plan.included_moderation_jobs)
        return pb.Usage(
            project_id=project.id,
            conversion_jobs=usage.conversion_jobs,
            conversion_seconds=usage.conversion_seconds,
            conversion_cents=usage.conversion_cents,
            categorization_jobs=usage.categorization_jobs,
            categorization_included=usage.categorization_jobs - categorizations_over,
            categorization_overage=categorizations_over,
            moderation_jobs=usage.moderation_jobs,
            moderation_included=usage.moderation_jobs - moderations_over,
            moderation_overage=moderations_over,
            ai_overage_cents=categorizations_over * plan.categorization_overage_cents
            + moderations_over * plan.moderation_overage_cents,
        )


def key_digest(key: str) -> str:
    """What is stored of an API key. A fast hash is enough: the key has over 200 bits of entropy."""
    return hashlib.sha256(key.encode()).hexdigest()


async def _get(tx: UnitOfWork, project_id: str, ctx: CallContext) -> Project:
    foreign = ctx.caller.kind is CallerKind.API_KEY and ctx.caller.project_id != project_id
    project = None if foreign else await tx.projects.get(ProjectId(project_id))
    if project is None:
        raise not_found("project", project_id)
    return project


def _checked_s3(config: S3Config) -> S3Config:
    # The operator may rely on the machine's own AWS credentials, so keys are not required here.
    check_s3(config, keys_required=False)
    return config


def _merge_plan(plan: Plan, message: pb.Plan) -> Plan:
    given = {field.name: getattr(message, field.name) for field, _ in message.ListFields()}
    return replace(plan, **given)


def _to_message(project: Project) -> pb.Project:
    plan = project.plan
    return pb.Project(
        id=project.id,
        name=project.name,
        s3_config=s3_to_settings(project.s3) if project.s3 else None,
        plan=pb.Plan(
            cents_per_rendition_minute=plan.cents_per_rendition_minute,
            included_categorization_jobs=plan.included_categorization_jobs,
            included_moderation_jobs=plan.included_moderation_jobs,
            categorization_overage_cents=plan.categorization_overage_cents,
            moderation_overage_cents=plan.moderation_overage_cents,
        ),
        created_at=to_timestamp(project.created_at),
    )


def _key_to_message(key: ApiKey) -> pb.ApiKey:
    return pb.ApiKey(
        id=key.id,
        name=key.name,
        baxstream=key.baxstream,
        created_at=to_timestamp(key.created_at),
        last_used_at=to_timestamp(key.last_used_at),
        revoked_at=to_timestamp(key.revoked_at),
    )


def _pair_to_message(pair: LiveKitKey) -> pb.LiveKitKey:
    return pb.LiveKitKey(api_key=pair.api_key, created_at=to_timestamp(pair.created_at))
