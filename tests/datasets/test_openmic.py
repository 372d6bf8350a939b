from __future__ import annotations

import json

import numpy as np
import pytest

from tonnetz.datasets.openmic import CLASSES, OpenMIC
from tonnetz.errors import UserError
from tonnetz.tracks import label_matrix, split_tracks, table

KEYS = ["000046_3840", "000135_483840", "155311_453120", "155307_211200"]


@pytest.fixture
def arrays():
    random = np.random.default_rng(0)
    known = random.random((4, 20)) < 0.3
    known[:, 0] = True
    relevance = np.where(known, random.random((4, 20)), 0.5)
    relevance[0, 0], relevance[1, 0] = 0.5, 0.49
    return {
        "Y_true": relevance,
        "Y_mask": known,
        "sample_key": np.array(KEYS),
        "X": np.zeros((4, 10, 128), np.uint8),
    }


@pytest.fixture
def archive(tmp_path, tone, arrays):
    home = tmp_path / "openmic-2018"
    for key in KEYS:
        tone(f"openmic-2018/audio/{key[:3]}/{key}.ogg")
    np.savez(home / "openmic-2018.npz", **arrays)
    (home / "class-map.json").write_text(json.dumps({name: i for i, name in enumerate(CLASSES)}))
    (home / "partitions").mkdir()
    (home / "partitions/split01_train.csv").write_text("\n".join(KEYS[:3]) + "\n")
    (home / "partitions/split01_test.csv").write_text(KEYS[3] + "\n")
    return home


def expected(arrays) -> np.ndarray:
    matrix = np.full((4, 20), np.nan, np.float32)
    for i in range(4):
        for j in range(20):
            if arrays["Y_mask"][i, j]:
                matrix[i, j] = arrays["Y_true"][i, j] >= 0.5
    return matrix


@pytest.mark.parametrize("from_inside", [True, False])
def test_labels_splits_and_paths(archive, arrays, from_inside):
    corpus = OpenMIC(archive if from_inside else archive.parent)
    frame = table(corpus.tracks())
    assert corpus.multilabel
    assert frame["id"].to_list() == KEYS
    assert frame["path"].to_list()[0] == str(archive / "audio/000/000046_3840.ogg")
    assert frame["split"].to_list() == [None, None, None, "test"]
    np.testing.assert_array_equal(label_matrix(frame, CLASSES), expected(arrays))
    assert "accordion" in frame["labels"][0]  # relevance of just 0.5 counts
    assert "accordion" not in frame["labels"][1]


def test_validation_is_carved_out_of_training(archive):
    frame = split_tracks(table(OpenMIC(archive).tracks()), 0.6, 0.3, 0)
    assert "valid" in frame["split"][:3].to_list()
    assert "test" not in frame["split"][:3].to_list()
    assert frame["split"][3] == "test"


def test_pickled_keys_are_not_loaded_but_read_from_the_table(archive, arrays):
    np.savez(archive / "openmic-2018.npz", **{**arrays, "sample_key": np.array(KEYS, dtype=object)})
    with pytest.raises(UserError, match=r"aggregated-labels\.csv: no such file; it is needed"):
        list(OpenMIC(archive).tracks())
    lines = [
        f"{KEYS[i]},{CLASSES[j]},{arrays['Y_true'][i, j]},3" for i, j in zip(*np.nonzero(arrays["Y_mask"]), strict=True)
    ]
    text = "\n".join(["sample_key,instrument,relevance,num_responses", *lines])
    (archive / "openmic-2018-aggregated-labels.csv").write_text(text)
    frame = table(OpenMIC(archive).tracks())
    order = [frame["id"].to_list().index(key) for key in KEYS]
    np.testing.assert_array_equal(label_matrix(frame, CLASSES)[order], expected(arrays))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda home: (home / "openmic-2018.npz").unlink(), "openmic-2018.npz: no such file"),
        (lambda home: (home / "openmic-2018.npz").write_bytes(b"x" * 99), "openmic-2018.npz: not the arrays"),
        (lambda home: np.savez(home / "openmic-2018.npz", a=1), "openmic-2018.npz: not the arrays"),
        (lambda home: (home / "partitions/split01_test.csv").unlink(), "split01_test.csv: no such file"),
        (
            lambda home: (home / "partitions/split01_test.csv").write_text(KEYS[0]),
            f"partitions: '{KEYS[0]}' is in both",
        ),
        (lambda home: (home / "class-map.json").write_text("[1"), "class-map.json: not a JSON object"),
        (
            lambda home: (home / "class-map.json").write_text('{"a": 0}'),
            "openmic-2018.npz: 4 keys, labels (4, 20), 1 cl",
        ),
    ],
)
def test_damaged_archive(archive, damage, message):
    damage(archive)
    with pytest.raises(UserError) as caught:
        list(OpenMIC(archive).tracks())
    assert str(caught.value).startswith(f"{archive}/")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_empty_folder(tmp_path):
    with pytest.raises(UserError, match=r"openmic-2018\.npz: no such file; give the folder"):
        list(OpenMIC(tmp_path).tracks())
