"""Few-shot recognition end to end on a small corpus, and what its evaluation promises."""

import json
import shutil

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tonnetz.data import EpisodePlan
from tonnetz.data.episodes import EpisodeStream
from tonnetz.errors import UserError
from tonnetz.fewshot.episodes import Pool, draw_many
from tonnetz.fewshot.protocol import Protocol, answer
from tonnetz.heads import SimpleShot
from tonnetz.tasks.fewshot import episode_grid
from tonnetz.windows import mean_by_row

SMALL = [
    "task=fewshot",
    "data=folder",
    "data.taxonomy=hornbostel_sachs",
    "data.fixed={valid:[oboe,flute,banjo],test:[violin,clarinet,piano]}",
    "data.valid=0",
    "data.test=0",
    "model=tiny",
    "pooling=mean",
    "augment=none",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "task.dim=16",
    "task.plan.seconds=0.4",
    "task.plan.steps=3",
    "task.plan.episodes=2",
    "task.plan.ways=3",
    "task.plan.shots=2",
    "task.plan.queries=3",
    "task.evaluation.episodes=40",
    "task.evaluation.valid_episodes=10",
    "task.evaluation.ways=3",
    "task.evaluation.shots=[1,3]",
    "task.evaluation.queries=4",
    "task.evaluation.rounds=50",
    "data.batch_size=16",
    "data.workers=0",
    "job.baseline=false",
    "job.figures=false",
]


@pytest.fixture
def fewshot(cli, instruments):
    """Fit the tiny few-shot model, with overrides."""

    def call(*words, run="run"):
        return cli(*SMALL, f"data.root={instruments}", *words, run=run)

    return call


def test_fit_resume_test_and_embed(fewshot, cli, instruments):
    done = fewshot("trainer.max_epochs=1")
    assert done.status == 0, done.err
    done = fewshot("trainer.max_epochs=2")
    assert done.status == 0, done.err
    metrics = done.json("metrics.json")
    assert 0 <= metrics["test"]["accuracy"] <= 1
    best = done.folder / "checkpoints" / "best.ckpt"
    again = cli("job=test", f"ckpt={best}", "data.workers=0", "trainer=cpu", run="again")
    assert again.status == 0, again.err
    assert again.json("metrics.json")["test"]["accuracy"] == pytest.approx(metrics["test"]["accuracy"])
    vectors = cli("job=embed", f"ckpt={best}", f"job.inputs=[{instruments / 'oboe'}]", "trainer=cpu", run="vectors")
    assert vectors.status == 0, vectors.err


def test_pictures_and_projector(fewshot):
    done = fewshot("job.figures=true", "trainer.max_epochs=1", "trainer.log_every_n_steps=1")
    assert done.status == 0, done.err
    names = {path.stem for path in (done.folder / "figures").glob("*.png")}
    assert names >= {"test_confusion", "test_heads", "test_space", "test_tree", "valid_level_weights", "curves"}
    assert "<audio" in (done.folder / "space.html").read_text()
    projected = next(done.folder.glob("*/test"))
    assert (projected / "sprite.png").stat().st_size > 1000
    assert (projected / "metadata.tsv").read_text().startswith("class\trole\tclip")
    shown = [EventAccumulator(str(path)).Reload().Tags() for path in done.folder.glob("events*")]
    scalars, images = ({name for tags in shown for name in tags[kind]} for kind in ("scalars", "images"))
    assert scalars >= {
        f"train/level{height}_loss" for height in (0, 3)
    }  # the class and, with loss.height=1, the family
    for stage in ("valid", "test"):
        assert scalars >= {f"{stage}/level{height}_{name}" for height in (1, 2, 3) for name in ("accuracy", "macro_f1")}
        assert images >= {f"{stage}/{name}" for name in ("confusion", "confusion_level3")}
    assert images >= {"valid/level_weights", "input/augmentation", "test/tree", "test/space"}
    assert any("taxonomy" in name for tags in shown for name in tags["tensors"])


def test_old_and_new_classes_meet_in_an_episode(fewshot):
    words = ["data.base=0.75", "task.plan.shots=1", "task.plan.queries=1", "task.evaluation.queries=3"]
    done = fewshot("trainer.max_epochs=1", *words)
    assert done.status == 0, done.err
    test = done.json("metrics.json")["test"]
    low, high = sorted([test["accuracy_base"], test["accuracy_novel"]])
    assert low <= test["accuracy_harmonic"] <= high


def test_unknown_classes_are_judged_and_ranges_are_taken(fewshot):
    words = ["task.evaluation.unknown=1", "task.evaluation.ways=2", "task.plan.ways=[2,3]", "task.plan.shots=[1,2]"]
    done = fewshot("trainer.max_epochs=1", *words)
    assert done.status == 0, done.err
    test = done.json("metrics.json")["test"]
    assert all(0 <= test[name] <= 1 for name in ("auroc", "aupr", "fpr95", "oscr"))


def test_whitening_is_learned_in_training_and_kept(fewshot, cli):
    done = fewshot("trainer.max_epochs=1", "task.whiten=0.2")
    assert done.status == 0, done.err
    best = done.folder / "checkpoints" / "best.ckpt"
    weights = torch.load(best, weights_only=True)["state_dict"]
    assert weights["whitening.fitted"]
    assert (weights["whitening.matrix"] - torch.eye(16)).abs().max() > 0.1
    again = cli("job=test", f"ckpt={best}", "data.workers=0", "trainer=cpu", run="again")
    found, expected = (run.json("metrics.json")["test"]["accuracy"] for run in (again, done))
    assert found == pytest.approx(expected)
    out = cli("job=export", f"ckpt={best}", "job.format=torchscript", run="out")  # compares with task.embed
    assert out.status == 0, out.err


def test_attention_is_trained_kept_and_used(fewshot, cli, tmp_path):
    fixed = "data.fixed={valid:[oboe,flute,banjo],test:[violin,clarinet,piano,cello]}"  # three of one family
    words = [fixed, "task.plan.ways=2", "task.evaluation.ways=4", "task.whiten=null", "loss.aggregate=learned"]
    done = fewshot(*words, "loss.levels=all", "trainer.max_epochs=1")
    assert done.status == 0, done.err
    best = done.folder / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(best, weights_only=True)
    out = checkpoint["state_dict"]["criterion.aggregate.attention.2.weight"]
    assert out.shape == (1, 32)
    again = cli("job=test", f"ckpt={best}", "data.workers=0", "trainer=cpu", run="again")
    mine, theirs = (run.json("metrics.json")["test"] for run in (again, done))
    assert mine == pytest.approx(theirs, nan_ok=True, abs=1e-6)
    out.copy_(100 * torch.randn(1, 32, generator=torch.Generator().manual_seed(0)))
    torch.save(checkpoint, tmp_path / "other.ckpt")
    other = cli("job=test", f"ckpt={tmp_path / 'other.ckpt'}", "data.workers=0", "trainer=cpu", run="other")
    found = other.json("metrics.json")["test"]
    assert found["accuracy"] == pytest.approx(theirs["accuracy"])
    assert found["level3_prototype_accuracy"] != theirs["level3_prototype_accuracy"]


def test_what_is_not_trained_is_whitened_and_tested(fewshot):
    done = fewshot("model=frames", "frontend=mfcc", "task.dim=null", "pooling=mean_std", "task.whiten=0.5")
    assert done.status == 0, done.err
    assert "nothing is trained" in done.out
    assert done.json("metrics.json")["test"]["accuracy"] > 1 / 3
    weights = torch.load(done.folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert weights["whitening.fitted"]


@pytest.mark.parametrize(
    ("labels", "tree", "reference"),
    [("ez", "ez", "ez"), ("hornbostel_sachs", "ez", "origin"), ("hornbostel_sachs/alt", "alt", "joint")],
)
def test_any_tree_of_the_package_is_climbed_and_judged_by(fewshot, labels, tree, reference):
    words = [f"data.taxonomy={labels}", f"task.tree={tree}", f"task.evaluation.reference={reference}"]
    done = fewshot(*words, "loss.levels=all", "trainer.max_epochs=1", "task.evaluation.episodes=5")
    assert done.status == 0, done.err
    test = done.json("metrics.json")["test"]
    levels = {"level1", "level2"} if reference == "origin" else {"level1"}
    assert {name.partition("_")[0] for name in test if name.startswith("level")} == levels


def test_the_classes_of_a_test_are_those_that_training_never_saw(fewshot):
    done = fewshot("trainer.max_epochs=1")
    checkpoint = torch.load(done.folder / "checkpoints" / "last.ckpt", weights_only=True)
    spec = checkpoint["tonnetz"]["spec"]
    assert spec["groups"] == ["cello", "marimba", "trumpet"]
    assert spec["partition"]["violin"] == "test"


def test_killed_and_resumed_equals_unbroken(fewshot):
    def losses(folder):
        return [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]

    whole = fewshot("job.test=false", run="whole")
    fewshot("job.test=false", "trainer.max_epochs=1", "schedule=constant", run="parts")
    parts = fewshot("job.test=false", "schedule=constant", run="parts")
    again = fewshot("job.test=false", "schedule=constant", run="unbroken")
    keys = [name for name in losses(again.folder)[0] if name != "seconds"]
    picks = [losses(again.folder)[0].index(name) for name in keys]
    for a, b in zip(losses(parts.folder), losses(again.folder), strict=True):
        assert [a[i] for i in picks] == [b[i] for i in picks]
    assert whole.status == 0


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["loss=ce"], "loss on episodes"),
        (["loss.height=9"], "loss.height=9: this tree has 3 levels"),
        (["loss.distance=cosinus"], "loss.distance=cosinus"),
        (["data.val_split=test"], "no such key; it is called data.select"),
        (["model.height=2"], "it is called loss.height"),
        (["data.episodes_per_batch=8"], "it is called task.plan.episodes"),
        (["data.select=test"], "data.allow_test_selection=true"),
        (["task.plan.ways=12"], "task.plan.ways=12: the train split has 3 classes"),
        (["task.evaluation.shots=[20]"], "task.plan.insufficient=drop"),
        (["task.evaluation.ways=4"], "task.evaluation.ways=4: the test split has 3 classes"),
        (["task.tree=nothing"], "nothing"),
        (["data.fixed={test:[violon]}"], "did you mean"),
        (["task.evaluation.episodes=0"], "task.evaluation.episodes=0"),
        (["task.evaluation.map=mds"], "task.evaluation.map=mds"),
        (["loss.aggregate=learned"], "task.whiten=null"),
        (["loss.aggregate=learned", "task.whiten=null", "loss.height=0"], "take loss.height=1 or more"),
    ],
)
def test_mistakes_are_one_line(fewshot, words, match):
    done = fewshot(*words)
    assert done.status == 2
    assert match in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_selection_on_the_test_split_is_told(fewshot):
    done = fewshot("data.select=test", "data.allow_test_selection=true", "trainer.max_epochs=1")
    assert done.status == 0, done.err
    assert json.loads((done.folder / "metrics.json").read_text())["protocol"]["selected_on"] == "test"


def test_one_class_chooses_nothing(fewshot):
    fixed = "data.fixed={valid:[banjo],test:[violin,clarinet,piano]}"
    done = fewshot(fixed, "task.plan.ways=2")
    assert done.status == 0, done.err
    assert "validation has 1 class with enough clips and needs two: it chooses nothing" in done.out
    metrics = done.json("metrics.json")
    assert metrics["protocol"]["selected_on"] is None
    assert np.isnan(metrics["valid/accuracy"])
    best, last = (torch.load(done.folder / "checkpoints" / f"{n}.ckpt", weights_only=True) for n in ("best", "last"))
    assert best["epoch"] == last["epoch"] == 1
    assert last["state_dict"]["whitening.fitted"]
    assert all((best["state_dict"][name] == value).all() for name, value in last["state_dict"].items())
    refused = fewshot(fixed, "task.plan.ways=2", "job.patience=3", run="patient")
    assert refused.status == 2
    assert "job.patience=3: nothing validates this run" in refused.err


def test_without_validation_nothing_is_said_to_choose(fewshot):
    done = fewshot("data.fixed={valid:[],test:[violin,clarinet,piano]}", "trainer.max_epochs=1")
    assert done.status == 0, done.err
    assert done.json("metrics.json")["protocol"]["selected_on"] is None


def test_dropped_classes_are_named_and_written(fewshot, cli, instruments, tmp_path):
    root = tmp_path / "fewer"
    shutil.copytree(instruments, root)
    for path in sorted((root / "piano").iterdir())[3:]:
        path.unlink()
    words = [f"data.root={root}", "task.plan.insufficient=drop", "task.evaluation.ways=2", "trainer.max_epochs=1"]
    done = fewshot(*words)
    assert done.status == 0, done.err
    line = "test: in no episode, which takes 3 for support and 4 others as queries"
    assert line in done.out
    assert "(task.plan.insufficient=drop): piano (3 clips)" in done.out
    assert done.json("metrics.json")["protocol"]["dropped"] == {"test": {"piano": 3}}
    best = done.folder / "checkpoints" / "best.ckpt"
    again = cli("job=test", f"ckpt={best}", "data.workers=0", "trainer=cpu", run="again")
    assert line in again.out
    assert again.json("metrics.json")["protocol"]["dropped"] == {"test": {"piano": 3}}


def batch_of(stream, dim=6):
    rows = torch.from_numpy(next(iter(stream)))
    names = dict(zip(("row", "episode", "slot", "support"), rows.T[1:], strict=True))
    return torch.randn(len(rows), dim), names


def test_the_grid_holds_every_clip_in_its_place():
    pool = Pool(np.repeat(np.arange(5), 10), None, list("abcde"))
    plan = EpisodePlan(seconds=1.0, ways=3, shots=2, queries=4, episodes=3, steps=1)
    z, batch = batch_of(EpisodeStream(pool, plan))
    support, shown, query, asked = episode_grid(z, batch)
    assert support.shape == (3, 3, 2, 6)
    assert query.shape == (3, 3, 4, 6)
    assert shown.all()
    assert asked.all()
    for e in range(3):
        for c in range(3):
            mine = (batch["episode"] == e) & (batch["slot"] == c)
            assert (support[e, c] == z[mine & (batch["support"] == 1)]).all()
            assert (query[e, c] == z[mine & (batch["support"] == 0)]).all()


def test_uneven_classes_are_masked():
    batch = {
        "episode": torch.tensor([0, 0, 0, 0, 0]),
        "slot": torch.tensor([0, 0, 1, 0, 1]),
        "support": torch.tensor([1, 1, 1, 0, 0]),
    }
    z = torch.randn(5, 3, requires_grad=True)
    support, shown, query, asked = episode_grid(z, batch)
    assert shown.tolist() == [[[True, True], [True, False]]]
    assert asked.all()
    (support.sum() + 2 * query.sum()).backward()
    assert z.grad[:, 0].tolist() == [1, 1, 1, 2, 2]


def test_answers_equal_a_loop_over_episodes_in_any_parts():
    random = torch.Generator().manual_seed(0)
    z = torch.randn(60, 8, generator=random)
    pool = Pool(np.repeat(np.arange(6), 10), None, list("abcdef"))
    episodes = draw_many(pool, 30, 4, 3, 5, seed=0, unknown=1)
    found = answer(z, episodes, SimpleShot(normalize="l2"))
    for e in range(30):
        support = torch.nn.functional.normalize(z[episodes.support[e]], dim=-1).mean(1)
        query = torch.nn.functional.normalize(z[episodes.query[e].ravel()], dim=-1)
        expected = torch.cdist(query, support).argmin(1)
        assert (found.answer[e] == expected).all()
        assert found.accuracy[e] == (expected == torch.arange(4).repeat_interleave(5)).float().mean()
    assert found.strange.shape == (30, 5, 4)
    alone = answer(z, episodes.part(3, 4), SimpleShot(normalize="l2"))
    torch.testing.assert_close(alone.logits[0], found.logits[3])


def test_clips_are_the_mean_of_their_windows():
    z = torch.tensor([[1.0], [3.0], [5.0]])
    assert mean_by_row(z, torch.tensor([0, 0, 2]), 4).tolist() == [[2.0], [0.0], [5.0], [0.0]]


def test_validation_takes_the_classes_that_there_are():
    pool = Pool(np.repeat(np.arange(3), 30), None, list("abc"))
    assert Protocol(valid_episodes=4).draw(pool, "valid").classes.shape == (4, 3)


def test_validations_may_have_sizes_of_their_own():
    pool = Pool(np.repeat(np.arange(6), 30), None, list("abcdef"))
    small = Protocol(episodes=3, valid_episodes=4, shots=[1, 8], queries=20, valid_shots=4, valid_queries=12)
    valid, test = (small.draw(pool, stage) for stage in ("valid", "test"))
    assert (valid.support.shape, valid.query.shape) == ((4, 5, 4), (4, 5, 12))
    assert (test.support.shape, test.query.shape) == ((3, 5, 8), (3, 5, 20))
    few = Pool(np.repeat(np.arange(6), 16), None, list("abcdef"))  # clips for a validation, not for a test
    small.check(few, "valid", "fail")
    with pytest.raises(UserError, match="has 16 clips"):
        small.check(few, "test", "fail")
    like = Protocol(valid_episodes=4, shots=[1, 8], queries=20).draw(pool, "valid")
    assert (like.support.shape, like.query.shape) == ((4, 5, 8), (4, 5, 20))


@pytest.mark.parametrize("words", [{"valid_shots": 0}, {"valid_queries": 0}, {"valid_ways": 1}])
def test_sizes_of_validations_are_checked(words):
    (name,) = words
    with pytest.raises(UserError, match=f"task.evaluation.{name}="):
        Protocol(**words)
