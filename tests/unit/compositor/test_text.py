from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adapters.compositor import text
from adapters.compositor.drawing import initials, label

NAMES = (
    "Anna Müller", "Дмитрий Шостакович", "Ελένη Παπαδοπούλου", "山田 太郎", "김민수", "王小明", "محمد علي", "דוד לוי",
    "शाहरुख़ ख़ान", "สมชาย", "Tom 🎉🚀", "Zoë ❤️", "Đặng Thị Ngọc",
)  # fmt: skip


def face_names(name: str) -> list[str]:
    return [Path(run.face.path).name if run.face else "" for run in text.runs(name)]


@pytest.mark.parametrize("name", NAMES)
def test_every_script_is_drawn_from_a_font_that_has_it(name: str) -> None:
    for run in text.runs(name):
        face = run.face
        assert face is not None
        assert all(text.has(face, character) for character in run.text if character.isalnum())
    assert np.asarray(text.line(name, 20)).max() > 200


def test_letters_stay_together_so_that_they_join() -> None:
    """Arabic is drawn in one run, where letters take their forms; a sign between them that keeps them apart shows it."""
    name = "محمد"
    assert len(text.runs(name)) == 1
    assert text.measure(name, 40) != text.measure("\u200c".join(name), 40)


def test_right_to_left_names_stand_right_to_left() -> None:
    assert [run.text.strip() for run in text.runs("محمد Anna علي") if run.text.strip()] == [
        "علي",
        "Anna",
        "محمد",
    ]
    assert [run.text.strip() for run in text.runs("Anna محمد") if run.text.strip()] == ["Anna", "محمد"]


def test_han_characters_take_the_forms_of_their_neighbours() -> None:
    indexes = {
        name: {run.face.index for run in text.runs(name) if run.face} for name in ("直", "直の", "直김")
    }
    assert len({frozenset(index) for index in indexes.values()}) == 3


@pytest.mark.parametrize("name", [*NAMES, "Bartholomew Featherstonehaugh", "👩‍💻👩‍💻👩‍💻👩‍💻", "x" * 5000])
@pytest.mark.parametrize("width", [0, 8, 40, 90, 400])
def test_shortened_names_fit(name: str, width: int) -> None:
    shown = text.shorten(name, 16, width)
    assert not shown or text.measure(shown, 16) <= width
    if text.measure(name, 16) <= width:
        assert shown == name


def test_names_cannot_bring_lines_or_directions_of_their_own() -> None:
    assert text.shorten("Anna\n\u202eMüller\t\x00!", 16, 400) == "Anna Müller !"


def test_a_character_no_font_has_is_a_box() -> None:
    """“Boxes that are not ugly”: the font's own sign for it, not nothing and not an error."""
    drawn = np.asarray(text.line("\U000f1234", 20))
    assert drawn.max() > 200


def test_without_any_font_pillows_own_is_used() -> None:
    assert text.find_faces((), ()) == ()
    assert text.font(None, 20).getlength("Anna") > 10


def test_the_systems_fonts_come_after_the_packaged_ones(tmp_path: Path) -> None:
    packaged = text.faces()[0]
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "DejaVuSans.ttf").symlink_to(packaged.path)
    (tmp_path / "Unknown.ttf").symlink_to(packaged.path)
    assert text.find_faces((), (tmp_path,)) == (text.Face(str(tmp_path / "deep" / "DejaVuSans.ttf")),)


def test_initials() -> None:
    wanted = {
        "Anna Müller": "AM", "anna": "A", "Anna Maria von Müller": "AM", "山田 太郎": "山", "김민수": "김",
        "Дмитрий Шостакович": "ДШ", "محمد علي": "م", "🎉 Tom": "T", "": "", "🎉": "", "ß": "S", "user_42": "U",
    }  # fmt: skip
    assert {name: initials(name) for name in wanted} == wanted


def test_labels_are_inside_their_tile_or_not_at_all() -> None:
    for width, height in ((1280, 720), (628, 348), (204, 114), (120, 60), (60, 60), (20, 48), (100, 20)):
        for muted in (False, True):
            for name in ("Anna", "Bartholomew Featherstonehaugh-Cholmondeley", ""):
                made = label(name, muted, width, height)
                if made is not None:
                    assert made.x >= 0
                    assert made.y >= 0
                    assert made.x + made.width <= width
                    assert made.y + made.height <= height
    assert label("Anna", False, 100, 20) is None
    assert label("", False, 628, 348) is None
    assert label("", True, 628, 348) is not None
