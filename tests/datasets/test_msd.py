from __future__ import annotations

import pytest

from tonnetz.datasets.msd import LISTS, Msd, read_tags
from tonnetz.errors import UserError
from tonnetz.tracks import table

TRACKS = ("TRAAAAK128F9318786", "TRAAAAW128F429D538", "TRYOGXX128F42483A6", "TRZZZZD128F4236844")


@pytest.fixture
def home(tone, tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "output_labels_msd.txt").write_text(
        "# Output labels\nMSD_LABELS = ['rock','Hip-Hop',\"rock 'n' roll\"]\n\n"
    )
    (lists / LISTS["train"]).write_text(f"{TRACKS[0]}\t[1, 0, 1]\n{TRACKS[1]}\t[0, 0, 0]\n")
    (lists / LISTS["valid"]).write_text(f"{TRACKS[2]}\t[0.0, 1.0, 0.0]\n")
    (lists / LISTS["test"]).write_text(f"{TRACKS[3]}\t[0, 1, 0]\n")
    for track in TRACKS:
        tone(f"audio/{track[2]}/{track}.wav")
    return tmp_path


def test_rows(home):
    corpus = Msd(home)
    frame = table(corpus.tracks())
    assert corpus.multilabel
    assert frame["id"].to_list() == list(TRACKS)
    assert frame["split"].to_list() == ["train", "train", "valid", "test"]
    assert frame["labels"].to_list() == [["rock", "rock 'n' roll"], [], ["Hip-Hop"], ["Hip-Hop"]]
    assert frame["path"][0].endswith(f"audio/A/{TRACKS[0]}.wav")
    assert frame["artist"].null_count() == 4


def test_songs_and_index(home, tone):
    tone("clips/7/123.clip.wav")
    (home / "index_msd.tsv").write_text(f"{TRACKS[0]}\tclips/7/123.clip.wav\n{TRACKS[1]}\tY/O/{TRACKS[1]}.mp3\n")
    (home / "unique_tracks.txt").write_text(
        f"{TRACKS[0]}<SEP>SOQMMHC12AB0180CB8<SEP>Faster Pussy cat<SEP>Silent Night\n"
    )
    frame = table(Msd(home).tracks())
    assert frame["path"][0].endswith("clips/7/123.clip.wav")
    assert frame["path"][1].endswith(f"audio/A/{TRACKS[1]}.wav")
    assert frame.select("group", "artist", "title").row(0) == (
        "SOQMMHC12AB0180CB8",
        "Faster Pussy cat",
        "Silent Night",
    )


def test_missing_audio_is_counted(home):
    next(home.rglob(f"{TRACKS[1]}.wav")).unlink()
    corpus = Msd(home)
    assert len(list(corpus.tracks())) == 3
    assert corpus.coverage["percent"] == 75.0


def test_mistakes(home):
    path = home / "lists" / LISTS["test"]
    for vector in ("[0, 1]", "__import__('os').abort()", "[0, 2, 0]", ""):
        path.write_text(f"{TRACKS[3]}\t{vector}\n")
        with pytest.raises(UserError, match=r"test_gt_msd\.tsv line 1: not an id, a tab and a list of 3 numbers"):
            Msd(home).tracks()
    path.write_text(f"{TRACKS[0]}\t[0, 1, 0]\n")
    with pytest.raises(UserError, match=rf"test_gt_msd\.tsv line 1: {TRACKS[0]} is in the list of train already"):
        Msd(home).tracks()
    path.unlink()
    with pytest.raises(UserError, match=r"no test_gt_msd\.tsv in it; put the lists of musicnn-training"):
        Msd(home).tracks()
    tags = home / "lists/output_labels_msd.txt"
    for text in ("MSD_LABELS = [abort()]", "nothing", "[1, 2]"):
        tags.write_text(text)
        with pytest.raises(UserError, match=r"output_labels_msd\.txt: holds no list of tags"):
            read_tags(tags)
