"""What commands make of egresses and their orders."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from server.domain.egress import Destination, Egress, EgressStatus, Orders, Outputs, Results, StreamStatus
from server.domain.egress_sources import TrackSource
from server.egress.steering import (
    Command,
    ending,
    laying_out,
    pausing,
    removing,
    restreaming,
    waiting,
)
from server.errors import Code, ServiceError
from tests.contract.test_egress_rows import egress as stored

NOW = datetime(2026, 4, 17, 10, 0, 0, tzinfo=UTC)
FIRST = Destination("d1", "rtmp://live.test/app/first")
SECOND = Destination("d2", "rtmp://live.test/app/second")
ENDED = [status for status in EgressStatus if status.is_final]


def streaming(status: EgressStatus = EgressStatus.ACTIVE) -> Egress:
    made = stored()
    plan = replace(made.plan, outputs=Outputs(streams="rtmp"))
    return replace(made, status=status, plan=plan, results=Results(streams=(waiting(FIRST),)))


def refused(command: Command, egress: Egress, orders: Orders | None = None) -> ServiceError:
    with pytest.raises(ServiceError) as error:
        command(egress, orders or Orders())
    return error.value


class TestEnding:
    def test_what_runs_ends_at_once(self) -> None:
        after = ending("StopEgress API")(streaming(), Orders(version=4))
        assert (after.egress.status, after.egress.details) == (
            EgressStatus.ENDING,
            "End reason: StopEgress API",
        )
        assert after.orders == Orders(version=5, end_reason="StopEgress API")

    def test_what_has_not_begun_is_only_told(self) -> None:
        """Its owner says whether there was anything: ABORTED if not."""
        after = ending("StopEgress API")(streaming(EgressStatus.STARTING), Orders())
        assert after.egress.status is EgressStatus.STARTING
        assert after.orders.end_reason == "StopEgress API"

    def test_the_first_reason_stays(self) -> None:
        egress, orders = streaming(EgressStatus.ENDING), Orders(version=1, end_reason="Source closed")
        assert ending("StopEgress API")(egress, orders).orders is orders

    @pytest.mark.parametrize("status", ENDED)
    def test_what_has_ended(self, status: EgressStatus) -> None:
        error = refused(ending("x"), streaming(status))
        assert error.code is Code.FAILED_PRECONDITION
        assert error.message == f"egress with status {status.value} cannot be stopped"

    @pytest.mark.parametrize("status", EgressStatus)
    def test_removing_ends_what_runs(self, status: EgressStatus) -> None:
        after = removing(NOW)(streaming(status), Orders())
        assert after.egress.deleted_at == NOW
        assert bool(after.orders.end_reason) is not status.is_final


class TestLayout:
    def test_of_a_running_composition(self) -> None:
        after = laying_out("speaker")(stored(), Orders(layout="grid"))
        assert (after.egress.layout, after.orders.layout, after.orders.version) == ("speaker", "speaker", 1)

    def test_of_what_has_none(self) -> None:
        """LiveKit finds no recorder in the room then."""
        track = replace(stored(), plan=replace(stored().plan, source=TrackSource("TR_1")))
        for egress in (track, replace(stored(), status=EgressStatus.COMPLETE)):
            assert refused(laying_out("grid"), egress).code is Code.NOT_FOUND


class TestPausing:
    def test_twice_is_once(self) -> None:
        after = pausing("cut")(streaming(), Orders())
        assert (after.egress.paused, after.orders.paused, after.orders.version) == ("cut", "cut", 1)
        assert pausing("cut")(after.egress, after.orders).orders is after.orders
        on = pausing("")(after.egress, after.orders)
        assert (on.egress.paused, on.orders.paused, on.orders.version) == ("", "", 2)

    def test_what_is_ending(self) -> None:
        told = Orders(end_reason="StopEgress API")
        assert "cannot be paused" in refused(pausing("cut"), streaming(), told).message
        assert "cannot be resumed" in refused(pausing(""), streaming(EgressStatus.ENDING)).message


class TestStreams:
    def test_those_that_are_over_are_no_longer_wanted(self) -> None:
        """One that failed may be asked for again, as another."""
        egress = streaming()
        failed = replace(egress.results.streams[0], status=StreamStatus.FAILED)
        egress = replace(egress, results=Results(streams=(failed,)))
        again = replace(FIRST, id="d3")
        after = restreaming([again], [])(egress, Orders(destinations=(FIRST,)))
        assert after.orders.destinations == (again,)
        assert [one.id for one in after.egress.results.streams] == ["d1", "d3"]

    def test_what_is_there_is_not_added_twice(self) -> None:
        egress, orders = streaming(), Orders(destinations=(FIRST,))
        after = restreaming([replace(FIRST, id="d3")], [])(egress, orders)
        assert after.orders is orders
        assert after.egress is egress

    def test_what_is_unknown_is_said_and_the_rest_done(self) -> None:
        orders = Orders(destinations=(FIRST,))
        after = restreaming([SECOND], ["rtmp://live.test/app/nobody", "d1"])(streaming(), orders)
        assert after.orders.destinations == (SECOND,)
        assert after.problems == ("stream rtmp://live.test/app/{no...dy} not found",)

    @pytest.mark.parametrize("kind", ["", "websocket"])
    def test_of_what_streams_nowhere(self, kind: str) -> None:
        egress = streaming()
        egress = replace(egress, plan=replace(egress.plan, outputs=Outputs(streams=kind)))
        error = refused(restreaming([FIRST], []), egress)
        assert (error.code, error.message) == (
            Code.INVALID_ARGUMENT,
            "UpdateStream called on non-streaming egress",
        )

    def test_of_what_is_ending(self) -> None:
        error = refused(restreaming([SECOND], []), streaming(EgressStatus.ENDING))
        assert error.message == "egress with status EGRESS_ENDING cannot be updated"
