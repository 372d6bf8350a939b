"""The embedded corpus: files, rows, splits, resuming."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tonnetz.datasets.synthetic import Synthetic, assign
from tonnetz.errors import UserError

NAMES = ["piano", "violin", "snare_drum"]


def small(root: Path, **kwargs) -> Synthetic:
    return Synthetic(root, **{"files": 4, "seconds": 0.8, "instruments": NAMES, "workers": 1, **kwargs})


def digests(corpus: Synthetic) -> dict[str, str]:
    return {row["id"]: hashlib.sha1(Path(row["path"]).read_bytes()).hexdigest() for row in corpus.tracks()}


def test_rows_and_files(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    corpus = small(tmp_path)
    corpus.fetch(lambda done, total: calls.append((done, total)))
    rows = list(corpus.tracks())
    assert len(rows) == len({row["id"] for row in rows}) == 12
    assert calls[-1] == (12, 12)
    assert not corpus.multilabel
    for row in rows:
        audio, rate = soundfile.read(row["path"])
        assert (rate, audio.shape) == (16000, (12800,))
        assert 0.01 < np.abs(audio).max() <= 1.0
        assert row["labels"] == [row["id"].split("/")[0]]
        assert bool(row["notes"]) == (row["labels"] != ["snare_drum"])
    assert soundfile.info(rows[0]["path"]).subtype == "PCM_16"


def test_files_do_not_depend_on_workers_or_on_other_files(tmp_path: Path) -> None:
    one, two, few = (
        small(tmp_path / "a"),
        small(tmp_path / "b", workers=2),
        small(tmp_path / "c", instruments=["violin"]),
    )
    for corpus in (one, two, few):
        corpus.fetch()
    assert digests(one) == digests(two)
    assert digests(few).items() <= digests(one).items()


def test_fetch_resumes_and_keeps_what_is_there(tmp_path: Path) -> None:
    corpus = small(tmp_path)
    corpus.fetch()
    before = digests(corpus)
    rows = list(corpus.tracks())
    kept, gone = Path(rows[0]["path"]), [Path(row["path"]) for row in rows[3:6]]
    stamp = kept.stat().st_mtime_ns
    for path in gone:
        path.unlink()
    (corpus.folder / "index.jsonl").unlink()
    calls: list[tuple[int, int]] = []
    corpus.fetch(lambda done, total: calls.append((done, total)))
    assert calls[-1] == (3, 3)
    assert kept.stat().st_mtime_ns == stamp
    assert digests(corpus) == before
    assert not list(corpus.folder.rglob("*.part"))


def test_players_are_disjoint_between_splits_and_stratified(tmp_path: Path) -> None:
    corpus = Synthetic(tmp_path, instruments=NAMES)  # the default size, without audio
    rows = [row for row, _ in corpus._items()]
    for name in NAMES:
        own = [row for row in rows if row["labels"] == [name]]
        counts = {split: sum(row["split"] == split for row in own) for split in ("train", "valid", "test")}
        assert counts == {"train": 42, "valid": 9, "test": 9}
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["artist"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())


def test_works_share_a_split_and_their_melody(tmp_path: Path) -> None:
    corpus = small(tmp_path, part="works", works=4, versions=2, seconds=3.0)
    corpus.fetch()
    rows = list(corpus.tracks())
    assert corpus.multilabel
    assert len(rows) == 8
    by_work: dict[str, set[str]] = {}
    for row in rows:
        by_work.setdefault(row["work"], set()).add(row["split"])
        pitches = {(on, pitch) for on, _, pitch, _ in row["notes"]}
        melody = [(on, pitch) for on, _, pitch, _ in row["melody"]]
        assert melody
        assert row["ornament"] or set(melody) <= pitches
        assert row["lead"] in row["labels"]
    assert all(len(found) == 1 for found in by_work.values())
    assert {split for found in by_work.values() for split in found} == {"train", "valid", "test"}


def test_mixtures_have_two_or_three_labels(tmp_path: Path) -> None:
    corpus = Synthetic(tmp_path, part="mixtures", files=10)
    rows = [row for row, _ in corpus._items()]
    counts = {len(row["labels"]) for row in rows}
    assert counts == {2, 3}
    heard = np.unique([label for row in rows for label in row["labels"]], return_counts=True)[1]
    assert heard.min() >= 9
    assert heard.max() - heard.min() <= 2


def test_parameters_choose_the_folder(tmp_path: Path) -> None:
    base = Synthetic(tmp_path)
    assert base.folder.name.startswith("instruments-")
    assert len(base.fingerprint) == 12
    assert base.folder == Synthetic(tmp_path, workers=3, works=9).folder  # neither changes a clip
    others = [
        Synthetic(tmp_path, seed=1),
        Synthetic(tmp_path, files=9),
        Synthetic(tmp_path, sample_rate=22050),
    ]
    assert len({base.folder, *(other.folder for other in others)}) == 4
    assert len({base.key, *(other.key for other in others)}) == 4


def test_the_index_is_json_lines_without_absolute_paths(tmp_path: Path) -> None:
    corpus = small(tmp_path, files=1)
    corpus.fetch()
    lines = (corpus.folder / "index.jsonl").read_text().splitlines()
    assert len(lines) == 3
    assert all("path" not in json.loads(line) for line in lines)


@pytest.mark.parametrize(("count", "expected"), [(1, (1, 0, 0)), (3, (1, 1, 1)), (20, (14, 3, 3)), (60, (42, 9, 9))])
def test_assign(count: int, expected: tuple[int, int, int]) -> None:
    splits = assign(count)
    assert tuple(splits.count(split) for split in ("train", "valid", "test")) == expected


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"part": "instrument"}, "did you mean 'instruments'"),
        ({"instruments": ["vioiln"]}, "did you mean 'violin'"),
        ({"files": 0}, "files=0"),
        ({"part": "mixtures", "instruments": ["piano", "violin"]}, "three instruments"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, kwargs: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Synthetic(tmp_path, **kwargs)
    assert "\n" not in str(caught.value)


def test_tracks_before_fetch_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not generated yet"):
        list(small(tmp_path).tracks())
