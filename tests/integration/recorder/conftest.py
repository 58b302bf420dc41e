"""Fixtures of the recorder's tests."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest

from adapters.recorder.process import RecorderPool
from tests.people import People
from tests.servers.livekit import LiveKitServer


@pytest.fixture
async def pool() -> AsyncIterator[RecorderPool]:
    recorders = RecorderPool()
    yield recorders
    await recorders.aclose()


@pytest.fixture
async def people(livekit: LiveKitServer) -> AsyncIterator[People]:
    async with People(livekit) as crowd:
        yield crowd


@pytest.fixture
def room() -> str:
    return f"room-{uuid.uuid4().hex[:8]}"
