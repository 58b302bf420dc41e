"""Projects, their usage, API keys and LiveKit-style keys."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import BindParameter, bindparam, func, or_, select

from adapters.db.session import AnyRow, Session, execute, fetch_all, fetch_first
from adapters.db.tables import api_keys, livekit_keys, project_usage, projects
from adapters.db.upsert import upsert
from server.domain.project import ApiKey, LiveKitKey, Plan, Project, S3Config, Usage
from server.errors import Code, ServiceError
from server.ids import ProjectId
from server.ports.secret_box import SecretBox

_P_ID: BindParameter[str] = bindparam("p_id")
_P_PROJECT: BindParameter[str] = bindparam("p_project")
_COUNTERS = tuple(Usage.__dataclass_fields__)

_ADD_PROJECT = upsert(projects).on_conflict_do_nothing().returning(projects.c.id)
_ADD_USAGE_ROW = upsert(project_usage).on_conflict_do_nothing()
_GET_PROJECT = select(projects).where(projects.c.id == _P_ID)
_LIST_PROJECTS = (
    select(projects)
    .order_by(projects.c.created_at.desc(), projects.c.id.desc())
    .limit(bindparam("p_limit"))
    .offset(bindparam("p_offset"))
)
_COUNT_PROJECTS = select(func.count()).select_from(projects)
_SAVE_PROJECT = (
    projects.update()
    .where(projects.c.id == _P_ID)
    .values({name: bindparam(f"v_{name}") for name in ("name", "s3", "s3_secrets", "plan")})
)
_GET_USAGE = select(project_usage).where(project_usage.c.project_id == _P_PROJECT)
_ADD_USAGE = (
    project_usage.update()
    .where(project_usage.c.project_id == _P_PROJECT)
    .values({name: project_usage.c[name] + bindparam(f"d_{name}") for name in _COUNTERS})
)

_FIND_API_KEY = select(api_keys).where(api_keys.c.digest == bindparam("p_digest"))
_LIST_API_KEYS = (
    select(api_keys).where(api_keys.c.project_id == _P_PROJECT).order_by(api_keys.c.created_at, api_keys.c.id)
)
# A key that is revoked twice keeps the first moment.
_REVOKE_API_KEY = (
    api_keys.update()
    .where(api_keys.c.id == _P_ID, api_keys.c.project_id == _P_PROJECT)
    .values(
        revoked_at=func.coalesce(api_keys.c.revoked_at, bindparam("v_at", type_=api_keys.c.revoked_at.type))
    )
    .returning(*api_keys.c)
)
_TOUCH_API_KEY = (
    api_keys.update()
    .where(
        api_keys.c.id == _P_ID,
        or_(api_keys.c.last_used_at.is_(None), api_keys.c.last_used_at < bindparam("v_at")),
    )
    .values(last_used_at=bindparam("v_at"))
)
_FIND_LIVEKIT_KEY = select(livekit_keys).where(livekit_keys.c.api_key == _P_ID)
_LIST_LIVEKIT_KEYS = (
    select(livekit_keys)
    .where(livekit_keys.c.project_id == _P_PROJECT)
    .order_by(livekit_keys.c.created_at, livekit_keys.c.api_key)
)
_REVOKE_LIVEKIT_KEY = livekit_keys.delete().where(
    livekit_keys.c.api_key == _P_ID, livekit_keys.c.project_id == _P_PROJECT
)


def s3_secrets_context(project_id: str) -> str:
    return f"projects|{project_id}|s3_secrets"


def livekit_secret_context(api_key: str) -> str:
    return f"livekit_keys|{api_key}|api_secret"


class SqlProjects:
    """Implements `ProjectRepository`."""

    def __init__(self, session: Session, box: SecretBox) -> None:
        self._session = session
        self._box = box

    async def add(self, project: Project) -> None:
        """Raise ServiceError already_exists if the id is taken."""
        values = {"id": project.id, "created_at": project.created_at, **self._columns(project)}
        if await fetch_first(self._session, _ADD_PROJECT, values) is None:
            raise ServiceError(Code.ALREADY_EXISTS, f"project {project.id} already exists")
        await execute(self._session, _ADD_USAGE_ROW, {"project_id": project.id, **asdict(Usage())})

    async def get(self, project_id: ProjectId) -> Project | None:
        row = await fetch_first(self._session, _GET_PROJECT, {"p_id": project_id})
        return None if row is None else self._project(row)

    async def list(self, *, page: int, size: int) -> tuple[tuple[Project, ...], int]:
        window = {"p_limit": size, "p_offset": (page - 1) * size}
        rows, total = await self._session.run(
            lambda c: (c.execute(_LIST_PROJECTS, window).all(), c.execute(_COUNT_PROJECTS).scalar_one())
        )
        return tuple(map(self._project, rows)), total

    async def save(self, project: Project) -> None:
        columns = {f"v_{name}": value for name, value in self._columns(project).items()}
        await execute(self._session, _SAVE_PROJECT, {"p_id": project.id, **columns})

    async def usage(self, project_id: ProjectId) -> Usage:
        row = await fetch_first(self._session, _GET_USAGE, {"p_project": project_id})
        return Usage() if row is None else Usage(*(getattr(row, name) for name in _COUNTERS))

    async def add_usage(self, project_id: ProjectId, delta: Usage) -> None:
        counters = {f"d_{name}": value for name, value in asdict(delta).items()}
        await execute(self._session, _ADD_USAGE, {"p_project": project_id, **counters})

    def _columns(self, project: Project) -> dict[str, Any]:
        s3, sealed = None, None
        if project.s3 is not None:
            s3 = asdict(project.s3)
            secrets = {name: s3.pop(name) for name in ("access_key", "secret_key")}
            if any(secrets.values()):
                sealed = self._box.seal(json.dumps(secrets).encode(), context=s3_secrets_context(project.id))
        return {"name": project.name, "s3": s3, "s3_secrets": sealed, "plan": asdict(project.plan)}

    def _project(self, row: AnyRow) -> Project:
        s3 = None
        if row.s3 is not None:
            secrets = {}
            if row.s3_secrets is not None:
                secrets = json.loads(self._box.open(row.s3_secrets, context=s3_secrets_context(row.id)))
            s3 = S3Config(**row.s3, **secrets)
        return Project(ProjectId(row.id), row.name, row.created_at, s3, Plan(**row.plan))


class SqlKeys:
    """Implements `KeyRepository`."""

    def __init__(self, session: Session, box: SecretBox) -> None:
        self._session = session
        self._box = box

    async def add_api_key(self, key: ApiKey) -> None:
        await execute(self._session, api_keys.insert(), asdict(key))

    async def find_api_key(self, digest: str) -> ApiKey | None:
        row = await fetch_first(self._session, _FIND_API_KEY, {"p_digest": digest})
        return None if row is None else _api_key(row)

    async def list_api_keys(self, project_id: ProjectId) -> tuple[ApiKey, ...]:
        return tuple(map(_api_key, await fetch_all(self._session, _LIST_API_KEYS, {"p_project": project_id})))

    async def revoke_api_key(self, project_id: ProjectId, key_id: str, at: datetime) -> ApiKey | None:
        values = {"p_project": project_id, "p_id": key_id, "v_at": at}
        row = await fetch_first(self._session, _REVOKE_API_KEY, values)
        return None if row is None else _api_key(row)

    async def touch_api_key(self, key_id: str, at: datetime) -> None:
        await execute(self._session, _TOUCH_API_KEY, {"p_id": key_id, "v_at": at})

    async def add_livekit_key(self, key: LiveKitKey) -> None:
        sealed = self._box.seal(key.api_secret.encode(), context=livekit_secret_context(key.api_key))
        await execute(self._session, livekit_keys.insert(), {**asdict(key), "api_secret": sealed})

    async def find_livekit_key(self, api_key: str) -> LiveKitKey | None:
        row = await fetch_first(self._session, _FIND_LIVEKIT_KEY, {"p_id": api_key})
        return None if row is None else self._livekit_key(row)

    async def list_livekit_keys(self, project_id: ProjectId) -> tuple[LiveKitKey, ...]:
        rows = await fetch_all(self._session, _LIST_LIVEKIT_KEYS, {"p_project": project_id})
        return tuple(map(self._livekit_key, rows))

    async def revoke_livekit_key(self, project_id: ProjectId, api_key: str) -> bool:
        return bool(
            await execute(self._session, _REVOKE_LIVEKIT_KEY, {"p_project": project_id, "p_id": api_key})
        )

    def _livekit_key(self, row: AnyRow) -> LiveKitKey:
        secret = self._box.open(row.api_secret, context=livekit_secret_context(row.api_key)).decode()
        return LiveKitKey(row.api_key, ProjectId(row.project_id), secret, row.created_at)


def _api_key(row: AnyRow) -> ApiKey:
    return ApiKey(
        id=row.id,
        project_id=ProjectId(row.project_id),
        name=row.name,
        digest=row.digest,
        baxstream=row.baxstream,
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )
