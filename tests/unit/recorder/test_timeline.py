"""The clock: one picture and its sound per tick, whatever happens to the machine."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from adapters.recorder import timeline
from adapters.recorder.pictures import Pictures
from adapters.recorder.timeline import Clock, Scene, Timeline
from tests.unit.recorder.test_pictures import Raw

FPS = 50


class Notes:
    """Takes the place of the program: what came, in order."""

    def __init__(self, wanted: int, slow: Callable[[int], float] = lambda _: 0.0) -> None:
        self.started_at = 0
        self.frames: list[tuple[object, int]] = []
        self.samples: list[int] = []
        self.enough = threading.Event()
        self._wanted, self._slow = wanted, slow

    def video(self, frame: object, number: int) -> None:
        self.frames.append((frame, number))
        time.sleep(self._slow(number))
        if len(self.frames) >= self._wanted:
            self.enough.set()

    def audio(self, samples: np.ndarray[Any, Any]) -> None:
        self.samples.append(len(samples))


class Canvas:
    """Composes a new object for each frame."""

    def __init__(self) -> None:
        self.cards: list[str] = []

    def compose(self, *_: object) -> tuple[object, bool]:
        return object(), True

    def card(self, text: str) -> object:
        self.cards.append(text)
        return text


def clockwork(
    notes: Any, canvas: Any, failed: Callable[[Exception], None] | None = None, *, limit_sec: float = 0.0
) -> Timeline:
    def unexpected(error: Exception) -> None:
        raise error

    return Timeline(
        notes,
        canvas,
        Clock(),
        fps=FPS,
        with_audio=True,
        began=lambda _: None,
        failed=failed or unexpected,
        limit_sec=limit_sec,
    )


def run(notes: Notes, canvas: Canvas, *, live: bool = False) -> Timeline:
    line = clockwork(notes, canvas)
    line.live = live
    line.start()
    assert notes.enough.wait(20)
    line.stop()
    return line


def test_every_number_once_with_its_sound() -> None:
    notes = Notes(30)
    line = run(notes, Canvas())
    assert [number for _, number in notes.frames] == list(range(len(notes.frames)))
    assert set(notes.samples) == {48_000 // FPS}
    assert line.counts.composed == len(notes.frames)
    assert line.seconds == pytest.approx(len(notes.frames) / FPS)


def test_what_is_late_is_repeated_and_counted() -> None:
    notes = Notes(60, slow=lambda number: 0.7 if number == 10 else 0.0)
    line = run(notes, Canvas(), live=True)
    assert line.counts.repeated >= 2
    assert [number for _, number in notes.frames] == list(range(len(notes.frames)))
    pictures = [frame for frame, _ in notes.frames]
    assert pictures[10] is pictures[11]


def test_a_file_can_wait_and_its_lag_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every picture that was due is shown in its turn, after a time that would be too long for a stream."""
    monkeypatch.setattr(timeline, "_LATE_SEC", 2.5)
    notes = Notes(60, slow=lambda number: 0.5 if number == 10 else 0.0)
    line = run(notes, Canvas())
    assert line.counts.repeated == 0
    assert len({id(frame) for frame, _ in notes.frames}) == len(notes.frames)


def test_a_machine_that_is_too_slow_still_shows_something_new() -> None:
    notes = Notes(60, slow=lambda _: 0.03)
    run(notes, Canvas(), live=True)
    pictures = [frame for frame, _ in notes.frames]
    assert len({id(one) for one in pictures}) >= len(pictures) // 3


def test_what_was_due_at_the_end_is_made_up_for() -> None:
    """Who lags when it is stopped has the rest at hand; what was cut out when it is stopped is not wanted."""
    notes = Notes(11, slow=lambda number: 0.4 if number == 10 else 0.0)
    line = run(notes, Canvas())
    assert len(notes.frames) >= 11 + int(0.35 * FPS)
    assert line.counts.repeated == 0

    paused = Notes(5)
    line = clockwork(paused, Canvas())
    line.start()
    assert paused.enough.wait(20)
    line.cut(on=True)
    threading.Event().wait(0.4)
    seen = len(paused.frames)
    line.stop()
    assert len(paused.frames) == seen


def test_it_ends_after_its_time_however_late_it_is() -> None:
    """What is made up for at the end is not more than was asked for."""
    notes = Notes(20, slow=lambda number: 0.5 if number == 10 else 0.0)
    line = clockwork(notes, Canvas(), limit_sec=20 / FPS)
    line.start()
    assert notes.enough.wait(20)
    line.stop()
    assert line.seconds == 20 / FPS
    assert len(notes.frames) == 20


def test_frames_that_are_late_show_what_was_when_they_were_due() -> None:
    """The scene changes while frame 10 takes its time: those that were due before are of the old one."""
    changed: list[float] = []

    def slow(number: int) -> float:
        if number == 10:
            threading.Event().wait(0.3)
            line.show(Scene(card="After"))
            changed.append(line._scenes[-1][0])
            threading.Event().wait(0.3)
        return 0.0

    notes = Notes(60, slow)
    line = clockwork(notes, Canvas())
    line.show(Scene(card="Before"))
    line.start()
    assert notes.enough.wait(20)
    line.stop()
    cards = [frame for frame, _ in notes.frames]
    turn = cards.index("After")
    assert cards == ["Before"] * turn + ["After"] * (len(cards) - turn)
    assert turn == math.ceil((changed[0] - line._start) * FPS)


def test_where_it_is_counts_what_is_late_and_nothing_of_a_cut() -> None:
    """Who comes while frame 10 takes its time comes then, not at frame 10, and not in the cut."""
    seen: list[tuple[float, float]] = []

    def slow(number: int) -> float:
        if number == 10:
            threading.Event().wait(0.4)
            seen.append((line.position, time.monotonic() - line._start))
            line.cut(True)
            threading.Event().wait(0.6)
            seen.append((line.position, line._cuts[-1][0] - line._start))
        return 0.0

    notes = Notes(11, slow)
    line = clockwork(notes, Canvas())
    assert line.position == 0
    line.start()
    assert notes.enough.wait(20)
    line.stop()
    assert [where for where, _ in seen] == [pytest.approx(when, abs=0.3) for _, when in seen]
    assert line.position == line.seconds


def test_what_was_due_too_long_before_the_end_is_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "_STALL_SEC", 0.3)
    notes = Notes(11, slow=lambda number: 0.6 if number == 10 else 0.0)
    line = run(notes, Canvas())
    (gap,) = line.counts.gaps
    assert gap["reason"] == "STALLED"
    assert line.counts.dropped >= 0.5 * FPS


@pytest.mark.parametrize("goes_on", [True, False])
def test_late_frames_of_before_a_cut_are_made_and_none_of_the_cut(goes_on: bool) -> None:
    """It is cut, and ends or goes on and ends, all while frame 10 takes its time."""
    moments: list[float] = []

    def slow(number: int) -> float:
        if number == 10:
            threading.Event().wait(0.3)
            line.cut(True)
            moments.append(line._cuts[-1][0] - line._start)
            threading.Event().wait(0.5)
            if goes_on:
                line.cut(False)
                moments.append(line._cuts[-1][0])
            notes.enough.set()
        return 0.0

    notes = Notes(1000, slow)
    line = clockwork(notes, Canvas())
    line.start()
    assert notes.enough.wait(20)
    line.stop()
    before = math.ceil(moments[0] * FPS)
    after = (line._until - moments[1]) * FPS if goes_on else 0
    assert len(notes.frames) == pytest.approx(before + after, abs=1 if goes_on else 0)
    assert [gap["reason"] for gap in line.counts.gaps] == (["PAUSED"] if goes_on else [])


def test_a_standstill_is_left_out_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """No burst of a thousand frames when a machine wakes up: a gap, and the wall time moves on."""
    monkeypatch.setattr(timeline, "_STALL_SEC", 0.3)
    notes = Notes(30, slow=lambda number: 1.0 if number == 10 else 0.0)
    line = run(notes, Canvas())
    (gap,) = line.counts.gaps
    assert gap["reason"] == "STALLED"
    assert gap["startMs"] == 11 * 1000 // FPS
    assert line.counts.dropped >= 0.3 * FPS
    assert [number for _, number in notes.frames] == list(range(len(notes.frames)))


def test_a_cut_moves_the_wall_time_on() -> None:
    notes = Notes(10)
    line = clockwork(notes, Canvas())
    line.start()
    assert notes.enough.wait(20)
    line.cut(on=True)
    began = notes.started_at
    frozen = threading.Event()
    frozen.wait(0.3)
    seen = len(notes.frames)
    frozen.wait(0.2)
    assert len(notes.frames) <= seen + 1
    notes._wanted = seen + 10
    notes.enough.clear()
    line.cut(on=False)
    assert notes.enough.wait(20)
    line.stop()
    (gap,) = line.counts.gaps
    assert gap["reason"] == "PAUSED"
    assert notes.started_at - began == pytest.approx(int(gap["durationMs"]) * 1e6, abs=2e6)


@pytest.mark.parametrize("pause", ["cut", "card"])
def test_pictures_do_not_pile_up_while_it_pauses(pause: str) -> None:
    notes = Notes(5)
    pictures = Pictures()
    line = clockwork(notes, Canvas())
    line.show(Scene(pictures={"cam": pictures}, card="Paused" if pause == "card" else ""))
    line.start()
    assert notes.enough.wait(20)
    line.cut(on=pause == "cut")
    for number in range(40):
        taken = time.monotonic() - 0.5 + number / 100
        pictures.put(Raw(number, taken), taken)
    until = time.monotonic() + 20
    while pictures._waiting and time.monotonic() < until:
        time.sleep(0.02)
    line.stop()
    assert not pictures._waiting


def test_a_card_is_drawn_once_and_silent() -> None:
    notes, canvas = Notes(10), Canvas()
    line = clockwork(notes, canvas)
    line.show(Scene(card="Paused", silent=True))
    line.start()
    assert notes.enough.wait(20)
    line.stop()
    assert canvas.cards == ["Paused"]
    assert {frame for frame, _ in notes.frames} == {"Paused"}


def test_calls_run_between_frames() -> None:
    notes = Notes(10)
    line = clockwork(notes, Canvas())
    names: list[str] = []
    line.call(lambda: names.append(threading.current_thread().name))
    line.start()
    assert notes.enough.wait(20)
    line.stop()
    assert names == ["timeline"]


def test_a_refusal_of_the_disk_is_handed_on() -> None:
    class Full(Notes):
        def video(self, frame: object, number: int) -> None:
            raise OSError("no space left on device")

    failures: list[Exception] = []
    told = threading.Event()

    def failed(error: Exception) -> None:
        failures.append(error)
        told.set()

    line = clockwork(Full(1), Canvas(), failed)
    line.start()
    assert told.wait(10)
    line.stop()
    assert isinstance(failures[0], OSError)


def test_what_is_asked_for_during_a_cut_is_done_then() -> None:
    """A destination that is taken out must not wait until the recording goes on."""
    notes = Notes(10)
    line = clockwork(notes, Canvas())
    line.start()
    assert notes.enough.wait(20)
    line.cut(True)
    called = threading.Event()
    line.call(called.set)
    assert called.wait(20)
    line.stop()
