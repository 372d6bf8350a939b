"""What run folders tell: all history, the best validations, the slope at the end."""

import numpy as np
import pytest

from tonnetz.runs import add_mean, histories, leaders, read_history, slope


def write(folder, rows):
    folder.mkdir()
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join(names), *(",".join(str(row.get(name, "")) for name in names) for row in rows)]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def folders(tmp_path):
    write(
        tmp_path / "fold_1",
        [
            {"step": 2, "epoch": 0, "lr": 0.1, "seconds": 5.0, "valid/map": 0.2, "sets/a/map": 0.3, "sets/b/map": 0.5},
            {"step": 4, "epoch": 1, "lr": 0.1, "seconds": 9.5, "valid/map": 0.4, "sets/a/map": 0.2},
        ],
    )
    write(
        tmp_path / "fold_2", [{"step": 2, "epoch": 0, "lr": 0.1, "seconds": 4.0, "valid/map": 0.4, "sets/b/map": 0.9}]
    )
    write(tmp_path / "final", [{"step": 2, "epoch": 0, "seconds": 1.0, "train/loss": 3}])
    return {name: tmp_path / name for name in ("fold_1", "fold_2", "fold_3", "final")}


def test_history_of_runs_in_a_row(folders):
    frame = histories(folders)
    assert frame["run"].to_list() == ["fold_1", "fold_1", "fold_2", "final"]
    assert frame["elapsed"].to_list() == [5.0, 9.5, 13.5, 14.5]
    assert frame["epoch"].to_list() == [0, 1, 0, 0]
    means = add_mean(frame, "valid/map", "map")["mean"].to_list()
    assert means == [pytest.approx(0.4), pytest.approx(0.2), pytest.approx(0.9), None]
    alone = add_mean(frame.drop("sets/a/map", "sets/b/map"), "valid/map", "map")["mean"].to_list()
    assert alone == [0.2, 0.4, 0.4, None]
    assert histories({"x": folders["fold_3"]}).height == 0
    assert read_history(folders["fold_3"]).height == 0


def test_leaders_by_set_and_mean(folders):
    frame = add_mean(histories(folders), "valid/map", "map")
    found = leaders(frame, ["valid/map", "sets/b/map", "mean"], count=2)
    assert [(row["run"], row["epoch"]) for row in found["valid/map"]] == [("fold_1", 1), ("fold_2", 0)]
    assert [row["sets/b/map"] for row in found["sets/b/map"]] == [0.9, 0.5]
    assert [row["run"] for row in leaders(frame, ["valid/map"], "min", 1)["valid/map"]] == ["fold_1"]
    assert leaders(frame, ["valid/map"], "min", 1)["valid/map"][0]["valid/map"] == 0.2


def test_slope_is_that_of_a_line():
    assert slope([9.0, 9.0, *(0.5 + 0.25 * t for t in range(6))]) == pytest.approx(0.25)
    random = np.random.default_rng(0).random(6)
    t = np.arange(6)
    expected = ((t - t.mean()) * (random - random.mean())).sum() / ((t - t.mean()) ** 2).sum()
    assert slope(random.tolist()) == pytest.approx(expected)
    assert slope([1.0]) is None
    assert slope([1.0, float("nan")]) is None
