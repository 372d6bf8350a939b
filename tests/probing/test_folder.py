"""Features from files: by our names or by those of jukemir; what is missing, bad or of no track."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from tonnetz.datasets.gtzan import Gtzan
from tonnetz.errors import UserError
from tonnetz.probing.folder import read_folder, stems
from tonnetz.vector_folder import VectorFolder

SPLITS = ("train", "valid", "test")


def test_features_from_files(tmp_path):
    frames = {split: pl.DataFrame({"id": [f"{split}/{i}" for i in range(3)]}) for split in SPLITS}
    for split in SPLITS:
        (tmp_path / split).mkdir()
        for i in range(3):
            np.save(tmp_path / split / f"{i}.npy", np.full((2, 5) if i == 1 else 5, i, np.float64))
    features, lost, strays = read_folder(tmp_path, frames)
    assert features.x["test"].shape == (4, 5)
    assert features.row["test"].tolist() == [0, 1, 1, 2]
    assert (lost, strays) == ({}, 0)
    (tmp_path / "test" / "9.npy").write_bytes((tmp_path / "test" / "0.npy").read_bytes())
    with pytest.raises(UserError, match=r"test/9.npy: belongs to no track"):
        read_folder(tmp_path, frames)
    assert read_folder(tmp_path, frames, skip=True)[1:] == ({}, 1)
    (tmp_path / "test" / "9.npy").unlink()
    (tmp_path / "train" / "2.npy").unlink()
    with pytest.raises(UserError, match=r"train/2.npy: is missing"):
        read_folder(tmp_path, frames)


def test_tracks_without_usable_features_are_refused_or_left_out_by_name(tmp_path):
    frames = {split: pl.DataFrame({"id": [f"{split}{i}" for i in range(3)]}) for split in SPLITS}
    for name in (name for frame in frames.values() for name in frame["id"]):
        np.save(tmp_path / f"{name}.npy", np.full((int(name[-1]) + 1, 5), int(name[-1])))
    bad = {"train0": "holds NaN", "test1": "cannot be read", "valid2": "has shape (0, 5)"}
    np.save(tmp_path / "train0.npy", np.full(5, np.nan))
    with pytest.raises(UserError, match=r"train0.npy: holds NaN or infinity, 1 such"):
        read_folder(tmp_path, frames)
    (tmp_path / "test1.npy").write_bytes(b"no numbers")
    np.save(tmp_path / "valid2.npy", np.zeros((0, 5)))
    features, lost, _ = read_folder(tmp_path, frames, skip=True)
    assert lost.keys() == bad.keys()
    assert all(lost[name][1].startswith(reason) for name, reason in bad.items())
    assert features.row["train"].tolist() == [0, 0, 1, 1, 1]  # of the tracks that stay
    assert features.x["train"][:, 0].tolist() == [1, 1, 2, 2, 2]
    assert features.row["test"].tolist() == [0, 1, 1, 1]
    np.save(tmp_path / "train1.npy", np.zeros(4))
    with pytest.raises(UserError, match=r"others have . dimensions"):
        read_folder(tmp_path, frames, skip=True)


def test_files_that_embed_writes_are_read(tmp_path):
    vectors, rows = torch.arange(12.0).view(4, 3), torch.tensor([0, 1, 1, 2])
    frames = {split: pl.DataFrame({"id": [name]}) for split, name in zip(SPLITS, ("a/x", "b", "c"), strict=True)}
    names = ["a/x", "b", "c"]
    (tmp_path / "windows/a").mkdir(parents=True)
    VectorFolder(tmp_path / "windows", "1").write(vectors, rows, names, names, windows=True)
    found, _, _ = read_folder(tmp_path / "windows", frames)
    assert torch.equal(torch.cat([found.x[split] for split in SPLITS]), vectors)
    (tmp_path / "means/a").mkdir(parents=True)
    VectorFolder(tmp_path / "means", "1").write(vectors[:3], torch.arange(3), names, names, windows=False)
    assert np.load(tmp_path / "means/b.npy").tolist() == [3, 4, 5]


def framed(*names):
    """Three splits, that take the names in turn."""
    return {split: pl.DataFrame({"id": names[i::3]}) for i, split in enumerate(SPLITS)}


def written(folder, names):
    """A file a name, whose vector is its number."""
    folder.mkdir()
    for i, name in enumerate(names):
        np.save(folder / f"{name}.npy", np.full(4, i, np.float32))
    return folder


# as sha256sum prints them
GTZAN = {
    "blues.00029": "f37dceb13ad28adaa0edf654242f9ba68232aed636615cb6587d56f4028510c1",
    "jazz.00001": "f90a088adbf7ab9a9b5edcd6ed3febe779660414cd999ad1adb4142ccac348d4",
    "rock.00038": "2f7f85dc11c4636fdbee9fef60e61bbe0401f96ddc90e93e434bf0395812182e",
}


@pytest.mark.parametrize(
    ("ids", "files"),
    [
        (list(GTZAN), list(GTZAN.values())),
        (["0005061@0", "0005061@30", "0677299@90"], ["0005061-0", "0005061-1", "0677299-3"]),
        (["0002", "0100", "1000"], ["0002", "0100", "1000"]),  # Emomusic
        (["00002", "10000", "58911"], ["00002", "10000", "58911"]),  # MagnaTagATune
    ],
    ids=["gtzan", "giantsteps", "emomusic", "magnatagatune"],
)
def test_names_of_jukemir(ids, files, tmp_path):
    features, lost, strays = read_folder(written(tmp_path / "theirs", files), framed(*ids))
    assert [features.x[split].tolist() for split in SPLITS] == [[[i] * 4] for i in range(3)]
    assert (lost, strays) == ({}, 0)
    ours, *_ = read_folder(written(tmp_path / "ours", ids), framed(*ids))
    assert ours.mark == features.mark
    (tmp_path / "theirs" / f"{files[1]}.npy").rename(tmp_path / "theirs" / "stranger.npy")
    with pytest.raises(UserError, match=r"stranger.npy: belongs to no track of the corpus, 1 such in all"):
        read_folder(tmp_path / "theirs", framed(*ids))
    (tmp_path / "theirs" / "stranger.npy").unlink()
    with pytest.raises(UserError) as error:
        read_folder(tmp_path / "theirs", framed(*ids))
    track = f" (track {ids[1]})" if ids[1] != files[1] else ""
    assert f"theirs/{files[1]}.npy: is missing{track}, 1 such in all" in str(error.value)
    some = {split: frame for split, frame in framed(*ids).items() if split != "valid"}
    assert stems([name for frame in some.values() for name in frame["id"]], files[::2]) == {
        ids[0]: [files[0]],
        ids[2]: [files[2]],
    }


def test_every_listed_clip_of_gtzan_has_a_name_there(tmp_path):
    ids = [row["id"] for row in Gtzan(tmp_path).listed()]
    assert len(ids) == 930
    names = stems(ids, [GTZAN["blues.00029"]])
    assert len({some[0] for some in names.values()}) == 930
    assert all(len(some) == 1 and len(some[0]) == 64 for some in names.values())


def test_songs_that_are_not_cut_have_all_their_clips(tmp_path):
    files = [f"000506{song}-{k}" for song in (1, 2, 3) for k in (0, 10, 2, 1)]
    folder = written(tmp_path / "clips", files)
    features, *_ = read_folder(folder, framed("0005061", "0005062", "0005063"))
    assert features.x["train"][:, 0].tolist() == [0, 3, 2, 1]  # clips 0, 1, 2 and 10
    assert features.row["test"].tolist() == [0, 0, 0, 0]
    np.save(folder / "0005062-2.npy", np.full(4, np.nan))
    with pytest.raises(UserError, match=r"0005062-2.npy: holds NaN or infinity \(track 0005062\), 1 such"):
        read_folder(folder, framed("0005061", "0005062", "0005063"))
    with pytest.raises(UserError, match=r"0005063-0.npy: belongs to no track of the corpus, 4 such in all"):
        read_folder(folder, framed("0005061", "0005062", "0005064"))


def test_windows_off_the_grid_of_clips_have_no_name_there(tmp_path):
    folder = written(tmp_path / "clips", ["0005061-0", "0005062-0", "0005063-0"])
    frames = framed("0005061@0", "0005062@0", "0005063@0", "0005061@15")
    with pytest.raises(UserError, match=r"clips/0005061@15.npy: is missing, 1 such in all"):
        read_folder(folder, frames)
