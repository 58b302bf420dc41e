"""The retry schedule."""

from __future__ import annotations

from datetime import timedelta

from server.webhooks.schedule import DEFAULT_DELAYS, RetrySchedule, schedule_of_seconds


def test_default_is_the_designs() -> None:
    """Design section 12, B-16: ten pauses, about 75 hours, then no more."""
    schedule = RetrySchedule(jitter=0)
    pauses = [schedule.pause("whd_1", failed) for failed in range(1, 12)]
    minute, hour = timedelta(minutes=1), timedelta(hours=1)
    assert pauses == [
        timedelta(seconds=5), timedelta(seconds=30), 5 * minute, 30 * minute, 2 * hour, 5 * hour, 10 * hour,
        14 * hour, 20 * hour, 24 * hour, None,
    ]  # fmt: skip
    assert timedelta(hours=75) < sum(DEFAULT_DELAYS, timedelta()) < timedelta(hours=76)


def test_jitter_spreads_by_a_tenth_and_is_the_same_each_time() -> None:
    schedule = RetrySchedule((timedelta(seconds=100),), jitter=0.1)
    pauses = [schedule.pause(f"whd_{n}", 1) for n in range(200)]
    assert all(
        pause is not None and timedelta(seconds=90) <= pause <= timedelta(seconds=110) for pause in pauses
    )
    assert len(set(pauses)) > 150
    assert pauses == [schedule.pause(f"whd_{n}", 1) for n in range(200)]


def test_a_configured_list_of_seconds() -> None:
    schedule = schedule_of_seconds([1, 2.5], jitter=0)
    assert schedule.pause("whd_1", 2) == timedelta(seconds=2.5)
    assert schedule.pause("whd_1", 3) is None
    assert schedule_of_seconds([]).pause("whd_1", 1) is None
