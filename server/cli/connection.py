"""Where a command's calls go: to the server at BAX_URL, or to the services in this process."""

from __future__ import annotations

import os
from contextlib import AbstractAsyncContextManager
from urllib.parse import urlsplit

from server.cli.api import Api, Server
from server.cli.output import Failed


def server_url() -> str | None:
    """BAX_URL without its trailing slash; None means this process. Raise Failed for what is no address."""
    given = os.environ.get("BAX_URL", "").rstrip("/")
    if not given:
        return None
    parts = urlsplit(given)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        # Not repeated: it may hold a password.
        raise Failed("BAX_URL must be an http or https address, without user name and query")
    return given


def open_api(project_id: str | None) -> AbstractAsyncContextManager[Api]:
    """For calls within a project: BAX_API_KEY and BAX_PROJECT_ID at a server, else the operator of this machine."""
    url = server_url()
    if url is None:
        from server.cli.local import open_local

        return open_local(project_id or os.environ.get("BAX_PROJECT_ID"))
    from server.cli.remote import open_remote

    project = project_id or _needed("BAX_PROJECT_ID", "the project to act in")
    return open_remote(Server(url, _needed("BAX_API_KEY", "an API key of the project"), project))


def open_admin_api() -> AbstractAsyncContextManager[Api]:
    """For the operator's calls: BAX_ADMIN_TOKEN at a server, else the operator of this machine."""
    url = server_url()
    if url is None:
        from server.cli.local import open_local

        return open_local(None)
    from server.cli.remote import open_remote

    return open_remote(Server(url, _needed("BAX_ADMIN_TOKEN", "the server's admin token"), ""))


def _needed(variable: str, what: str) -> str:
    value = os.environ.get(variable)
    if not value:
        raise Failed(f"{variable} is needed with BAX_URL: {what}")
    return value
