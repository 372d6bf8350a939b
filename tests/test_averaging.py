"""Averages of weights, of distances, and the moving average of a training run."""

import numpy as np
import pytest
import torch
from torch import nn

from tonnetz.averaging import average_checkpoints, average_distances, average_weights, refresh
from tonnetz.callbacks import MovingAverage
from tonnetz.errors import UserError
from tonnetz.metrics.ranking import Ranking


def states(count=3):
    torch.manual_seed(0)
    return [{"a": torch.randn(4, 3), "n": torch.tensor(i), "b": torch.randn(2)} for i in range(count)]


def test_mean_of_weights_against_a_loop():
    found = average_weights(states(), [1, 2, 5])
    for name in ("a", "b"):
        expected = sum(w * state[name].double() for w, state in zip([1, 2, 5], states(), strict=True)) / 8
        torch.testing.assert_close(found[name], expected.float())
        assert found[name].dtype == torch.float32
    assert found["n"] == 0
    torch.testing.assert_close(average_weights(states())["a"], torch.stack([s["a"] for s in states()]).mean(0))


def checkpoint(path, state, frontend="f"):
    about = {"format": 1, "frontend": frontend, "config": {"model": {}, "pooling": {}}}
    about["spec"] = {"classes": [], "groups": []}
    content = {"tonnetz": about, "state_dict": state, "epoch": 1, "global_step": 2, "pytorch-lightning_version": "2.6"}
    torch.save(content, path)
    return path


def test_checkpoints_of_other_models_have_no_average(tmp_path):
    one, two, _ = states()
    first = checkpoint(tmp_path / "1.ckpt", one)
    second = checkpoint(tmp_path / "2.ckpt", two)
    average_checkpoints([first, second], tmp_path / "mean.ckpt", [1, 3])
    found = torch.load(tmp_path / "mean.ckpt", weights_only=True)
    torch.testing.assert_close(found["state_dict"]["a"], 0.25 * one["a"] + 0.75 * two["a"])
    assert not list(tmp_path.glob("*.part"))
    for other in (checkpoint(tmp_path / "3.ckpt", two, "g"), checkpoint(tmp_path / "4.ckpt", {"a": torch.ones(1)})):
        with pytest.raises(UserError, match="have no average"):
            average_checkpoints([first, other], tmp_path / "mean.ckpt")
    with pytest.raises(UserError, match="two checkpoints"):
        average_checkpoints([first], tmp_path / "mean.ckpt")
    for wrong in ([1.0], [0.0, 0.0], [-1.0, 2.0]):
        with pytest.raises(UserError, match=r"job\.weights"):
            average_checkpoints([first, second], tmp_path / "mean.ckpt", wrong)


def test_a_mean_has_learned_what_its_parts_have(tmp_path):
    paths = [checkpoint(tmp_path / f"{i}.ckpt", state) for i, state in enumerate(states())]
    for i, path in enumerate(paths[:2]):
        content = torch.load(path)
        content["tonnetz"]["learned"] = {"stages": [{"task": "csi"}, {"fold": i}], "recordings": torch.tensor([i, 7])}
        torch.save(content, path)
    average_checkpoints(paths[:2], tmp_path / "mean.ckpt")
    found = torch.load(tmp_path / "mean.ckpt")["tonnetz"]["learned"]
    assert found["stages"] == [{"task": "csi"}, {"fold": 0}, {"fold": 1}]
    assert found["recordings"].tolist() == [0, 1, 7]
    average_checkpoints(paths, tmp_path / "mean.ckpt")  # one of these does not know
    assert "learned" not in torch.load(tmp_path / "mean.ckpt")["tonnetz"]


def test_refreshed_statistics_are_those_of_the_batches():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Dropout(0.5)).eval()
    batches = [torch.randn(16, 3) * 4 + 1 for _ in range(6)]
    before = model[0].weight.clone()
    refresh(model, batches, 4)
    with torch.no_grad():
        outputs = torch.stack([model[0](batch) for batch in batches[:4]])
    torch.testing.assert_close(model[1].running_mean, outputs.mean((0, 1)))
    torch.testing.assert_close(model[1].running_var, outputs.var(1).mean(0))
    assert model[1].momentum == 0.1
    assert not model.training
    assert torch.equal(before, model[0].weight)
    kept = model[1].running_mean.clone()
    refresh(model, batches, 0)
    assert torch.equal(kept, model[1].running_mean)


def retrieval(distance, work, exclude=None):
    ranking = Ranking(work, torch.arange(len(work)), exclude)
    ranking.add(torch.arange(len(work)), distance)
    return ranking.result()


def test_mean_distances_against_a_naive_ranking():
    torch.manual_seed(2)
    work = torch.tensor([0, 0, 0, 1, 1, 2, 2, 3])
    tables = [torch.rand(8, 8) for _ in range(3)]
    found = average_distances([retrieval(table, work) for table in tables], rounds=20)
    mean = sum(tables) / 3
    precisions = []
    for q in range(7):  # work 3 has one recording: nothing to find
        order = sorted((r for r in range(8) if r != q), key=lambda r: float(mean[q, r]))
        hits = [rank for rank, r in enumerate(order, 1) if work[r] == work[q]]
        precisions.append(np.mean([i / rank for i, rank in enumerate(hits, 1)]))
    assert found.values["map"] == pytest.approx(np.mean(precisions))
    assert found.values["map_low"] <= found.values["map"] <= found.values["map_high"]
    one = retrieval(tables[0], work)
    one.distance = None
    with pytest.raises(UserError, match="too many tracks"):
        average_distances([one, one])


def test_moving_average_against_a_loop():
    values = [torch.full((3,), float(v)) for v in (1, 5, 2, 8, 3, 3, 9)]
    callback = MovingAverage(0.3)
    average, count, expected = values[0].clone(), 1, 1.0
    for n, value in enumerate(values[1:], 1):
        callback.blend([average], [value], torch.tensor(n))
        decay = min(0.3, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * float(value[0])
        count += 1
    torch.testing.assert_close(average, torch.full((3,), expected))
    whole = torch.tensor([4])
    callback.blend([whole], [torch.tensor([9])], 3)
    assert whole == 9
    for wrong in (0, 1, -0.5):
        with pytest.raises(UserError, match=r"job\.ema"):
            MovingAverage(wrong)


def test_a_fit_stores_and_evaluates_the_average(fit):
    """The stored weights follow from those after every step; a resumed run has the same average."""
    seen = []
    real = MovingAverage.on_train_batch_end

    def record(self, trainer, module, *rest):
        real(self, trainer, module, *rest)
        seen.append({name: value.detach().clone() for name, value in module.named_parameters()})

    MovingAverage.on_train_batch_end = record
    try:
        whole = fit("job.ema=0.6", "trainer.max_epochs=3", run="whole")
    finally:
        MovingAverage.on_train_batch_end = real
    assert whole.status == 0, whole.err
    stored = torch.load(whole.folder / "checkpoints/last.ckpt", weights_only=True)
    average = dict(seen[0])
    for n, state in enumerate(seen[1:], 1):
        decay = min(0.6, (1 + n) / (10 + n))
        average = {name: decay * average[name] + (1 - decay) * state[name] for name in state}
    for name, value in average.items():
        torch.testing.assert_close(stored["state_dict"][name], value, atol=1e-6, rtol=1e-5)
    assert any(not torch.equal(a, b) for a, b in zip(average.values(), seen[-1].values(), strict=True))
    plain = fit("trainer.max_epochs=3", run="plain")
    scores = [done.json("metrics.json") for done in (whole, plain)]
    assert all("test" in score for score in scores)
    current = torch.load(plain.folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    for name, value in seen[-1].items():  # training itself is not touched
        assert torch.equal(current[name], value)
    parts = [fit("job.ema=0.6", f"trainer.max_epochs={n}", "schedule=constant", run="parts") for n in (1, 3)]
    unbroken = fit("job.ema=0.6", "trainer.max_epochs=3", "schedule=constant", run="unbroken")
    both = [torch.load(d.folder / "checkpoints/last.ckpt", weights_only=True) for d in (parts[1], unbroken)]
    for key in ("state_dict", "current_model_state"):
        assert all(torch.equal(both[0][key][name], both[1][key][name]) for name in both[0][key])
