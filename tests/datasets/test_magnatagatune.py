from __future__ import annotations

import csv
import shutil
from collections import Counter

import numpy as np
import pytest

from tonnetz.datasets.magnatagatune import ANNOTATIONS, CLIPS, CORRUPT, TAGS, MagnaTagATune
from tonnetz.errors import UserError
from tonnetz.tracks import check_disjoint, label_matrix, table

COLUMNS = ["clip_id", "no voices", *sorted(TAGS), "mp3_path"]  # one tag that is not among the fifty
# clip, tags, folder, artist, track, seconds, name
ROWS = (
    (2, ["no voices", "guitar"], "f", "American Bach Soloists", 1, 30, "american_bach-solo_cantatas_vol._2-01-aria"),
    (6, [], "f", "American Bach Soloists", 1, 146, "american_bach-solo_cantatas_vol._2-01-aria"),
    (10, ["female voice", "opera"], "c", "American Bach Soloists", 2, 0, "american_bach-solo_cantatas_vol._2-02-bwv"),
    (11, ["slow", "guitar"], "0", 'Quoted "Name"', 2, 0, "other-disc-02-x"),
    (35644, ["rock"], "9", "Somebody", 1, 0, "broken-disc-01-y"),
    (58920, ["no voices"], "b", "Somebody", 3, 59, "somebody-disc-03-z"),
)


def write(path, columns, rows):
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_ALL)
        writer.writerows([columns, *rows])


def place(row):
    _, _, folder, _, _, seconds, name = row
    return f"{folder}/{name}-{seconds}-{seconds + 29}.mp3"


@pytest.fixture
def home(tone, tmp_path):
    for row in ROWS:
        tone(f"mp3/{place(row)}".replace(".mp3", ".wav"))
    annotations = [[row[0], *("1" if tag in row[1] else "0" for tag in COLUMNS[1:-1]), place(row)] for row in ROWS]
    write(tmp_path / ANNOTATIONS, COLUMNS, annotations)
    clips = [
        [row[0], row[4], f"Title {row[4]}", row[3], f"http://albums/{row[6].split('-')[1]}", row[5], place(row)]
        for row in ROWS
    ]
    columns = ["clip_id", "track_number", "title", "artist", "url", "segmentStart", "mp3_path"]
    write(tmp_path / CLIPS, columns, clips)
    return tmp_path


def test_rows(home):
    corpus = MagnaTagATune(home)
    frame = table(corpus.tracks())
    assert corpus.multilabel
    assert frame["id"].to_list() == ["00002", "00006", "00010", "00011", "58920"]  # the broken clip is left out
    assert frame["split"].to_list() == ["test", "test", "valid", "train", "train"]
    assert frame["labels"].to_list() == [["guitar"], [], ["opera", "female voice"], ["guitar", "slow"], []]
    assert frame["group"].to_list()[:3] == ["http://albums/solo_cantatas_vol._2#1"] * 2 + [
        "http://albums/solo_cantatas_vol._2#2"
    ]
    assert frame["artist"].to_list()[2:4] == ["American Bach Soloists", 'Quoted "Name"']
    assert frame["path"][1].endswith("mp3/f/american_bach-solo_cantatas_vol._2-01-aria-146-175.wav")
    check_disjoint(frame)
    assert corpus.coverage["protocol"] == "pons"
    assert corpus.coverage["groups"] == 4
    assert corpus.coverage["artists"] == 3


def test_clips_without_tags_are_negatives_or_left_out(home):
    matrix = label_matrix(table(MagnaTagATune(home).tracks()), TAGS)
    np.testing.assert_array_equal(matrix.sum(1), [1, 0, 2, 2, 0])
    clean = MagnaTagATune(home, protocol="clean")
    assert table(clean.tracks())["id"].to_list() == ["00002", "00010", "00011"]
    assert clean.key != MagnaTagATune(home).key


def test_recordings_from_file_names(home):
    with_table = table(MagnaTagATune(home).tracks())
    (home / CLIPS).unlink()
    frame = table(MagnaTagATune(home).tracks())
    assert frame["artist"].to_list() == [None] * 5
    assert frame["group"][0] == "f/american_bach-solo_cantatas_vol._2-01-aria"
    groups = [dict.fromkeys(frame[column]) for frame, column in ((with_table, "group"), (frame, "group"))]
    assert len(groups[0]) == len(groups[1]) == 4


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Annotations of the size of the corpus: clips by folder, of which so many have none of the tags."""
    home = tmp_path_factory.mktemp("magnatagatune")
    columns = ["clip_id", *TAGS, "mp3_path"]
    shares = (("0123456789ab", 18_709, 3_459), ("c", 1_825, 296), ("def", 5_329, 997))
    corrupt = iter(sorted(CORRUPT))
    rows, number = [], 0
    for folders, clips, untagged in shares:
        for i in range(clips):
            number += 1
            name = next(corrupt) if folders[0] == "0" and i >= clips - 3 else number
            tags = ["0"] * 50
            if i >= untagged:
                tags[i % 50] = "1"
            rows.append([name, *tags, f"{folders[i % len(folders)]}/a-b-{number}-0-29.mp3"])
    write(home / ANNOTATIONS, columns, rows)
    return home


@pytest.mark.parametrize(("protocol", "sizes"), [("pons", (18_706, 1_825, 5_329)), ("clean", (15_247, 1_529, 4_332))])
def test_published_sizes(manifest, protocol, sizes):
    rows = list(MagnaTagATune(manifest, protocol=protocol).listed())
    counts = Counter(row["split"] for row in rows)
    assert (counts["train"], counts["valid"], counts["test"]) == sizes
    assert len({row["id"] for row in rows}) == sum(sizes)


def test_fifty_tags():
    assert len(set(TAGS)) == 50


def test_missing_audio_is_counted(home, capsys):
    shutil.rmtree(home / "mp3/f")
    corpus = MagnaTagATune(home)
    assert len(list(corpus.tracks())) == 3
    assert corpus.coverage["missing"] == ["00002", "00006"]
    assert "3 of 5 recordings found (60.0 %)" in capsys.readouterr().out
    with pytest.raises(UserError, match="2 of 5 recordings have no audio file, the first: 00002"):
        MagnaTagATune(home, missing="fail").tracks()


def test_mistakes(home):
    with pytest.raises(UserError, match="known are pons, clean"):
        MagnaTagATune(home, protocol="12:1:3")
    with pytest.raises(UserError, match=r"data\.corpus\.url=ftp://x: must begin with"):
        MagnaTagATune(home, url="ftp://x")
    write(home / ANNOTATIONS, ["clip_id", *TAGS, "mp3_path"], [[2, *["0"] * 50, "g/a-0-29.mp3"]])
    with pytest.raises(UserError, match=r"annotations_final\.csv line 2: mp3_path 'g/a-0-29\.mp3' lies in no folder"):
        MagnaTagATune(home).tracks()
    write(home / ANNOTATIONS, ["clip_id", *TAGS[1:], "mp3_path"], [])
    with pytest.raises(UserError, match=r"annotations_final\.csv line 1: no column guitar"):
        MagnaTagATune(home).tracks()
    (home / ANNOTATIONS).write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"annotations_final\.csv: not a table in UTF-8"):
        MagnaTagATune(home).tracks()
    (home / ANNOTATIONS).unlink()
    with pytest.raises(UserError, match=r"no annotations_final\.csv in it; download it beside the clips"):
        MagnaTagATune(home).tracks()
