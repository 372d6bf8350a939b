"""job=stats, against counts made by hand."""

import csv
import json

import numpy as np
import pytest

from tests.conftest import tone
from tonnetz.figures import works_histogram
from tonnetz.jobs.stats import distribution, per_work
from tonnetz.tracks import table


@pytest.fixture
def works(tmp_path):
    """A folder of two works: three performances of one, one of the other."""
    import soundfile

    for name in ("Kyrie/a", "Kyrie/b", "Kyrie/c", "Gloria/a"):
        path = tmp_path / "works" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, tone("buzz", len(name) + ord(name[-1])), 16000)
    return tmp_path / "works"


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_two_works_from_a_folder(cli, works):
    done = cli("job=stats", "data=folder_works", f"data.root={works}", "data.valid=0", "data.test=0")
    assert done.status == 0, done.err
    rows = read(done.folder / "works.csv")
    assert [(row["work"], row["all"], row["train"]) for row in rows] == [("Kyrie", "3", "3"), ("Gloria", "1", "1")]
    whole = done.json("stats.json")["splits"]["all"]
    assert (whole["works"], whole["recordings"], whole["single"]) == (2, 4, 1)
    assert whole["hours"] == round(4 * 1.2 / 3600, 3)
    assert (whole["least"], whole["median"], whole["most"]) == (1, 2, 3)
    assert [(row["performances"], row["all"]) for row in read(done.folder / "performances.csv")] == [
        ("1", "1"),
        ("3", "1"),
    ]
    assert (done.folder / "figures" / "works.png").stat().st_size > 5000
    assert "Kyrie" not in done.out  # the works are in the table, not on the screen
    assert "performances" in done.out
    assert done.json("manifest.json")["works"]["all"]["works"] == 2


def test_a_list_alone(cli, tmp_path):
    rows = [
        {"perf": f"{w}-{v}", "wav": "none.wav", "dur_s": 36, "work": f"w{w}"} for w in range(5) for v in range(w + 1)
    ]
    (tmp_path / "full.txt").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = cli("job=stats", f"job.table={tmp_path / 'full.txt'}")
    assert done.status == 0, done.err
    whole = done.json("stats.json")["splits"]["all"]
    assert (whole["works"], whole["recordings"], whole["hours"], whole["most"]) == (5, 15, 0.15, 5)


def test_a_spreadsheet_without_its_audio(cli, tmp_path):
    (tmp_path / "works.csv").write_text("file,work,duration\na.wav,W,1800\nb.wav,W,1800\nc.wav,V,\n")
    done = cli("job=stats", f"job.table={tmp_path / 'works.csv'}")
    assert done.status == 0, done.err
    whole = done.json("stats.json")["splits"]["all"]
    assert (whole["works"], whole["recordings"], whole["hours"], whole["most"]) == (2, 3, 1.0, 2)


@pytest.mark.parametrize("job", ["stats", "prepare"])
def test_recordings_without_audio_are_listed(cli, works, job):
    ids = ["Kyrie/a", "Kyrie/b", "Gloria/a", "Credo/lost", "Gloria/lost"]
    (works / "list1.list").write_text("".join(f"{id_}\n" for id_ in ids))
    (works / "list2.list").write_text("")
    words = [f"job={job}", "task=csi", "data=covers80", f"data.root={works}", "data.valid=0", "data.test=0"]
    done = cli(*words)
    assert done.status == 0, done.err
    assert read(done.folder / "missing.csv") == [{"id": id_, "corpus": "covers80"} for id_ in ids[-2:]]
    assert f"2 listed recordings have no audio, see {done.folder / 'missing.csv'}" in done.out
    (works / "list1.list").write_text("".join(f"{id_}\n" for id_ in ids[:3]))
    done = cli(*words)
    assert not (done.folder / "missing.csv").exists()
    assert "no audio" not in done.out


def test_no_works(cli, corpus):
    done = cli("job=stats", "data=folder", f"data.root={corpus}")
    assert done.status == 2
    assert "no track names its work: take data=folder_works" in done.err


def test_counts_equal_a_plain_loop():
    random = np.random.default_rng(0)
    rows = [
        {
            "id": str(i),
            "path": str(i),
            "work": f"w{random.integers(20)}",
            "group": f"g{random.integers(150)}" if i % 3 else None,
            "split": ["train", "valid", "test", None][random.integers(4)],
            "duration": 360.0,
        }
        for i in range(300)
    ]
    found = per_work(table(rows))
    for row in found.iter_rows(named=True):
        mine = [r for r in rows if r["work"] == row["work"]]
        for name in ("all", "train", "valid", "test"):
            here = [r for r in mine if name in ("all", r["split"])]
            assert row[name] == len({r["group"] or r["path"] for r in here})
            assert row[f"hours_{name}"] == (pytest.approx(0.1 * len(here)) if here else None)
    spread = distribution(found)
    for row in spread.iter_rows(named=True):
        for name in ("all", "train", "valid", "test"):
            assert row[name] == sum(size == row["performances"] for size in found[name])


def test_a_group_that_is_the_whole_work_is_no_recording():
    """As in the synthetic corpus, with and without the name of the corpus before it."""
    rows = [{"id": f"{g}{n}", "path": f"{g}{n}.wav", "work": "w", "group": g} for g in ("w", "take") for n in (0, 1)]
    assert per_work(table(rows))["all"].to_list() == [3]
    named = table([{**row, "corpus": "c", "group": f"c/{row['group']}"} for row in rows])
    assert per_work(named)["all"].to_list() == [3]


@pytest.mark.parametrize("most", [1, 40, 41, 3000])
def test_the_histogram_counts_every_work(most):
    sizes = {"train": [1, 2, most], "valid": [], "test": [most]}
    (axis,) = works_histogram(sizes, "works").axes
    heights = [bar.get_y() + bar.get_height() for bar in axis.patches]
    assert sum(bar.get_height() for bar in axis.patches) == 4
    assert max(heights) <= 4
    assert (axis.get_xscale() == "log") == (most > 40)
    assert most > 40 or all(tick == round(tick) for tick in axis.get_xticks())
