"""Tables at the end of a job."""

from types import SimpleNamespace

import pytest

from tonnetz.report import show_scores, show_table


@pytest.mark.parametrize(("best", "said"), [(0.5, True), (float("nan"), False), (None, False)])
def test_the_best_score_stands_above_where_something_validates(capsys, best, said):
    show_scores({"test": {"map": 1.0}}, SimpleNamespace(monitor="valid/map", score="map"), best)
    out = capsys.readouterr().out
    assert "nan" not in out
    assert ("0.5000" in out) == said


def test_counts_are_whole_and_measures_have_four_places(capsys):
    show_table({"test": {"map": 1.0, "queries": 12}, "baseline": {"map": 0.5}}, "files")
    rows = [[cell.strip() for cell in line.strip("│ ").split("│")] for line in capsys.readouterr().out.splitlines()]
    assert ["map", "1.0000", "0.5000"] in rows
    assert ["queries", "12"] in [row[:2] for row in rows]
