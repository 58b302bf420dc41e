from __future__ import annotations

from collections.abc import Mapping

from server.domain.speaker import HOLD_SEC, PAUSE_SEC, SpeakerChoice

STEP_SEC = 0.1


class Talk:
    """A conversation in steps of a tenth of a second."""

    def __init__(self) -> None:
        self.choice = SpeakerChoice()
        self.now = 0.0

    def go_on(self, seconds: float, levels: Mapping[str, float]) -> list[str | None]:
        chosen = []
        for _ in range(round(seconds / STEP_SEC)):
            self.now += STEP_SEC
            chosen.append(self.choice.update(self.now, levels))
        return chosen


def test_the_first_voice_has_the_stage_at_once() -> None:
    assert Talk().go_on(0.1, {"anna": 0.4}) == ["anna"]


def test_silence_keeps_the_last_speaker() -> None:
    talk = Talk()
    talk.go_on(1, {"anna": 0.4})
    assert set(talk.go_on(60, {})) == {"anna"}


def test_the_stage_changes_with_the_turn() -> None:
    talk = Talk()
    talk.go_on(4, {"anna": 0.4})
    chosen = talk.go_on(3, {"ben": 0.4})
    assert chosen[0] == "anna"
    assert chosen[-1] == "ben"
    assert chosen.index("ben") * STEP_SEC <= PAUSE_SEC + 0.3


def test_a_cough_does_not_take_the_stage() -> None:
    talk = Talk()
    talk.go_on(4, {"anna": 0.4})
    assert set(talk.go_on(0.2, {"anna": 0.4, "ben": 0.9})) == {"anna"}
    assert set(talk.go_on(3, {"anna": 0.4})) == {"anna"}
    talk.go_on(3, {})
    talk.go_on(0.2, {"ben": 0.9})
    assert set(talk.go_on(3, {})) == {"anna"}


def test_two_at_once_do_not_flicker() -> None:
    talk = Talk()
    chosen: list[str | None] = []
    for step in range(200):
        loud = {"anna": 0.3, "ben": 0.35} if step % 2 else {"anna": 0.35, "ben": 0.3}
        chosen += talk.go_on(0.1, loud)
    assert set(chosen) == {"ben"} or set(chosen) == {"anna"}


def test_someone_clearly_louder_takes_over_in_the_end() -> None:
    talk = Talk()
    talk.go_on(4, {"anna": 0.1})
    assert talk.go_on(0.8, {"anna": 0.1, "ben": 0.6})[-1] == "anna"
    assert talk.go_on(2, {"anna": 0.1, "ben": 0.6})[-1] == "ben"


def test_a_new_speaker_is_held_for_a_while() -> None:
    talk = Talk()
    talk.go_on(0.1, {"anna": 0.4})
    chosen = talk.go_on(4, {"ben": 0.4})
    assert chosen.index("ben") * STEP_SEC >= HOLD_SEC - 2 * STEP_SEC


def test_who_leaves_frees_the_stage_at_once() -> None:
    talk = Talk()
    talk.go_on(0.3, {"anna": 0.4, "ben": 0.3})
    talk.choice.forget("anna")
    assert talk.choice.speaker is None
    assert talk.go_on(0.1, {"ben": 0.3}) == ["ben"]


def test_pauses_between_words_count_as_speaking() -> None:
    talk = Talk()
    talk.go_on(1, {"anna": 0.4, "ben": 0.005})
    assert talk.choice.speaking(talk.now + 0.5) == {"anna"}
    assert talk.choice.speaking(talk.now + 1.0) == frozenset()
