"""One server stands for both hosts of the specification: api.baxcloud.io and api.baxcloud.tech (B-01)."""

from __future__ import annotations

import pytest

from tests.transport.surface import Surface, headers_for

BAXSTREAM_ROUTES = [
    ("POST", "/video/convert"),
    ("POST", "/video/upload"),
    ("GET", "/video/jobs"),
    ("GET", "/video/jobs/cmjob"),
    ("GET", "/video/jobs/cmjob/events"),
    ("DELETE", "/video/jobs/cmjob"),
    *(
        route
        for feature in ("categorize", "moderate")
        for route in (
            ("POST", f"/video/{feature}"),
            ("GET", f"/video/{feature}/jobs"),
            ("GET", f"/video/{feature}/jobs/cmjob"),
            ("POST", f"/{feature}/video"),
            ("POST", f"/{feature}/image"),
            ("GET", f"/{feature}/jobs"),
            ("GET", f"/{feature}/jobs/cmjob"),
        )
    ),
]


@pytest.mark.parametrize(("verb", "path"), BAXSTREAM_ROUTES)
async def test_every_path_of_baxstream_is_served(surface: Surface, verb: str, path: str) -> None:
    """GN-02: each asks for a key, which nothing does that is not there."""
    headers = {"host": "api.baxcloud.tech"}
    if path == "/video/upload":
        headers["content-type"] = "multipart/form-data; boundary=x"

    assert (await surface.rest(verb, path, None, headers)).status == 401
    assert (await surface.rest("GET", "/video/nothing/here", None, headers)).status == 404


@pytest.mark.parametrize("host", ["api.baxcloud.io", "api.baxcloud.tech", "video.example.com:8443"])
@pytest.mark.parametrize("path", ["/v1/rooms", "/video/jobs"])
async def test_the_host_that_was_called_does_not_matter(surface: Surface, host: str, path: str) -> None:
    """GN-01, GN-02: a client of either host may be pointed at this server under any name."""
    answer = await surface.rest("GET", path, None, {**headers_for(), "host": host})

    assert answer.status == 200
