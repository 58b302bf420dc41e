from __future__ import annotations

from pathlib import Path

from benchmarks.results import Row, Section, keep, ratio_of, spread

ORDER = ("Conversion", "Upload", "Jobs")


def section(figure: str, *, met: bool | None = None) -> Section:
    return Section([Row("speed", figure, target="≥ 1", met=met)], ["how it was measured"])


def titles(file: Path) -> list[str]:
    return [line for line in file.read_text().splitlines() if line.startswith("#")]


def test_a_section_replaces_its_former_self_only(tmp_path: Path) -> None:
    file = tmp_path / "results.md"
    keep(section("first"), "Jobs", ORDER, file)
    keep(section("other"), "Conversion", ORDER, file)
    before = file.read_text()
    keep(section("second"), "Jobs", ORDER, file)
    assert file.read_text() == before.replace("first", "second")
    assert titles(file) == ["# Benchmark results", "## Conversion", "## Jobs"]


def test_a_section_that_no_longer_exists_is_dropped(tmp_path: Path) -> None:
    file = tmp_path / "results.md"
    keep(section("old"), "Gone", ("Gone",), file)
    keep(section("new"), "Upload", ORDER, file)
    assert titles(file) == ["# Benchmark results", "## Upload"]


def test_one_missed_target_misses_the_section() -> None:
    rows = [Row("a", "1"), Row("b", "2", met=True)]
    assert Section(rows).met
    assert not Section([*rows, Row("c", "3", met=False)]).met


def test_ratios_are_taken_pair_by_pair() -> None:
    assert ratio_of([10, 40, 10], [5, 20, 2]) == 2
    assert spread([3.0, 1.0, 2.0], "s") == "2.0 s [1.0–3.0]"
    assert spread([3.0], "s") == "3.0 s"
