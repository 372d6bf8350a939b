"""A part of the training tracks: proportions, whole recordings, seeds, nesting."""

import collections

import numpy as np
import pytest

from tonnetz.checkpoint import load_checkpoint
from tonnetz.fraction import thinned
from tonnetz.tracks import table


def corpus(counts, clips=1, labels=None):
    """So many recordings of each class, of so many clips each; every fifth recording tests."""
    rows = []
    for name, count in counts.items():
        for i in range(count):
            for clip in range(clips):
                facts = {"split": "test" if i % 5 == 4 else "train", "group": f"{name}{i}" if clips > 1 else None}
                rows.append({"id": f"{name}{i}-{clip}", "path": f"{name}{i}-{clip}.wav", **facts})
                rows[-1]["labels"] = labels(name, i) if labels else [name]
    return table(rows)


def train(frame):
    return frame.filter(split="train")


def by_class(frame):
    return collections.Counter(frame["labels"].explode().to_list())


@pytest.mark.parametrize(("fraction", "expected"), [(0.01, (8, 1, 1)), (0.1, (80, 8, 1)), (0.5, (400, 40, 2))])
def test_classes_keep_their_proportions_and_one_track_at_least(fraction, expected):
    frame = corpus({"a": 1000, "b": 100, "c": 5})
    kept = thinned(frame, fraction, 0)
    assert tuple(by_class(train(kept))[name] for name in "abc") == expected
    assert kept.filter(split="test").equals(frame.filter(split="test"))
    assert kept["id"].to_list() == [name for name in frame["id"] if name in set(kept["id"])]  # in their order


def test_recordings_stay_whole():
    frame = corpus({"a": 100, "b": 40}, clips=4)
    kept = train(thinned(frame, 0.1, 0))
    assert set(collections.Counter(kept["group"]).values()) == {4}
    assert by_class(kept) == {"a": 32, "b": 16}  # 3.2 recordings of 4 clips make 12.8 of 128 tracks


def test_seeds_and_nesting():
    frame = corpus({"a": 300, "b": 60})
    few, again, more, other = (set(thinned(frame, f, s)["id"]) for f, s in ((0.1, 0), (0.1, 0), (0.4, 0), (0.1, 1)))
    assert few == again
    assert few < more
    assert few != other
    assert thinned(frame, 1.0, 3) is frame


def test_several_labels_and_none():
    def labels(name, i):
        return [] if name == "c" else None if name == "d" else [name, "common"] if i % 2 else [name]

    frame = corpus({"a": 400, "b": 20, "c": 100, "d": 100}, labels=labels)
    kept = train(thinned(frame, 0.1, 0))
    counts = by_class(kept)
    assert counts["b"] == 2  # of 16
    assert 32 <= counts["a"] <= 34  # of 320
    assert counts["common"] >= round(0.1 * by_class(train(frame))["common"])
    assert (kept["labels"].list.len().fill_null(0) == 0).sum() == 16  # of 160
    without = corpus({"a": 50}, labels=lambda name, i: None)
    assert train(thinned(without, 0.1, 0)).height == 4


HEAD = ["task.frozen=true", "task.hidden=12", "data.fraction=0.4", "trainer.max_epochs=2", "optimizer.lr=0.01"]


def test_linear_evaluation_from_the_command_line(fit):
    """Pretrained, then: frozen or not, linear or not, with part of the labels."""
    first = fit(
        "task=contrastive", "frontend=logmel", "frontend.sample_rate=16000", "trainer.max_epochs=1", run="first"
    )
    assert first.status == 0, first.err
    path = first.folder / "checkpoints/last.ckpt"
    start = load_checkpoint(path)["state_dict"]
    done = fit(f"init={path}", *HEAD, run="frozen")
    assert done.status == 0, done.err
    stored = load_checkpoint(done.folder / "checkpoints/last.ckpt")
    weights = stored["state_dict"]
    for name, value in start.items():
        if name.startswith("encoder."):  # statistics of batch normalisation too
            assert np.array_equal(weights[name], value), name
    assert weights["head.1.weight"].shape[0] == 12
    assert weights["head.4.weight"].shape == (3, 12)
    assert sum(stored["tonnetz"]["spec"]["positives"]) == 9  # 3 of 7 training files of each class
    tuned = fit(f"init={path}", "data.fraction=0.01", "trainer.max_epochs=1", run="tuned")
    assert tuned.status == 0, tuned.err
    stored = load_checkpoint(tuned.folder / "checkpoints/last.ckpt")
    assert list(stored["tonnetz"]["spec"]["positives"]) == [1, 1, 1]
    moved = [n for n in start if n.startswith("encoder.") and not np.array_equal(stored["state_dict"][n], start[n])]
    assert moved
    asked = fit("task.hidden=0", run="asked")
    assert (asked.status, "task.hidden=0: must be above 0" in asked.err) == (2, True)
