"""GiantSteps keys: constants on the published test labels, songs of several clips, and who chooses the rule."""

from __future__ import annotations

import collections

import mir_eval
import numpy as np
import pytest
import torch

from tonnetz.metrics.key import KEYS, key_score_macro
from tonnetz.probing import Goal, Protocol, expand
from tonnetz.probing.features import Features
from tonnetz.probing.search import Settings, search
from tonnetz.probing.targets import constant

# Songs of each key, C to B major and C to B minor, among the 604 of the GiantSteps key dataset (Knees et al. 2015).
MAJOR = (15, 1, 10, 9, 10, 9, 5, 8, 5, 11, 5, 5)
MINOR = (53, 25, 40, 36, 48, 73, 31, 62, 29, 54, 28, 32)
GOAL = Goal("key", KEYS)
NAMES = [name.replace("Db", "C#").replace("Gb", "F#") for name in KEYS]  # as mir_eval spells them


@pytest.fixture(scope="module")
def published():
    """Key numbers (604,) of the test songs."""
    return torch.arange(24).repeat_interleave(torch.tensor(MAJOR + MINOR))


def always(name, songs):
    score = torch.zeros(24, songs)
    score[KEYS.index(name)] = 1
    return score


@pytest.mark.parametrize(
    ("name", "accuracy", "score", "symmetric"),
    [("C minor", 0.0877, 0.1576, 0.2089), ("F minor", 0.1209, 0.1495, 0.1934)],
)
def test_constants_on_the_published_labels(published, name, accuracy, score, symmetric):
    assert len(published) == 604
    found = GOAL.metrics(always(name, 604), published)
    expected = {"accuracy": accuracy, "key_score": score, "key_score_symmetric": symmetric}
    expected["key_score_macro"] = (1 + 0.5 + 0.3 + 0.2) / 24  # of the one key, of those that it is near to
    assert found == pytest.approx(expected, abs=5e-5)
    guess = NAMES[KEYS.index(name)]
    loop = np.mean([mir_eval.key.weighted_score(NAMES[truth], guess) for truth in published.tolist()])
    assert found["key_score"] == pytest.approx(loop)


@pytest.mark.parametrize("each", [False, True], ids=["one target", "a target for each"])
def test_every_key_counts_alike(each):
    """The mean of mir_eval's scores for each true key, over the keys that occur; unknown ones do not count."""
    g = torch.Generator().manual_seed(0)
    truth = torch.randint(-1, 20, (3, 150) if each else (150,), generator=g)
    score = torch.randn(3, 24, 150, generator=g)
    found = key_score_macro(score, truth)
    for c in range(3):
        by_key = collections.defaultdict(list)
        for key, guess in zip((truth[c] if each else truth).tolist(), score[c].argmax(0).tolist(), strict=True):
            if key >= 0:
                by_key[key].append(mir_eval.key.weighted_score(NAMES[key], NAMES[guess]))
        assert found[c].item() == pytest.approx(np.mean([np.mean(one) for one in by_key.values()]))


def test_no_constant_scores_more_than_c_minor(published):
    assert KEYS[int(constant(GOAL, published, 1).argmax())] == "C minor"
    assert KEYS[int(published.bincount().argmax())] == "F minor"


def rule_of_a_loop(rule, outputs):
    """The key of a song from outputs (clips, 24), as the ensembles of jukemir are defined."""
    if rule == "vote":
        votes = collections.Counter(outputs.argmax(1).tolist())
        return min(votes, key=lambda key: (-votes[key], key))
    joined = {"max": outputs.amax(0), "logit": outputs.mean(0), "prob": outputs.softmax(1).mean(0)}[rule]
    return int(joined.argmax())


@pytest.mark.parametrize("rule", ["vote", "max", "logit", "prob"])
def test_clips_are_joined_to_songs(rule):
    g = torch.Generator().manual_seed(0)
    clips = torch.randint(1, 6, (40,), generator=g)
    unit = torch.arange(40).repeat_interleave(clips)
    outputs = 2 * torch.randn(len(unit), 24, generator=g)
    found = GOAL.join(outputs.T[None], unit, 40, rule)[0].argmax(0)
    assert found.tolist() == [rule_of_a_loop(rule, outputs[unit == song]) for song in range(40)]


def clips_of_songs(noise=0.8):
    """Chroma-like features of four clips a song, two windows a clip."""
    g = torch.Generator().manual_seed(1)
    songs = {"train": 120, "valid": 48, "test": 48}
    unit = {split: torch.arange(n).repeat_interleave(4) for split, n in songs.items()}
    values = {split: torch.randint(24, (n,), generator=g)[unit[split]] for split, n in songs.items()}
    row = {split: torch.arange(4 * n).repeat_interleave(2) for split, n in songs.items()}
    x = {
        split: torch.eye(24)[values[split]][row[split]] + noise * torch.randn(8 * n, 24, generator=g)
        for split, n in songs.items()
    }
    return Features("model", x, row, "m"), values, unit


def found(folder, values, features, unit):
    probes = expand({"lr": [1e-2, 1e-1], "dropout": [0.25], "batch": [64], "standardize": [False, True]})
    settings = Settings("mean", ("vote", "max", "logit", "prob"), seeds=1, draws=0)
    protocol, keep = Protocol(every=8, patience=4, max_steps=300), torch.arange(len(values["train"]))
    return search(features, GOAL, values, unit, keep, probes, protocol, settings, folder)


def test_test_labels_choose_neither_rule_nor_probe(tmp_path):
    features, values, unit = clips_of_songs()
    first = found(tmp_path / "a", values, features, unit)
    other = found(tmp_path / "b", {**values, "test": (values["test"] + 7) % 24}, features, unit)
    for key in ("winner", "rule", "valid", "configurations"):
        assert first[key] == other[key]
    assert first["test"]["key_score"] > 2 * other["test"]["key_score"]


def test_every_rule_is_reported_and_the_single_clips(tmp_path):
    features, values, unit = clips_of_songs()
    result = found(tmp_path, values, features, unit)
    assert list(result["rules"]) == ["vote", "max", "logit", "prob"]
    assert result["rules"][result["rule"]] == result["test"]
    assert result["single"]["accuracy"] < min(one["accuracy"] for one in result["rules"].values())


def test_a_clip_is_one_vector_to_train_and_to_judge(tmp_path):
    """With train=mean the windows of a clip are joined before the probe, the clips of a song after it."""
    features, values, unit = clips_of_songs()
    means = {
        split: torch.stack([x[row == clip].mean(0) for clip in row.unique()])
        for (split, x), row in zip(features.x.items(), features.row.values(), strict=True)
    }
    plain = Features("model", means, {split: torch.arange(len(x)) for split, x in means.items()}, "m")
    ours, theirs = (found(tmp_path / name, values, f, unit) for name, f in (("a", features), ("b", plain)))
    for rule, scores in theirs["rules"].items():
        assert ours["rules"][rule] == pytest.approx(scores)
