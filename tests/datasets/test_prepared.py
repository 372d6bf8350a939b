from __future__ import annotations

import shutil

import pytest

from tonnetz.data.prepare import prepare
from tonnetz.datasets.folder import Folder
from tonnetz.datasets.prepared import Prepared
from tonnetz.errors import UserError
from tonnetz.tracks import table


@pytest.fixture
def home(tone, tmp_path):
    for name in ("raw/x/a.flac", "raw/x/b.ogg", "raw/y/c.flac"):
        tone(name)
    corpus = Folder(tmp_path / "raw")
    prepare(corpus, tmp_path / "cache", 4000)
    shutil.rmtree(tmp_path / "raw")
    return tmp_path / "cache" / corpus.key


@pytest.mark.parametrize("moved", [False, True])
def test_rows_without_the_raw_files(home, tmp_path, moved):
    if moved:
        home = home.rename(tmp_path / "elsewhere")
    corpus = Prepared(home)
    corpus.fetch()
    frame = table(corpus.tracks())
    assert corpus.rate == (4000,)
    assert frame["id"].to_list() == ["x/a", "x/b", "y/c"]
    assert frame["labels"].to_list() == [["x"], ["x"], ["y"]]
    assert frame["samples"].to_list() == [400] * 3
    assert all(path.startswith(str(home)) for path in frame["audio"])


def test_lost_audio(home):
    shutil.rmtree(home / "audio")
    with pytest.raises(UserError, match=r"\.wav: the prepared audio is gone; prepare"):
        list(Prepared(home).tracks())


def test_not_a_prepared_folder(tmp_path):
    with pytest.raises(UserError, match=r"no tracks\.jsonl in it"):
        Prepared(tmp_path).fetch()
    (tmp_path / "tracks.jsonl").write_text('{"id": "a", "path": "a.wav"}\n')
    with pytest.raises(UserError, match="no column audio"):
        list(Prepared(tmp_path).tracks())
