"""Tables at the end of a job."""

from tonnetz.report import show_table


def test_counts_are_whole_and_measures_have_four_places(capsys):
    show_table({"test": {"map": 1.0, "queries": 12}, "baseline": {"map": 0.5}}, "files")
    rows = [[cell.strip() for cell in line.strip("│ ").split("│")] for line in capsys.readouterr().out.splitlines()]
    assert ["map", "1.0000", "0.5000"] in rows
    assert ["queries", "12"] in [row[:2] for row in rows]
