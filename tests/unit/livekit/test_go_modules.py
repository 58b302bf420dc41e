"""When the tests of Go clients are left out: where no module can be fetched, never for what is wrong with one."""

from __future__ import annotations

import pytest

from tests.livekit.go_client import is_unreachable

_ONE = "main.go:4:2: github.com/twitchtv/twirp@v8.1.3+incompatible: "
_ZIP = "https://modules.example/github.com/twitchtv/twirp/@v/v8.1.3+incompatible.zip"
_DOWN = f'{_ONE}Get "{_ZIP}": dial tcp 127.0.0.1:1: connect: connection refused\n'
_REFUSED = f"{_ONE}reading {_ZIP}: 403 Forbidden\n"


@pytest.mark.parametrize(
    "said",
    [
        _DOWN,
        f'{_ONE}Get "{_ZIP}": dial tcp: lookup modules.example on 10.0.0.53:53: no such host\n',
        f'{_ONE}Get "{_ZIP}": proxyconnect tcp: dial tcp 10.0.0.1:3128: i/o timeout\n',
        f'{_ONE}Get "{_ZIP}": net/http: TLS handshake timeout\n',
        f'go: downloading x\n{_ONE}Get "{_ZIP}": Forbidden\n{_ONE}Get "{_ZIP}": Forbidden\n',
    ],
)
def test_without_a_way_to_modules(said: str) -> None:
    assert is_unreachable(said)


@pytest.mark.parametrize(
    "said",
    [
        "",
        _REFUSED,
        f"{_DOWN}{_REFUSED}",
        f"{_ONE}reading {_ZIP}: 404 Not Found\n",
        f"verifying github.com/twitchtv/twirp@v8.1.3: checksum mismatch\n\nSECURITY ERROR\n{_DOWN}",
        "main.go:4:2: missing go.sum entry for module providing package github.com/twitchtv/twirp\n",
        "./main.go:9:6: undefined: connection refused\n",
        "panic: dial tcp 127.0.0.1:1: connect: connection refused\n",
    ],
)
def test_what_is_wrong_with_a_module(said: str) -> None:
    assert not is_unreachable(said)
