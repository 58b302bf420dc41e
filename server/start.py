"""Opens a backend, and says in one sentence why it cannot be opened."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from server.app import Backend, open_backend
from server.errors import ServiceError
from server.ports.secret_box import SecretsUnreadable
from server.settings import Settings


class StartError(Exception):
    """The server cannot start; the message tells the operator why, without secrets."""


@asynccontextmanager
async def opened_backend(
    settings: Settings, *, public_url: str, with_worker: bool, local_url: str | None = None
) -> AsyncIterator[Backend]:
    """`open_backend`, raising StartError for what the operator has to mend; faults inside the block pass as they are."""
    async with AsyncExitStack() as stack:
        opening = open_backend(settings, public_url=public_url, with_worker=with_worker, local_url=local_url)
        try:
            backend = await stack.enter_async_context(opening)
        except ServiceError as error:
            raise StartError(error.message) from error
        except (SecretsUnreadable, ValueError, OSError) as error:
            raise StartError(str(error)) from error
        yield backend
