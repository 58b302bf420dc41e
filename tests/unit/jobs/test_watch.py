"""When a worker counts as lost: a beat that stands still for a lease, seen without interruption."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from server.domain.job import RunningJob
from server.ids import JobId
from server.jobs.watch import LossWatch

LEASE, STEP = 15.0, 3.0
JOB = RunningJob(JobId("cm1"), "conversion", "host/a", epoch=1, beat=0, attempt=1, max_attempts=3)


@dataclass
class Bench:
    """A watch on a clock that is set by hand."""

    now: float = 1000.0
    gone: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.watch = LossWatch(
            lease_sec=LEASE,
            max_gap_sec=2 * STEP,
            is_gone=lambda job: job.owner in self.gone,
            monotonic=lambda: self.now,
        )

    def look(self, *jobs: RunningJob, after: float = STEP) -> RunningJob | None:
        self.now += after
        self.watch.observe(jobs)
        return self.watch.lost("conversion")


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_beat_that_stands_still_for_a_lease_is_lost(bench: Bench) -> None:
    """2.6, case 31."""
    seen = [bench.look(JOB) for _ in range(6)]
    assert seen == [None] * 5 + [JOB]


def test_each_beat_starts_the_lease_anew(bench: Bench) -> None:
    for beat in range(20):
        assert bench.look(replace(JOB, beat=beat // 4)) is None


def test_a_new_claim_starts_the_lease_anew(bench: Bench) -> None:
    for epoch in range(20):
        assert bench.look(replace(JOB, epoch=epoch // 4)) is None


def test_looks_that_were_interrupted_prove_nothing(bench: Bench) -> None:
    """Cases 37, 38: the database was down or the machine slept; the owner may have been cut off like us."""
    for _ in range(5):
        assert bench.look(JOB) is None
    assert bench.look(JOB, after=3600.0) is None
    assert [bench.look(JOB) for _ in range(5)] == [None] * 4 + [JOB]


def test_a_job_that_came_back_is_watched_from_the_start(bench: Bench) -> None:
    for _ in range(5):
        bench.look(JOB)
    assert bench.look() is None
    assert bench.look(JOB) is None


def test_a_process_known_to_be_dead_is_lost_at_first_sight(bench: Bench) -> None:
    bench.gone = frozenset({"host/a"})
    assert bench.look(JOB, replace(JOB, id=JobId("cm2"), owner="host/b")) == JOB


def test_what_was_settled_is_not_lost_again_until_the_next_look(bench: Bench) -> None:
    bench.gone = frozenset({"host/a"})
    bench.look(JOB)
    bench.watch.settled(JOB)
    assert bench.watch.lost("conversion") is None
    assert bench.look(JOB) == JOB


def test_only_jobs_of_the_kind_asked_for(bench: Bench) -> None:
    bench.gone = frozenset({"host/a"})
    assert bench.look(replace(JOB, kind="egress")) is None
    assert bench.watch.lost("egress") is not None
