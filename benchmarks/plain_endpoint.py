"""GetConversionJob as FastAPI's and SQLAlchemy's own tutorials would write it, on the tables of a BaxCloud database."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from pydantic import BaseModel, ConfigDict
from sqlalchemy import JSON, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class ApiKeyRow(Base):
    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str]
    digest: Mapped[str]
    baxstream: Mapped[bool]
    revoked_at: Mapped[int | None]


class JobRow(Base):
    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str]
    status: Mapped[str]
    spec: Mapped[Any] = mapped_column(JSON)
    result: Mapped[Any] = mapped_column(JSON)
    progress: Mapped[Any] = mapped_column(JSON)
    attempt: Mapped[int]
    created_at: Mapped[int]
    updated_at: Mapped[int]


class JobOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str
    project_id: str
    status: str
    spec: dict[str, Any]
    result: dict[str, Any]
    progress: dict[str, Any] | None
    attempt: int
    created_at: int
    updated_at: int


async def session(request: Request) -> AsyncIterator[AsyncSession]:
    async with request.app.state.sessions() as opened:
        yield opened


Session = Annotated[AsyncSession, Depends(session)]


async def caller(
    db: Session, authorization: Annotated[str, Header()], x_project_id: Annotated[str, Header()]
) -> ApiKeyRow:
    digest = hashlib.sha256(authorization.removeprefix("Bearer ").encode()).hexdigest()
    key = await db.scalar(select(ApiKeyRow).where(ApiKeyRow.digest == digest))
    if key is None or key.revoked_at is not None:
        raise HTTPException(401)
    if key.project_id != x_project_id or not key.baxstream:
        raise HTTPException(403)
    return key


async def get_job(job_id: str, db: Session, key: Annotated[ApiKeyRow, Depends(caller)]) -> JobRow:
    job = await db.scalar(select(JobRow).where(JobRow.id == job_id, JobRow.project_id == key.project_id))
    if job is None:
        raise HTTPException(404)
    return job


def application(database: str) -> FastAPI:
    """`database` is the path of a SQLite file."""
    app = FastAPI()
    app.state.sessions = async_sessionmaker(
        create_async_engine(f"sqlite+aiosqlite:///{database}"), expire_on_commit=False
    )
    app.get("/video/jobs/{job_id}", response_model=JobOut)(get_job)
    return app
