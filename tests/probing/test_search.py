"""Search: selection on validation alone, resuming, examples of windows, deformations."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import roc_auc_score

from tonnetz.errors import UserError
from tonnetz.metrics import stacked
from tonnetz.metrics.bootstrap import percentiles, resampled
from tonnetz.probing import Goal, Protocol, expand, search
from tonnetz.probing.deform import KNOWN, deformation, response
from tonnetz.probing.features import Features, concatenated, cut_tails, moving, summable, tracks_mark
from tonnetz.probing.lead import add_leads
from tonnetz.probing.search import Settings, evaluation_examples, training_examples

SPLITS = {"train": 60, "valid": 30, "test": 30}
NAMES = ("a", "b", "c")


def windows(noise=1.0):
    """Three windows a track whose first dimensions tell its class; and the classes."""
    g = torch.Generator().manual_seed(0)
    values = {split: torch.randint(3, (n,), generator=g) for split, n in SPLITS.items()}
    row = {split: torch.arange(n).repeat_interleave(3) for split, n in SPLITS.items()}
    x = {
        split: torch.eye(3)[values[split]][row[split]] + noise * torch.randn(3 * n, 3, generator=g)
        for split, n in SPLITS.items()
    }
    units = {split: torch.arange(n) for split, n in SPLITS.items()}
    return Features("model", x, row, "m"), Goal("classes", NAMES), values, units


PROBES = expand({"hidden": [[], [8]], "lr": [1e-2, 1e-1], "dropout": [0.0, 0.25], "batch": [32]})
PROTOCOL = Protocol(every=4, patience=5, max_steps=60)


def found(tmp_path, values=None, **words):
    features, goal, own, units = windows()
    settings = Settings(seeds=2, draws=50, **words)
    return search.search(
        features, goal, values or own, units, torch.arange(60), PROBES, PROTOCOL, settings, tmp_path / "parts"
    )


def test_test_labels_choose_nothing(tmp_path):
    _, _, values, _ = windows()
    rules = ("vote", "prob", "logit", "max")
    first = found(tmp_path / "a", rules=rules)
    wrong = {**values, "test": (values["test"] + 1) % 3}
    other = found(tmp_path / "b", wrong, rules=rules)
    for key in ("winner", "rule", "valid", "configurations"):
        assert first[key] == other[key]
    assert first["test"]["accuracy"] > 0.6 > other["test"]["accuracy"]
    best = max(first["configurations"], key=lambda row: row["score"])
    assert first["winner"] == best
    assert first["interval"][0] <= first["test"]["accuracy"] <= first["interval"][1]
    assert len(first["seeds"]["values"]) == 2


def test_the_table_has_the_width_of_a_layer_that_is_between(tmp_path):
    features, goal, values, units = windows()
    probes = expand({"hidden": [[], ["between"]], "lr": [1e-2]})
    result = search.search(
        features, goal, values, units, torch.arange(60), probes, PROTOCOL, Settings(seeds=1, draws=0), tmp_path
    )
    assert [row["hidden"] for row in result["configurations"]] == [[], [4]]  # three features, three classes


def test_an_interrupted_search_goes_on(tmp_path, monkeypatch):
    real, calls = search.fit, []

    def breaking(probes, *rest):
        calls.append(len(probes))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(probes, *rest)

    monkeypatch.setattr(search, "fit", breaking)
    with pytest.raises(KeyboardInterrupt):
        found(tmp_path)
    resumed = found(tmp_path)
    assert calls == [4, 4, 4, 1]  # the first group was not trained again; one further seed of the winner
    monkeypatch.setattr(search, "fit", real)
    assert resumed == found(tmp_path / "whole")


def test_one_of_216_may_diverge(tmp_path):
    """It is marked, and the 215 others end as if it were not there."""
    features, goal, values, units = windows()
    axes = {"standardize": [False, True], "hidden": [[], [8]], "batch": [32, 64], "lr": [1e-3, 1e-2, 1e-1]}
    probes = expand({**axes, "dropout": [0.25, 0.5, 0.75], "weight_decay": [0.0, 1e-4, 1e-3]})
    assert len(probes) == 216
    place = next(i for i, probe in enumerate(probes) if probe.hidden and probe.lr == 1e-2)
    broken = [replace(probe, lr=1e38) if i == place else probe for i, probe in enumerate(probes)]
    protocol, settings = Protocol(every=4, patience=3, max_steps=24), Settings(seeds=1, draws=0)
    calm, torn = (
        search.search(features, goal, values, units, torch.arange(60), some, protocol, settings, tmp_path / name)
        for name, some in (("calm", probes), ("torn", broken))
    )
    assert (calm["failed"], torn["failed"]) == (0, 1)
    rows = torn["configurations"]
    assert [i for i, row in enumerate(rows) if row["failed"] is not None] == [place]
    for i, (row, other) in enumerate(zip(rows, calm["configurations"], strict=True)):
        if i != place:
            assert row["score"] == pytest.approx(other["score"], abs=1e-6)
            assert row["steps"] == other["steps"] > 0


def test_a_validation_split_that_cannot_choose_is_named(tmp_path):
    features, _, values, units = windows()
    several = {split: torch.nn.functional.one_hot(value, 3).T.float() for split, value in values.items()}
    several["valid"].zero_()
    goal = Goal("multilabel", NAMES)
    with pytest.raises(UserError, match="no class with a positive and a negative"):
        search.search(
            features, goal, several, units, torch.arange(60), PROBES, PROTOCOL, Settings(draws=0), tmp_path / "parts"
        )


@pytest.mark.parametrize("train", ["mean", "all", 2])
def test_training_examples(train):
    features, _, values, _ = windows()
    keep = torch.tensor([4, 7, 50])
    found = training_examples(features, values["train"], keep, Settings(train))
    each = {"mean": 1, "all": 3, 2: 2}[train]
    assert found.target.tolist() == values["train"][keep].repeat_interleave(each).tolist()
    if train == "mean":
        torch.testing.assert_close(found.x[1], features.x["train"][21:24].mean(0))
    else:
        assert all((features.x["train"][21:24] == x).all(1).any() for x in found.x[each : 2 * each])


def test_units_join_tracks():
    features, _, values, _ = windows()
    unit = torch.arange(30) // 2
    values["test"] = unit % 3
    whole = evaluation_examples(features, "test", values["test"], unit, ("embedding",))
    assert whole.target.tolist() == [i % 3 for i in range(15)]
    torch.testing.assert_close(whole.x[3], features.x["test"][18:24].mean(0))
    parts = evaluation_examples(features, "test", values["test"], unit, ("logit",))
    assert parts.unit.tolist() == [i // 6 for i in range(90)]


def test_resampling_equals_a_loop_of_sklearn():
    g = torch.Generator().manual_seed(0)
    target = (torch.rand(3, 150, generator=g) < 0.3).float()
    score = target + torch.randn(3, 150, generator=g)
    metric = Goal("multilabel", NAMES).value
    low, high = percentiles(resampled(metric, score, target, draws=400, seed=3))
    random, values = np.random.default_rng(0), []
    for _ in range(400):
        rows = random.integers(0, 150, 150)
        values.append(roc_auc_score(target[:, rows].T, score[:, rows].T))
    assert (low, high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=0.015)
    assert percentiles(resampled(metric, score, target, draws=400, seed=3)) == (low, high)
    classes = resampled(stacked.accuracy, score, score.argmax(0), draws=20)
    assert percentiles(classes) == (1.0, 1.0)


def test_a_lead_is_paired_over_tracks():
    """Two predictors that err on nearly the same tracks: a naive loop that draws tracks for both at once agrees."""
    truth = torch.arange(200) % 2
    score = torch.nn.functional.one_hot(truth, 2).T.float()  # (2, 200), right everywhere
    one, other = score.clone(), score.clone()
    one[:, :60] = one[:, :60].flip(0)
    other[:, :70] = other[:, :70].flip(0)
    rows = [
        {"test": {"accuracy": right}, "draws": resampled(stacked.accuracy, each, truth, draws=2000, seed=5).tolist()}
        for right, each in ((0.70, one), (0.65, other))
    ]
    add_leads(rows, rows[0], "accuracy")
    assert "lead" not in rows[0]
    random = np.random.default_rng(0)
    right = np.stack([(each.argmax(0) == truth).numpy() for each in (one, other)])
    apart = [np.subtract(*right[:, random.integers(0, 200, 200)].mean(1)) for _ in range(2000)]
    low, high = np.quantile(apart, [0.025, 0.975])
    lead = rows[1]["lead"]
    assert (lead["value"], lead["low"], lead["high"]) == pytest.approx((0.05, low, high), abs=0.006)
    assert lead["low"] > 0, "unpaired, the two intervals overlap"


def test_tails():
    def made():
        rows = np.array([0, 0, 0, 1, 2, 2])
        return SimpleNamespace(rows=rows, starts=np.array([0, 100, 150, 0, 0, 100]), tempi=np.ones(6))

    kept, padded, dropped = made(), made(), made()
    cut_tails(kept, 100, "overlap")
    cut_tails(padded, 100, "pad")
    cut_tails(dropped, 100, "drop")
    assert kept.starts.tolist() == [0, 100, 150, 0, 0, 100]
    assert padded.starts.tolist() == [0, 100, 200, 0, 0, 100]
    assert (dropped.starts.tolist(), dropped.rows.tolist()) == ([0, 100, 0, 0, 100], [0, 0, 1, 2, 2])


def test_moving_statistics_equal_numpy():
    x = torch.randn(4, 20, generator=torch.Generator().manual_seed(0))
    parts = [x.numpy(), np.diff(x.numpy()), np.diff(x.numpy(), 2)]
    expected = np.concatenate([f(part, 1) for part in parts for f in (np.mean, np.std)])
    np.testing.assert_allclose(moving(x), expected, atol=1e-5)
    assert moving(x[:, :1]).isfinite().all()


def test_taps_side_by_side():
    features, *_ = windows()
    both = concatenated([features, features], "both")
    assert both.x["valid"].shape == (90, 6)
    assert both.mark != features.mark
    narrow = Features("n", {k: v[:, :2] for k, v in features.x.items()}, features.row, "n")
    total = summable([features, narrow], "sum")
    assert (total.x["valid"].shape, total.taps) == ((90, 6), 2)
    ours, theirs = total.x["test"][:, 3:], narrow.x["test"]
    torch.testing.assert_close(ours @ ours.T, theirs @ theirs.T, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_deformations_keep_shape_and_are_the_same_again(name):
    audio = 0.3 * torch.randn(3, 1, 8000, generator=torch.Generator().manual_seed(0))
    row = torch.tensor([5, 2, 5])
    _, deform = deformation(name)
    out = deform(audio, row, 16000)
    assert out.shape == audio.shape
    assert out.isfinite().all()
    torch.testing.assert_close(out, deform(audio, row, 16000))
    assert not torch.allclose(out, audio, atol=1e-3)
    alone = deform(audio[1:2], row[1:2], 16000)
    torch.testing.assert_close(out[1:2], alone, atol=1e-5, rtol=1e-4)  # other excerpts of a batch do not matter


def test_a_room_is_heard():
    impulse = response(16000, 1.0)
    assert len(impulse) == 16000
    assert impulse[1:].square().sum().item() == pytest.approx(impulse[0].square().item(), rel=1e-5)
    level = [10 * impulse[a : a + 800].square().mean().log10().item() for a in (100, 8100, 15100)]
    assert level[0] - level[1] == pytest.approx(30, abs=1.5)
    assert level[0] - level[2] == pytest.approx(56, abs=1.5)
    audio = torch.randn(1, 1, 32000, generator=torch.Generator().manual_seed(0))
    wet = deformation("room")[1](audio, torch.tensor([0]), 16000)
    likeness = torch.nn.functional.cosine_similarity(audio, wet, dim=-1).item()
    assert likeness == pytest.approx(0.5**0.5, abs=0.05)  # half of the energy is the direct sound's
    expected = np.convolve(audio[0, 0].numpy(), impulse.numpy())[:32000]
    scale = np.linalg.norm(audio) / np.linalg.norm(expected)
    np.testing.assert_allclose(wet[0, 0], expected * scale, atol=1e-4)


def test_deformations_do_what_their_names_say():
    audio, row = 0.3 * torch.randn(2, 1, 16000, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1])
    for name, snr in (("noise_15db", 15), ("noise_0db", 0)):
        rest = deformation(name)[1](audio, row, 16000) - audio
        assert 10 * (audio.square().mean() / rest.square().mean()).log10().item() == pytest.approx(snr, abs=0.2)
    quiet = deformation("gain_-12db")[1](audio, row, 16000)
    assert 20 * (quiet.norm() / audio.norm()).log10().item() == pytest.approx(-12)
    cut = deformation("clip_5%")[1](audio, row, 16000)
    assert (cut.abs() == cut.abs().amax(-1, keepdim=True)).float().mean().item() == pytest.approx(0.05, abs=0.002)
    power = torch.fft.rfft(deformation("lowpass_25%")[1](audio, row, 16000)).abs()
    assert power[..., 2100:].max() < 1e-2 < power[..., :1900].mean()
    sine = 0.5 * torch.sin(2 * torch.pi * 440 * torch.arange(16000) / 16000).expand(2, 1, -1).contiguous()
    spectrum = torch.fft.rfft(deformation("pitch_+1")[1](sine, row, 16000)[0, 0]).abs()
    assert int(spectrum.argmax()) == pytest.approx(440 * 2 ** (1 / 12), abs=3)
    coded = deformation("mp3_64k")[1](sine, row, 16000)
    assert (coded - sine)[..., 2000:14000].norm() < 0.1 * sine[..., 2000:14000].norm()  # in time, nearly the same
    with pytest.raises(UserError, match="no MP3 at 12345"):
        deformation("mp3_64k")[1](sine, row, 12345)
    with pytest.raises(UserError, match="did you mean 'room'"):
        deformation("roon")


def test_a_replaced_file_has_other_features():
    """Files that are read where they lie keep their name; decoded ones have no stamp, and older marks stay."""
    frame = pl.DataFrame(
        {"id": ["a", "b"], "audio": ["x", "y"], "first": [0, 0], "samples": [9, 9], "peak": [1.0, 1.0]}
    )
    stamps = [pl.Series("stamp", values, dtype=pl.String) for values in ([None, None], ["1", None], ["2", None])]
    plain, one, two = (tracks_mark(frame.with_columns(stamp)) for stamp in stamps)
    assert plain == tracks_mark(frame)
    assert len({plain, one, two}) == 3
