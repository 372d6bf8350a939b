"""Starting from another run's weights, and losses made of parts."""

from dataclasses import replace

import pytest
import torch

from tests.conftest import SMALL
from tests.test_config import SPEC, WORKS, composed
from tonnetz import coverhunter
from tonnetz.augment import RollPitch
from tonnetz.build import build_task, connect, load_warm, odd_one, restore
from tonnetz.checkpoint import load_checkpoint
from tonnetz.errors import UserError

STILL = ["optimizer.lr=0", "model.norm=false", "trainer.max_epochs=1", "job.test=false", "schedule=constant"]


@pytest.fixture
def first(fit):
    done = fit("model.norm=false", "job.test=false", run="first")
    assert done.status == 0, done.err
    return done.folder / "checkpoints" / "last.ckpt"


def test_init_takes_the_encoder_alone(fit, first):
    second = fit(*STILL, f"init={first}", "seed=5", run="second").folder / "checkpoints" / "last.ckpt"
    one, two = load_checkpoint(first), load_checkpoint(second)
    for name, weight in one["state_dict"].items():
        if name.startswith("encoder."):
            assert torch.equal(two["state_dict"][name], weight)
    assert any(not torch.equal(two["state_dict"][name], weight) for name, weight in one["state_dict"].items())
    assert int(two["optimizer_states"][0]["state"][0]["step"]) == 3


def test_init_brings_its_front_end_and_model(cli, fit, corpus):
    first = fit("frontend.bins=32", "model.dim=24", "job.test=false", run="first").folder / "checkpoints" / "best.ckpt"
    rest = [word for word in SMALL if not word.startswith("model=")]
    words = ["data=folder", f"data.root={corpus}", *rest, f"init={first}", "trainer.max_epochs=0", "job.test=false"]
    second = cli(*words, run="second")
    assert second.status == 0, second.err
    assert "model Tiny as in" in second.out
    assert "frontend LogMel as in" in second.out
    config = second.json("manifest.json")["config"]
    assert (config["frontend"]["bins"], config["model"]["dim"]) == (32, 24)
    loaded = load_checkpoint(second.folder / "checkpoints" / "best.ckpt")
    assert loaded["tonnetz"]["config"]["model"] == config["model"]
    for word in ("model=cnn", "model.dim=16", "frontend=mfcc"):
        refused = cli(*words, word, run="third")
        assert refused.status == 2
        assert f"leave {word.split('=')[0].split('.')[0]} out" in refused.err


def test_warm_takes_all_weights_and_the_optimizer_but_its_rate(fit, first):
    second = fit(*STILL, f"init={first}", "warm=all", "seed=5", run="second").folder / "checkpoints" / "last.ckpt"
    one, two = load_checkpoint(first), load_checkpoint(second)
    assert all(torch.equal(two["state_dict"][name], weight) for name, weight in one["state_dict"].items())
    steps = [int(found["optimizer_states"][0]["state"][0]["step"]) for found in (one, two)]
    assert steps == [6, 6 + 3]
    assert two["optimizer_states"][0]["param_groups"][0]["lr"] == 0
    assert one["optimizer_states"][0]["param_groups"][0]["weight_decay"] > 0


def test_warm_needs_the_same_model(fit, first):
    refused = fit(*STILL, f"init={first}", "warm=all", "model.depth=2", run="second")
    assert refused.status == 2
    assert "init=" in refused.err
    refused = fit(*STILL, f"init={first}", "warm=all", "pooling=attention", run="third")
    assert refused.status == 2
    assert "warm=null" in refused.err


def test_weights_of_other_works_are_refused_where_there_are_any(tmp_path):
    def made(loss, *works):
        config = composed("task=csi", "model=tiny", "pooling=mean", "task.transpositions=1", f"loss={loss}")
        return build_task(config, connect(config.frontend), replace(WORKS, groups=works))

    for loss in ("maxmean", "coverhunter", "subcenter_arcface", "supcon"):
        task = made(loss, "first", "second")
        torch.save({"state_dict": task.state_dict(), "tonnetz": task.payload}, tmp_path / "a.ckpt")
        load_warm(made(loss, "first", "second"), tmp_path / "a.ckpt", moments=False)
        if loss == "supcon":  # which has no weights for works
            load_warm(made(loss, "first", "third"), tmp_path / "a.ckpt", moments=False)
            continue
        with pytest.raises(UserError, match=r"other groups: 'second' is not in the data; take warm=null"):
            load_warm(made(loss, "first", "third"), tmp_path / "a.ckpt", moments=False)


def test_names_in_one_list_only():
    assert odd_one(["a", "b"], ("a", "b")) is None
    assert odd_one(["a", "c"], ("a", "b", "c")) == "'b' is new in the data"
    assert odd_one(["a", "b"], ("b", "a")) == "their order differs"


def csi(*words):
    config = composed("task=csi", "model=tiny", "pooling=mean", "task.transpositions=1", *words)
    return build_task(config, connect(config.frontend), WORKS)


def test_parts_of_a_loss_get_what_they_ask_for():
    loss = csi("loss=coverhunter", "task.dim=10").criterion
    assert set(loss.parts) == {"focal", "triplet", "center"}
    assert {tuple(p.shape) for p in loss.parts["focal"].parameters() if p.ndim == 2} == {(2, 10)}
    assert tuple(loss.parts["center"].centers.shape) == (2, 10)
    fewer = csi("loss=coverhunter", "loss.parts.center=null", "loss.parts.triplet.weight=0.5").criterion
    assert set(fewer.parts) == {"focal", "triplet"}
    assert fewer.parts["triplet"].weight == 0.5


def test_pitches_reach_the_loss():
    assert csi("loss=best_matches").criterion.turns == 1
    config = composed("task=csi")
    assert build_task(config, connect(config.frontend), WORKS).criterion.turns == 12


def rolled(*words):
    """The shifts (bins) that the augmentation of a configuration draws."""
    config = composed("task=csi", "model=tiny", "pooling=mean", "task.transpositions=1", *words)
    task = build_task(config, connect(config.frontend), WORKS)
    (roll,) = (part for part in task.augment.features_chain.values() if isinstance(part, RollPitch))
    return set(roll.draw(torch.zeros(2000, 1, 252, 8))["shift"].tolist())


FINE = ["frontend=cqt", "frontend.bins_per_octave=36", "frontend.bins=252"]


def test_a_transposition_has_the_bins_of_the_front_end():
    assert rolled("augment=coverhunter", *FINE) == {-36, 0, 36}
    assert rolled("augment=coverhunter", "frontend=cqt") == {-12, 0, 12}
    assert rolled("augment=coverhunter", "frontend=logmel") == {-12, 0, 12}
    assert rolled("augment=cover", *FINE) == set(range(-18, 19))
    assert max(rolled("augment=clews", *FINE)) == 36
    sound = ["task.plan.source=audio", "task.plan.stretch=null"]
    assert max(rolled("augment=full", "frontend=cqt", "frontend.bins_per_octave=24", "frontend.bins=120", *sound)) == 4
    key = "augment.features.roll_pitch.bins_per_octave"
    assert rolled("augment=coverhunter", f"{key}=36", *FINE) == {-36, 0, 36}
    assert rolled("augment=coverhunter", f"{key}=24", "frontend=logmel") == {-24, 0, 24}
    with pytest.raises(UserError, match=rf"{key}=12: the front-end has 36 bins an octave; take {key}=null"):
        rolled("augment=coverhunter", f"{key}=12", *FINE)


def test_an_old_checkpoint_with_bins_of_another_front_end_is_restored(tmp_path):
    words = ["task=csi", "model=tiny", "pooling=mean", "task.transpositions=1", "augment=coverhunter", *FINE]
    words += ["data=folder_works", f"data.root={tmp_path}"]
    config = composed(*words)
    task = build_task(config, connect(config.frontend), WORKS)
    task.payload["config"]["augment"]["features"]["roll_pitch"]["bins_per_octave"] = 12
    torch.save({"state_dict": task.state_dict(), "tonnetz": task.payload}, tmp_path / "old.ckpt")
    assert restore(composed(*words, f"ckpt={tmp_path / 'old.ckpt'}"), [])[0].task


@pytest.mark.parametrize("entry", ["{role: stop}", "{source: 'folder:/x', color: red}"])
def test_mistakes_in_sets(entry):
    from tonnetz.build import build_data

    config = composed("task=csi", f"+data.sets.extra={entry}")
    with pytest.raises(UserError, match=r"data\.sets\.extra: needs source"):
        build_data(config, connect(config.frontend))


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (("task", "evaluation", "_target_"), "tonnetz.fewshot.Protocol", "No module named 'tonnetz.fewshot.Protocol'"),
        (("model", "gone"), 1, "takes no 'gone'; known: "),
        (("task", "plan", "gone"), 1, "takes no 'gone'; known: "),
        (("frontend", "_target_"), "tonnetz.frontend.Gone", "No module named 'tonnetz.frontend.Gone'"),
    ],
)
def test_a_checkpoint_of_another_version_is_named_with_the_reason_and_the_remedy(tmp_path, place, value, reason):
    words = ["task=fewshot", "data=folder", f"data.root={tmp_path}", "model=tiny", "pooling=mean"]
    config = composed(*words)
    task = build_task(config, connect(config.frontend), SPEC)
    path = tmp_path / "old.ckpt"
    torch.save({"state_dict": task.state_dict(), "tonnetz": task.payload}, path)
    config = composed(*words, f"ckpt={path}")
    assert restore(config, [])[1] == path  # as it is
    node = task.payload["config"]
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    torch.save({"state_dict": task.state_dict(), "tonnetz": task.payload}, path)
    with pytest.raises(UserError) as found:
        restore(config, [])
    line = str(found.value)
    assert line.startswith(f"{path}: was made by another version (")
    assert line.endswith("; train it anew")
    assert reason in line
    assert "\n" not in line


UNFIT = {
    "pitches of mel bins": (["task=csi", "frontend=logmel"], "model KeyEquivariant reads decibels of pitches"),
    "no decibels": (["task=csi", "frontend=cqt_clews"], "which ClewsCQT does not give"),
    "untrained": (["task=csi", "model=ftm2d", "frontend=mfcc"], "model FTM2D reads decibels"),
    "boxes in decibels": (["experiment=clews", "augment=coverhunter"], "augment.features.erase: changes decibels"),
    "an equaliser": (["experiment=clews", "augment=cover"], "augment.features.equalizer=null"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_reads_or_changes_decibels_is_refused_without_them(case):
    words, told = UNFIT[case]
    config = composed(*words)
    with pytest.raises(UserError, match=told):
        build_task(config, connect(config.frontend), WORKS)


@pytest.mark.parametrize(
    "words",
    [
        ["experiment=clews", "augment=coverhunter", "augment.features.erase.low=0", "augment.features.erase.high=1"],
        ["experiment=clews", "augment=cover", "augment.features.equalizer=null"],
        ["task=csi", "frontend=hcqt"],
    ],
)
def test_the_remedies_are_accepted(words):
    config = composed(*words)
    build_task(config, connect(config.frontend), WORKS)


def test_the_recipe_of_coverhunter_can_have_the_sizes_of_the_original_programs():
    rows = [f"loss.parts.{part}.outputs=30000" for part in ("focal", "center")]
    config = composed("experiment=coverhunter", *rows)
    task = build_task(config, connect(config.frontend), WORKS)
    own, state = coverhunter.task_names(task), task.state_dict()
    theirs = coverhunter.to_coverhunter({own[name]: value for name, value in state.items() if name in own})
    assert len(theirs) == 265
    assert sum(theirs[name].numel() for name in coverhunter.parameter_names(theirs)) == 9_910_976
    assert {theirs[name].shape for name in ("_ce_layer.weight", "_center_loss.centers")} == {(30_000, 128)}
