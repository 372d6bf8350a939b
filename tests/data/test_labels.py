"""Labels in the words of a taxonomy, and tracks that it has no words for."""

import shutil

import polars as pl
import pytest

from tests.conftest import SMALL, tone
from tests.data.test_module import data
from tonnetz.data.labels import name_labels
from tonnetz.errors import UserError
from tonnetz.taxonomy import Taxonomy


def frame(*rows):
    labels, unknown = zip(*rows, strict=True)
    return pl.DataFrame(
        {"id": [str(i) for i in range(len(rows))], "labels": list(labels), "unknown": list(unknown)},
        schema={"id": pl.String, "labels": pl.List(pl.String), "unknown": pl.List(pl.String)},
    )


def test_labels_become_nodes_and_what_the_tree_lacks_goes():
    tree = Taxonomy.load("hornbostel_sachs")
    table = frame((["Violin"], []), (["kazoophone"], []), (["violin", "theorbotron"], ["flute"]), ([], ["kazoophone"]))
    named, lacking = name_labels(table, tree, "any", "drop")
    assert lacking == {"kazoophone": 1, "theorbotron": 1}
    assert named["id"].to_list() == ["0", "3"]
    assert named["labels"].to_list() == [["violin"], []]
    assert named["unknown"].to_list() == [[], []]
    kept, lacking = name_labels(table[:1], tree, "any", "drop")
    assert (kept["labels"].to_list(), lacking) == ([["violin"]], {})
    with pytest.raises(UserError, match="label 'kazoophone' is not in the taxonomy"):
        name_labels(table, tree, "any", "fail")


@pytest.fixture
def sounds(tmp_path):
    import soundfile

    for name in ("violin", "flute", "kazoophone"):
        (tmp_path / "sounds" / name).mkdir(parents=True)
        for i in range(6):
            soundfile.write(tmp_path / "sounds" / name / f"{i}.wav", tone("sine", 300 + 40 * i), 16000)
    return tmp_path / "sounds"


def test_tracks_are_left_out_named_and_counted(sounds, tmp_path):
    module = data(sounds, tmp_path, taxonomy="hornbostel_sachs", unlisted="drop")
    assert module.spec.classes == ("flute", "violin")
    assert module.everything.height == 12
    assert module.notes == ["folder: 6 tracks left out; hornbostel_sachs lacks their labels: kazoophone 6"]
    for name in ("violin", "flute"):
        shutil.rmtree(sounds / name)
    with pytest.raises(UserError, match="lacks the labels of every track: kazoophone 6"):
        _ = data(sounds, tmp_path, taxonomy="hornbostel_sachs", unlisted="drop").everything
    with pytest.raises(UserError, match=r"data.unlisted=no: known are fail, drop"):
        data(sounds, tmp_path, unlisted="no")


def test_from_the_command_line(cli, sounds):
    words = ["data=folder", f"data.root={sounds}", *SMALL, "data.taxonomy=hornbostel_sachs"]
    refused = cli(*words)
    assert (refused.status, refused.err.count("\n")) == (2, 1)
    assert "kazoophone" in refused.err
    assert "data.unlisted=drop leaves its tracks out" in refused.err
    done = cli(*words, "data.unlisted=drop", run="second")
    assert done.status == 0, done.err
    assert "6 tracks left out" in done.out
