"""The rate limit: bursts up to a minute's worth, then one call per refill, each key by itself."""

from __future__ import annotations

import pytest

from server.context import Caller, CallerKind
from server.errors import ServiceError
from server.ids import ProjectId
from server.rpc.rate_limit import RateLimit

KEY = Caller(CallerKind.API_KEY, ProjectId("clp"), "key_a")
OTHER = Caller(CallerKind.API_KEY, ProjectId("clp"), "key_b")
OPERATOR = Caller(CallerKind.ADMIN, None)


class Seconds:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_used_up_key_waits_and_others_do_not() -> None:
    """Design section 13: rate limits exist; 429 says how long to wait."""
    seconds = Seconds()
    limit = RateLimit(30, monotonic=seconds)
    for _ in range(30):
        limit.spend(KEY)
    with pytest.raises(ServiceError) as refused:
        limit.spend(KEY)
    assert (refused.value.rest_status, refused.value.rest_code) == (429, "RATE_LIMITED")
    assert refused.value.retry_after_sec == 2
    limit.spend(OTHER)
    for _ in range(100):
        limit.spend(OPERATOR)
    seconds.now += 2
    limit.spend(KEY)
    with pytest.raises(ServiceError):
        limit.spend(KEY)
    seconds.now += 3600
    for _ in range(30):
        limit.spend(KEY)
    with pytest.raises(ServiceError):
        limit.spend(KEY)
