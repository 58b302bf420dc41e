"""Jobs: each change of state is one compare-and-set, fenced by the epoch of the claim."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, func, select
from sqlalchemy.sql import ColumnElement

from adapters.db.session import AnyRow, Session, execute, fetch_first
from adapters.db.tables import jobs
from server.clock import Clock
from server.domain.job import Job, JobPage, JobStatus, NewJob, Progress
from server.ids import JobId, ProjectId
from server.ports.secret_box import SecretBox

_PENDING, _PROCESSING = JobStatus.PENDING.value, JobStatus.PROCESSING.value
# Everything but the sealed secrets, which only the worker that runs the job asks for, and the engine's own columns.
_COLUMNS = tuple(column for column in jobs.c if column.name not in {"secrets", "due_at", "beat", "losses"})

_ID = jobs.c.id == bindparam("p_id")
_PROJECT = jobs.c.project_id == bindparam("p_project")
_FENCE = jobs.c.epoch == bindparam("p_epoch")
_RUNNING = jobs.c.status == _PROCESSING


def _value(name: str) -> ColumnElement[Any]:
    return bindparam(f"v_{name}", type_=jobs.c[name].type)


_ADD = jobs.insert().returning(*_COLUMNS)
_GET = select(*_COLUMNS).where(_ID)
_GET_OF_PROJECT = select(*_COLUMNS).where(_ID, _PROJECT)
_SECRETS = select(jobs.c.secrets).where(_ID)
_CLAIM = (
    jobs.update()
    .where(_ID, jobs.c.status.in_((_PENDING, _PROCESSING)))
    .values(
        status=_PROCESSING,
        owner=_value("owner"),
        epoch=jobs.c.epoch + 1,
        attempt=jobs.c.attempt + 1,
        started_at=func.coalesce(jobs.c.started_at, _value("started_at")),
        updated_at=_value("started_at"),
    )
    .returning(*_COLUMNS)
)
_CANCEL = (
    jobs.update()
    .where(_ID, _PROJECT, jobs.c.status == _PENDING)
    .values(status=JobStatus.CANCELLED.value, updated_at=_value("updated_at"))
)
_RELEASE = (
    jobs.update()
    .where(_ID, _FENCE, _RUNNING)
    .values(
        status=_PENDING,
        owner=None,
        attempt=jobs.c.attempt - bindparam("v_refund"),
        updated_at=_value("updated_at"),
    )
)
_UPDATE = (
    jobs.update()
    .where(_ID, _FENCE, _RUNNING)
    .values(
        progress=func.coalesce(_value("progress"), jobs.c.progress),
        playable_at=func.coalesce(_value("playable_at"), jobs.c.playable_at),
        updated_at=_value("updated_at"),
    )
)
_UPDATE_RESULT = _UPDATE.values(result=_value("result"))
_LOCKED_RESULT = select(jobs.c.result).where(_ID, _FENCE, _RUNNING).with_for_update()
_COMPLETE = (
    jobs.update()
    .where(_ID, _FENCE, _RUNNING)
    .values(
        status=JobStatus.COMPLETED.value,
        result=_value("result"),
        completed_at=_value("completed_at"),
        updated_at=_value("completed_at"),
        owner=None,
    )
)
# Also from PENDING: attempts can be used up before any worker could claim the job again.
_FAIL = (
    jobs.update()
    .where(_ID, _FENCE, jobs.c.status.in_((_PENDING, _PROCESSING)))
    .values(
        status=JobStatus.FAILED.value,
        error_code=_value("error_code"),
        error_message=_value("error_message"),
        failed_at=_value("failed_at"),
        updated_at=_value("failed_at"),
        owner=None,
    )
)

_HAS_ENDED = jobs.c.status.in_([status.value for status in JobStatus if status.is_final])
_ENDED_RESULT = select(jobs.c.result).where(_ID, _HAS_ENDED).with_for_update()
_AMEND = jobs.update().where(_ID, _HAS_ENDED).values(result=_value("result"))


def _listing(by_status: bool) -> tuple[Any, Any]:
    """The page and the count over all pages."""
    where = [_PROJECT, jobs.c.kind == bindparam("p_kind")]
    if by_status:
        where.append(jobs.c.status == bindparam("p_status"))
    page = (
        select(*_COLUMNS)
        .where(*where)
        .order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
        .limit(bindparam("p_limit"))
        .offset(bindparam("p_offset"))
    )
    return page, select(func.count()).select_from(jobs).where(*where)


_LISTINGS = {by_status: _listing(by_status) for by_status in (False, True)}


def job_secrets_context(job_id: str) -> str:
    return f"jobs|{job_id}|secrets"


class SqlJobs:
    """Implements `JobRepository`."""

    def __init__(self, session: Session, box: SecretBox, clock: Clock) -> None:
        self._session = session
        self._box = box
        self._clock = clock

    async def add(self, job: NewJob, now: datetime) -> Job:
        sealed = None
        if job.secrets:
            sealed = self._box.seal(
                json.dumps(dict(job.secrets)).encode(), context=job_secrets_context(job.id)
            )
        row = await fetch_first(
            self._session,
            _ADD,
            {
                "id": job.id,
                "project_id": job.project_id,
                "kind": job.kind,
                "status": _PENDING,
                "spec": job.spec,
                "metadata": job.metadata,
                "secrets": sealed,
                "attempt": 0,
                "max_attempts": job.max_attempts,
                "epoch": 0,
                "result": {},
                "created_at": now,
                "updated_at": now,
            },
        )
        assert row is not None
        return _job(row)

    async def get(self, project_id: ProjectId | None, job_id: JobId) -> Job | None:
        """None also if it belongs to another project; `project_id=None` is for workers."""
        if project_id is None:
            row = await fetch_first(self._session, _GET, {"p_id": job_id})
        else:
            row = await fetch_first(self._session, _GET_OF_PROJECT, {"p_id": job_id, "p_project": project_id})
        return None if row is None else _job(row)

    async def secrets(self, job_id: JobId) -> Mapping[str, Any]:
        row = await fetch_first(self._session, _SECRETS, {"p_id": job_id})
        if row is None or row.secrets is None:
            return {}
        opened: dict[str, Any] = json.loads(self._box.open(row.secrets, context=job_secrets_context(job_id)))
        return opened

    async def list(
        self, project_id: ProjectId, *, kind: str, status: JobStatus | None, page: int, size: int
    ) -> JobPage:
        """Newest first."""
        listing, count = _LISTINGS[status is not None]
        where = {"p_project": project_id, "p_kind": kind}
        if status is not None:
            where["p_status"] = status.value
        window = {**where, "p_limit": size, "p_offset": (page - 1) * size}
        rows, total = await self._session.run(
            lambda c: (c.execute(listing, window).all(), c.execute(count, where).scalar_one())
        )
        return JobPage(tuple(map(_job, rows)), total)

    async def claim(self, job_id: JobId, *, owner: str, now: datetime) -> Job | None:
        row = await fetch_first(
            self._session, _CLAIM, {"p_id": job_id, "v_owner": owner, "v_started_at": now}
        )
        return None if row is None else _job(row)

    async def cancel(self, project_id: ProjectId, job_id: JobId, now: datetime) -> bool:
        values = {"p_id": job_id, "p_project": project_id, "v_updated_at": now}
        return bool(await execute(self._session, _CANCEL, values))

    async def release(self, job_id: JobId, *, epoch: int, refund_attempt: bool) -> bool:
        values = {"v_refund": int(refund_attempt), "v_updated_at": self._clock.now()}
        return bool(await execute(self._session, _RELEASE, {"p_id": job_id, "p_epoch": epoch, **values}))

    async def update(
        self,
        job_id: JobId,
        *,
        epoch: int,
        progress: Progress | None = None,
        result: Mapping[str, Any] | None = None,
        playable_at: datetime | None = None,
    ) -> bool:
        """Merges `result` (shallow) into the stored one; None leaves a value as it is."""
        fence = {"p_id": job_id, "p_epoch": epoch}
        values: dict[str, Any] = {
            **fence,
            "v_progress": None if progress is None else asdict(progress),
            "v_playable_at": playable_at,
            "v_updated_at": self._clock.now(),
        }
        if result is None:
            return bool(await execute(self._session, _UPDATE, values))
        return await self._session.run(lambda c: _merge(c, _UPDATE_RESULT, fence, values, result))

    async def complete(self, job_id: JobId, *, epoch: int, result: Mapping[str, Any], now: datetime) -> bool:
        """Merges `result` like `update`."""
        fence = {"p_id": job_id, "p_epoch": epoch}
        values = {**fence, "v_completed_at": now}
        return await self._session.run(lambda c: _merge(c, _COMPLETE, fence, values, result))

    async def fail(self, job_id: JobId, *, epoch: int, code: str, message: str, now: datetime) -> bool:
        values = {
            "p_id": job_id,
            "p_epoch": epoch,
            "v_error_code": code,
            # PostgreSQL's text holds no NUL, and a message quotes other programs' output.
            "v_error_message": message.replace("\0", ""),
            "v_failed_at": now,
        }
        return bool(await execute(self._session, _FAIL, values))

    async def amend(self, job_id: JobId, *, result: Mapping[str, Any]) -> bool:
        """Merges `result` like `update`."""
        where = {"p_id": job_id}
        return await self._session.run(
            lambda c: _merge(c, _AMEND, where, where, result, locked=_ENDED_RESULT)
        )


def _merge(
    connection: Connection,
    statement: Any,
    fence: Mapping[str, Any],
    values: Mapping[str, Any],
    result: Mapping[str, Any],
    *,
    locked: Any = _LOCKED_RESULT,
) -> bool:
    stored = connection.execute(locked, fence).first()
    if stored is None:
        return False
    merged = {**stored.result, **result}
    return bool(connection.execute(statement, {**values, "v_result": merged}).rowcount)


def _job(row: AnyRow) -> Job:
    values = dict(row._mapping)
    progress = values["progress"]
    values["progress"] = None if progress is None else Progress(**progress)
    values["status"] = JobStatus(values["status"])
    return Job(**values)
