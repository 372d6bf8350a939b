"""Pretraining on views: pairs, projector, moving average, monitors, resuming, processes, what starts from it."""

import json
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

from tests.jobs.test_csi import SMALL as SMALL_CSI
from tests.jobs.test_csi import WORDS as WORKS
from tests.jobs.test_ddp import DDP, run
from tests.losses.test_view_losses import NAMES
from tests.tasks.test_fewshot import SMALL as SMALL_FEWSHOT
from tests.test_config import FIXED, NARROW, RAW, SPEC, composed, members
from tonnetz.build import build_task, connect
from tonnetz.checkpoint import load_checkpoint
from tonnetz.data.plan import Stream
from tonnetz.data.views import ViewPlan, ViewStream
from tonnetz.errors import UserError
from tonnetz.jobs.fit import note_coarseness
from tonnetz.tasks.contrastive import kin_codes, projector
from tonnetz.tracks import DataSpec, table

MEL = ["task=contrastive", "frontend=logmel", "frontend.sample_rate=16000", "pooling=mean"]
TINY = [*MEL, "model=tiny", "augment=none"]
WAVEFORM = {"samplecnn", "samplecnn_xl", "tune", "tune_plus", "tune_hybrid", "sincnet"}
SMALLER = {
    "samplecnn_xl": ["model.widths=[4,4,8,8,8,8,8,8,8]"],
    "sincnet": ["model.widths=[4,4]", "model.filters=8"],
    "short_chunk": ["model.width=8"],
    "patch_transformer": ["model.depth=2"],
}


def made(*words, spec=SPEC):
    torch.manual_seed(0)
    config = composed(*words)
    return build_task(config, connect(config.frontend), spec)


def pairs(samples=8000, count=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    return {
        "audio": 0.3 * torch.randn(2 * count, 1, samples, generator=g),
        "lengths": torch.full((2 * count,), samples),
        "row": torch.arange(count).repeat_interleave(2),
        "start": torch.zeros(2 * count),
        "label": torch.eye(3)[torch.arange(2 * count) % 3],
    }


def step(task, batch):
    task.log = lambda *args, **keywords: None
    loss = task.loss(task.augment.wave(batch))
    loss.backward()
    return loss


# --- one step


@pytest.mark.parametrize("loss", NAMES)
@pytest.mark.parametrize("together", ["true", "false"])
def test_every_loss_on_views_trains_a_step(loss, together):
    task = made(*TINY, f"loss={loss}", f"task.together={together}").train()
    assert torch.isfinite(step(task, pairs()))
    gradients = [p.grad for p in task.encoder.parameters()]
    assert any(g is not None and g.abs().sum() > 0 for g in gradients)
    for module in (task.projection, task.predictor):
        assert module is None or all(p.grad is not None and torch.isfinite(p.grad).all() for p in module.parameters())
    assert task.target is None or all(p.grad is None for p in task.target.parameters())
    assert (task.target is not None) == (loss in ("moco", "byol"))
    assert (task.predictor is not None) == (loss in ("byol", "simsiam"))


@pytest.mark.parametrize("model", sorted(set(members("model")) - FIXED))
def test_every_model_trains_a_contrastive_step(model):
    words = MEL[1:] if model not in RAW | WAVEFORM else ["frontend=raw", "frontend.sample_rate=16000"]
    words = ["frontend=cqt"] if model == "key_equivariant" else words
    small = SMALLER.get(model, NARROW.get(model, []))
    task = made("task=contrastive", *words, f"model={model}", "augment=none", *small).train()
    assert torch.isfinite(step(task, pairs(16000, 2)))
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in task.encoder.parameters())


def test_the_default_is_tune_on_59049_samples():
    config = composed("task=contrastive")
    assert round(config.task.plan.seconds * config.frontend.sample_rate) == 3**10
    assert config.model._target_.endswith(".Tune")
    assert config.frontend._target_.endswith(".Raw")


def test_neighbours_in_a_batch_are_the_views_of_a_track():
    task = made(*TINY).eval()
    batch = pairs()
    online, target = task.views(batch)
    torch.testing.assert_close(online.flatten(0, 1), task(batch))
    torch.testing.assert_close(online, target)
    expected = task.criterion(online.transpose(0, 1), online.transpose(0, 1), torch.arange(3))
    torch.testing.assert_close(task.loss(batch), expected)
    twin = {**batch, "row": torch.tensor([4, 4, 4, 4, 7, 7])}  # kin are masked
    assert float(task.loss(twin).detach()) < float(expected.detach())


def test_two_passes_have_statistics_of_their_own():
    batch = pairs()
    one, two = (made(*TINY, "model.norm=true", f"task.together={t}").train() for t in ("true", "false"))
    a, b = one.views(batch)[0], two.views(batch)[0]
    assert not torch.allclose(a, b, atol=1e-5)
    torch.testing.assert_close(one.eval().views(batch)[0], one.views(batch)[0])
    torch.testing.assert_close(one.eval()(batch)[0::2], one.views(batch)[0][:, 0])


PREDICTIVE = [*TINY, "loss=cpc", "loss.hidden=8", "task.layers=0", "task.dim=null"]


def test_predictive_coding_compares_the_frames_of_every_excerpt():
    task = made(*PREDICTIVE).train()
    batch = pairs()
    assert torch.isfinite(step(task, batch))
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in task.criterion.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in task.encoder.parameters())
    task.eval()
    expected = task.criterion.compare(*task.encoder(batch), batch["row"])
    torch.testing.assert_close(task.loss(batch), expected)


@pytest.mark.parametrize("words", [["augment=basic"], ["augment=specaugment"]])
def test_one_view_may_stay_clean(words):
    task = made(*TINY[:-1], *words, "task.clean=true").train()
    batch = pairs(16000)
    torch.manual_seed(3)
    batch = task.encoder.features(task.augmented(batch))
    x, lengths = task._entering(batch)
    plain = task.encoder.frontend(pairs(16000)["audio"])
    torch.testing.assert_close(x[::2], plain[::2])
    assert not any(torch.allclose(a, b) for a, b in zip(x[1::2], plain[1::2], strict=True)) or words == [
        "augment=basic"
    ]
    assert not torch.allclose(x[1::2], plain[1::2])
    assert torch.equal(lengths, batch["lengths"])


def test_projector_of_the_paper():
    plain = projector(512, 512, 64, 2, norm=False)
    assert sum(p.numel() for p in plain.parameters()) == 294_912
    assert [type(layer).__name__ for layer in plain] == ["Linear", "ReLU", "Linear"]
    deep = projector(8, 16, 4, 3, norm=True)
    assert [type(x).__name__ for x in deep] == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear"]
    assert torch.equal(projector(5, 5, 5, 0, norm=False)(torch.ones(2, 5)), torch.ones(2, 5))


def test_embedding_is_the_pooled_vector():
    task = made(*TINY, "task.dim=7").eval()
    batch = pairs()
    torch.testing.assert_close(task.embed(batch), task.pooling(*task.encoder(batch)))
    assert task.embed(batch).shape[1] == task.encoder.dim
    assert task(batch).shape[1] == 7


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["loss=supcon"], "needs a loss on views"),
        (["task.select=lost"], r"task\.select=lost"),
        (["task.layers=0"], r"task\.dim=null"),
        (["task.layers=-1", "task.dim=null"], r"task\.layers=-1"),
        (["task.hidden=0"], r"task\.hidden=0"),
        (["task.select=knn", "task.bank=0"], r"task\.select=knn"),
        (["loss=cpc"], r"task\.layers=0 task\.dim=null"),
    ],
)
def test_mistakes_are_named(words, message):
    with pytest.raises(UserError, match=message):
        made(*TINY, *words)
    with pytest.raises(UserError, match=r"task\.select=linear"):
        made(*TINY, "task.select=linear", spec=DataSpec())


@pytest.mark.parametrize("loss", ["simclr", "dcl", "supcon_views", "barlow_twins", "vicreg", "moco", "byol", "simsiam"])
def test_a_batch_of_one_is_refused_where_nothing_is_learned_from_it(loss):
    task = made(*TINY, f"loss={loss}")
    alone = SimpleNamespace(batch_size=1, corpora=[])
    if loss in ("moco", "byol", "simsiam"):
        return task.check(alone)
    with pytest.raises(UserError, match=rf"data\.batch_size=1: {type(task.criterion).__name__} compares"):
        task.check(alone)
    return task.check(SimpleNamespace(batch_size=2, corpora=[]))


@pytest.mark.parametrize(("select", "mode"), [("loss", "min"), ("knn", "max"), ("rank", "max")])
def test_what_chooses_the_checkpoint(select, mode):
    task = made(*TINY, f"task.select={select}")
    assert (task.monitor, task.mode, task.score) == (f"valid/{select}", mode, select)


def test_the_moving_average_follows():
    task = made(*TINY, "loss=byol", "model.norm=true").train()
    before = {name: value.clone() for name, value in task.target.state_dict().items()}
    with torch.no_grad():
        for p in (*task.encoder.parameters(), *task.projection.parameters()):
            p.add_(1.0)
    task.views(pairs())  # moves the statistics of the online network alone
    assert not task.target.training
    online = task._online().state_dict()
    for name, value in task.target.state_dict().items():
        assert torch.equal(value, before[name])
    task._follow(0.75)
    for name, value in task.target.state_dict().items():
        expected = 0.75 * before[name] + 0.25 * online[name] if value.is_floating_point() else online[name]
        torch.testing.assert_close(value, expected)
    task._follow(0.0)
    assert all(torch.equal(value, online[name]) for name, value in task.target.state_dict().items())


# --- which excerpts


def stream(views, **keywords):
    keywords = {"steps": 4, "seed": 3, **keywords}
    return ViewStream(10, 4, views=views, **keywords)


def test_every_track_stands_twice_in_a_batch():
    for views in ("same", "track"):
        for batch, plain in zip(stream(views), Stream(10, 4, 4, 3), strict=True):
            positions, rows = np.array(batch).T
            assert (rows[::2] == rows[1::2]).all()
            assert list(zip(positions[::2], rows[::2], strict=True)) == plain
            assert (positions[::2] == positions[1::2]).all() == (views == "same")


def test_a_resumed_epoch_and_two_ranks_see_the_same_views():
    whole, part = stream("track"), stream("track")
    part.skip = 2
    assert list(part) == list(whole)[2:]
    first, second = (stream("track", rank=rank, world=2, steps=2) for rank in (0, 1))
    assert [b for pair in zip(first, second, strict=True) for b in pair] == list(whole)


def test_a_neighbour_is_the_next_excerpt_or_the_one_before():
    plan = ViewPlan(seconds=1.0, views="neighbour")
    starts = np.array([0, 5, 70, 9, 30, 2, 0, 0])
    room = np.array([90, 90, 90, 90, 35, 35, -5, -5])
    assert plan.place(starts, room, 50).tolist() == [0, 50, 70, 20, 30, 0, 0, 0]
    assert (ViewPlan(seconds=1.0).place(starts, room, 50) == starts).all()
    with pytest.raises(UserError, match=r"task\.plan\.views=neighbor"):
        ViewPlan(views="neighbor")
    with pytest.raises(UserError, match=r"task\.plan\.group"):
        ViewPlan(group="work")


def test_partners_of_windows():
    row = np.array([0, 0, 0, 2, 5, 5])
    assert ViewPlan(views="same").partners(row).tolist() == [0, 1, 2, 3, 4, 5]
    assert ViewPlan(views="neighbour").partners(row).tolist() == [1, 2, 0, 3, 5, 4]
    drawn = np.array([ViewPlan(views="track").partners(row, seed) for seed in range(50)])
    assert (row[drawn] == row).all()
    assert set(drawn[:, 0]) == {0, 1, 2}


def test_excerpts_of_views(corpus, tmp_path):
    from tonnetz.build import build_data

    for views in ("same", "neighbour", "track"):
        config = composed(
            *TINY,
            "data=folder",
            f"data.root={corpus}",
            f"paths.data={tmp_path}",
            "task.plan.seconds=0.3",
            f"task.plan.views={views}",
            "data.batch_size=6",
            "data.workers=0",
        )
        data = build_data(config, connect(config.frontend))
        batch = next(iter(data.train_dataloader()))
        assert batch["audio"].shape == (12, 1, 4800)
        gap = (batch["start"][1::2] - batch["start"][::2]).abs()
        if views == "same":
            assert torch.equal(batch["audio"][::2], batch["audio"][1::2])
        elif views == "neighbour":
            assert ((gap - 0.3).abs() < 1e-4).all() or (gap <= 0.3 + 1e-4).all()
            assert ((gap - 0.3).abs() < 1e-4).any()
        else:
            assert len(gap.unique()) > 3
        whole, few = data.dataset("valid"), data.dataset("valid", most=1)
        assert len(few) == data.split("valid").height < len(whole)


def test_kin_are_numbered_alike():
    columns = {
        "id": ["a", "b", "c", "d", "e"],
        "group": ["x", "y", "x", None, None],
        "labels": [["p", "q"], ["q", "p"], [], None, ["p"]],
    }
    frame = pl.DataFrame(columns, schema_overrides={"labels": pl.List(pl.String)})
    codes = kin_codes(frame, "group")
    assert codes[0] == codes[2]
    assert len(set(codes.tolist())) == 4
    assert codes.min() >= 0
    labels = kin_codes(frame, "labels").tolist()
    assert labels[0] == labels[1]
    assert len(set(labels)) == 4
    assert kin_codes(frame, None).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(UserError, match=r"task\.kin=groups.*group"):
        kin_codes(frame, "groups")


# --- whole runs

RUN = ["task=contrastive", "frontend=logmel", "frontend.sample_rate=16000", "schedule=constant", "data.batch_size=6"]


def test_kin_of_validation_are_not_those_of_training_with_the_same_number():
    """What a queue of training targets remembers must mean the same when validation windows ask."""
    task = made(*TINY)
    groups = {"train": "abb", "valid": "cd"}
    every = [(group, split) for split, names in groups.items() for group in names]
    rows = [{"id": f"{i}", "path": f"{i}", "group": group, "split": split} for i, (group, split) in enumerate(every)]
    frame = table(rows).with_row_index("number")
    task.data = SimpleNamespace(table=frame, split=lambda name: frame.filter(split=name))
    task.kin = "group"
    train, valid = task.codes("train", torch.arange(3)), task.codes("valid", torch.arange(2))
    assert train.tolist() == [train[0], train[1], train[1]]
    assert not set(train.tolist()) & set(valid.tolist())


def weights(done, name="last"):
    return load_checkpoint(done.folder / "checkpoints" / f"{name}.ckpt")["state_dict"]


def test_fit_resume_embed_and_start_from_it(fit, cli):
    words = [*RUN, "loss=moco", "loss.queue=24", "augment=basic"]
    whole = fit(*words, run="whole")
    assert whole.status == 0, whole.err
    assert "knn" in whole.out
    scores = whole.json("metrics.json")["test"]
    assert {"loss", "deviation", "rank", "alignment", "uniformity", "knn", "linear"} <= set(scores)
    first = fit(*words, "trainer.max_epochs=1", run="parts")
    assert first.status == 0, first.err
    again = fit(*words, run="parts")
    assert again.status == 0, again.err
    for name, value in weights(whole).items():
        assert torch.equal(weights(again)[name], value), name
    start = weights(whole)["target.projection.0.weight"]
    assert not torch.equal(start, weights(whole)["projection.0.weight"])

    checkpoint = whole.folder / "checkpoints" / "best.ckpt"
    embedded = cli("job=embed", f"ckpt={checkpoint}", "trainer=cpu", run="embedded")
    assert embedded.status == 0, embedded.err
    assert (embedded.folder / "embeddings.safetensors").exists()
    facts = embedded.json("manifest.json")["embeddings"]
    assert facts["dimensions"] == weights(whole)["projection.0.weight"].shape[1]

    tuned = fit("frontend=logmel", f"init={checkpoint}", "trainer.max_epochs=0", "job.test=false", run="tuned")
    assert tuned.status == 0, tuned.err
    best, started = weights(whole, "best"), weights(tuned)
    encoder = [name for name in best if name.startswith("encoder.")]
    assert encoder
    assert all(torch.equal(best[name], started[name]) for name in encoder)


@pytest.mark.parametrize("task", ["fewshot", "csi"])
def test_other_tasks_start_from_it(fit, cli, instruments, task):
    """The encoder that was pretrained is the one they begin with, front-end and model come along."""
    pretrained = fit(*RUN, "augment=basic", "trainer.max_epochs=1", "job.test=false", run="pretrained")
    assert pretrained.status == 0, pretrained.err
    words = [word for word in (SMALL_FEWSHOT if task == "fewshot" else SMALL_CSI) if not word.startswith("model")]
    words += [f"data.root={instruments}"] if task == "fewshot" else ["task.segment=null", "task.segment_hop=null"]
    words += [] if task == "fewshot" else ["task.transpositions=1", "task.reduction=min", "pooling=mean", *WORKS]
    init = f"init={pretrained.folder / 'checkpoints/last.ckpt'}"
    tuned = cli(*words, init, "trainer.max_epochs=0", "job.test=false", run="tuned")
    assert tuned.status == 0, tuned.err
    assert "init: frontend LogMel" in tuned.out
    before, after = weights(pretrained), weights(tuned)
    encoder = [name for name in before if name.startswith("encoder.")]
    assert encoder
    assert all(torch.equal(before[name], after[name]) for name in encoder)


def test_byol_resumes_with_its_moving_average_and_predictor(fit):
    words = [*RUN, "loss=byol", "loss.momentum=[0.9,0.9]", "task.dim=16", "task.predictor=16"]
    whole = fit(*words, run="whole")
    assert whole.status == 0, whole.err
    for epochs in ("trainer.max_epochs=1", "trainer.max_epochs=2"):
        parts = fit(*words, epochs, run="parts")
        assert parts.status == 0, parts.err
    expected, found = weights(whole), weights(parts)
    assert {name.split(".")[0] for name in found} >= {"encoder", "projection", "predictor", "target"}
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    assert not torch.equal(found["target.projection.0.weight"], found["projection.0.weight"])


def test_predictive_coding_trains_resumes_and_is_told_of_short_excerpts(fit):
    words = [*RUN, *PREDICTIVE[-4:], "augment=basic", "task.clean=true"]
    whole = fit(*words, run="whole")
    assert whole.status == 0, whole.err
    scores = whole.json("metrics.json")
    assert 0 < scores["valid/loss"] < 10
    for epochs in ("trainer.max_epochs=1", "trainer.max_epochs=2"):
        assert fit(*words, epochs, run="parts").status == 0
    found = weights(parts := fit(*words, "trainer.max_epochs=2", run="parts"))
    assert parts.status == 0
    for name, value in weights(whole).items():
        assert torch.equal(found[name], value), name
    asked = fit(*words, "loss.steps=500", run="asked")
    assert asked.status == 2
    assert "loss.steps=500" in asked.err


def test_folders_without_labels_are_enough(fit):
    done = fit(*RUN, "data.corpus.labelled=false", "task.plan.views=same", "augment=basic", "job.figures=true")
    assert done.status == 0, done.err
    scores = done.json("metrics.json")
    assert "knn" not in scores["test"]
    assert np.isfinite(scores["valid/loss"])
    assert (done.folder / "figures" / "curves.png").exists()
    asked = fit(*RUN, "data.corpus.labelled=false", "task.select=knn", run="asked")
    assert asked.status == 2
    assert "task.select=knn" in asked.err


def test_stored_features_and_unknown_columns(fit):
    done = fit(*RUN, "task.plan.source=features", "task.select=linear", "trainer.max_epochs=1")
    assert done.status == 0, done.err
    assert 0 <= done.json("metrics.json")["valid/linear"] <= 1
    asked = fit(*RUN, "task.kin=singer", run="asked")
    assert asked.status == 2
    assert "task.kin=singer" in asked.err


@pytest.mark.parametrize("loss", [["loss=simclr"], ["loss=moco", "loss.queue=24"], ["loss=byol", "task.norm=false"]])
def test_two_processes_equal_one(corpus, tmp_path, loss):
    """The same batches: the loss of a batch is that of all its views, wherever they are; and one queue for all."""
    words = [*RUN, *loss, "model.dropout=0", "model.norm=false", "augment=none", "trainer.max_epochs=2"]
    single = run(corpus, tmp_path, "single", *words, "data.batch_size=8")
    double = run(corpus, tmp_path, "double", *words, *DDP, "trainer.max_epochs=2", "data.batch_size=4")
    one, two = (json.loads((folder / "metrics.json").read_text()) for folder in (single, double))
    assert two["test"] == pytest.approx(one["test"], abs=2e-4)
    assert two["valid/loss"] == pytest.approx(one["valid/loss"], abs=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["simclr", "vicreg"])
def test_pretraining_helps_neighbours_to_know_the_instrument(cli, loss):
    """No label is used in training; the instruments' players differ between the splits."""
    words = [*MEL, "model=cnn", f"loss={loss}", "augment=basic", "data.corpus.files=30", "trainer=cpu"]
    words += ["job.figures=false", "task.plan.seconds=2", "task.plan.steps=60"]
    words += ["task.dim=512", "task.hidden=512"] if loss == "vicreg" else []
    before = cli(*words, "trainer.max_epochs=0", run="before")
    after = cli(*words, "trainer.max_epochs=5", run="after")
    assert after.status == 0, after.err
    untrained, trained = (done.json("metrics.json")["test"] for done in (before, after))
    assert trained["knn"] > untrained["knn"] + 0.1
    assert trained["linear"] > untrained["linear"]


@pytest.mark.parametrize(("frontend", "told"), [("logmel", "a frame of SampleCNN joins"), ("raw", "")])
def test_a_network_that_joins_more_than_there_is_is_noted(capsys, frontend, told):
    task = made(f"frontend={frontend}", "model=samplecnn")
    note_coarseness(SimpleNamespace(task=task, data=SimpleNamespace(plan=ViewPlan(seconds=2.7))))
    out = capsys.readouterr().out
    assert (told in out) if told else not out
