from __future__ import annotations

import polars as pl
import pytest

from tonnetz.datasets.irmas import Irmas
from tonnetz.errors import UserError
from tonnetz.tracks import check_disjoint, split_tracks, table

TRAINING = {
    "cel/008__[cel][nod][cla]0058__1.wav": ("0058", "absent", "cla"),
    "cel/[cel][nod][cla]0058__2.wav": ("0058", "absent", "cla"),
    "cla/[cla][cla]0150__1.wav": ("0150", "unknown", "cla"),
    "gac/001__[gac][dru][cou_fol]0653__3.wav": ("0653", "present", "cou_fol"),
    "voi/own-recording.wav": (None, "unknown", None),
}


@pytest.mark.parametrize("parent", ["", "IRMAS-TrainingData/"])
def test_training_files(tone, tmp_path, parent):
    for name in TRAINING:
        tone(parent + name)
    corpus = Irmas(tmp_path)
    rows = {row["id"]: row for row in corpus.tracks()}
    assert not corpus.multilabel
    for name, (song, drums, genre) in TRAINING.items():
        row = rows[parent + name.removesuffix(".wav")]
        assert row["labels"] == [name[:3]]
        assert (row["group"], row["drums"], row["genre"], row["split"]) == (song, drums, genre, None)


def test_test_files(tone, tmp_path):
    tone("IRMAS-TestingData-Part1/Part1/(02) dont kill the whale-1.wav")
    tone("IRMAS-TestingData-Part2/Part2/plain.wav")
    for folder, text in (
        ("1/Part1/(02) dont kill the whale-1", "gel\t\r\nvoi\t\r\n"),
        ("2/Part2/plain", "pia\t\n"),
    ):
        (tmp_path / f"IRMAS-TestingData-Part{folder}.txt").write_bytes(text.encode())
    corpus = Irmas(tmp_path)
    rows = sorted(corpus.tracks(), key=lambda row: row["id"])
    assert corpus.multilabel
    assert [row["labels"] for row in rows] == [["gel", "voi"], ["pia"]]
    assert [row["group"] for row in rows] == ["(02) dont kill the whale", "plain"]
    assert {row["split"] for row in rows} == {"test"}


def test_songs_stay_together_and_the_test_files_are_the_test_split(tone, tmp_path):
    for song in range(20):
        for part in (1, 2, 3):
            tone(f"train/cel/[cel][nod][cla]{song:04}__{part}.wav")
    tone("test/a-1.wav").with_suffix(".txt").write_text("cel")
    frame = split_tracks(table(Irmas(tmp_path).tracks()), 0.2, 0.2, 0)
    check_disjoint(frame)
    counts = dict(frame["split"].value_counts().iter_rows())
    assert counts["test"] == 1
    assert counts["valid"] == 12  # 0.2 of the 60 that are open
    assert frame.group_by("group").agg(pl.col("split").n_unique())["split"].to_list() == [1] * 21


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "x.wav: {folder}/x.txt is missing; "),
        ("voi\nvoy\n", "x.txt: 'voy' is not an IRMAS instrument; did you mean 'voi'?"),
        (" \r\n", "x.txt: names no instrument"),
    ],
)
def test_bad_labels(tone, tmp_path, text, message):
    tone("x.wav")
    if text is not None:
        (tmp_path / "x.txt").write_text(text)
    with pytest.raises(UserError) as caught:
        list(Irmas(tmp_path).tracks())
    assert str(caught.value).startswith(f"{tmp_path}/" + message.format(folder=tmp_path))
    assert "\n" not in str(caught.value)


def test_unknown_class_folder_names_the_known_ones(tone, tmp_path):
    tone("cel/[cel]1__1.wav")
    tone("xyz/[xyz]1__1.wav")
    with pytest.raises(UserError, match=r"xyz/\[xyz\]1__1\.wav: .* in a folder named cel, cla, "):
        list(Irmas(tmp_path).tracks())


def test_empty_folder(tmp_path):
    with pytest.raises(UserError, match="no audio files"):
        list(Irmas(tmp_path).tracks())
