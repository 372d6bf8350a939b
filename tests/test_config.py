"""Every YAML composes and names what exists; what makes sense together composes; nothing is orphaned."""

import inspect
import itertools
import re
from dataclasses import replace
from functools import cache

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from tests.conftest import ROOT
from tonnetz.build import build_task, connect
from tonnetz.cli import NULL_OR_NUMBER
from tonnetz.losses.levels import WEIGHTINGS
from tonnetz.tracks import DataSpec

CONFIG = ROOT / "config"
GROUPS = sorted(path.name for path in CONFIG.iterdir() if path.is_dir())


def members(group):
    return sorted(path.stem for path in (CONFIG / group).glob("*.yaml"))


def composed(*overrides):
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        return compose("main", overrides=list(overrides))


def targets(node, path=""):
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield path, node
        for key in node:
            if not OmegaConf.is_missing(node, key) and isinstance(node[key], DictConfig):
                yield from targets(node[key], f"{path}.{key}")


@pytest.mark.parametrize(("group", "name"), [(g, n) for g in GROUPS for n in members(g)])
def test_every_member_composes_and_binds_to_its_signature(group, name):
    config = composed(f"{group}={name}")
    for path, node in targets(config):
        target = get_object(node._target_)
        known = inspect.signature(target).parameters
        free = any(p.kind is p.VAR_KEYWORD for p in known.values())
        inherited = set()
        for kind in inspect.getmro(target) if free and inspect.isclass(target) else ():
            inherited |= set(inspect.signature(kind).parameters)
        by_build = {"sources", "corpus", "root", "plan", "inputs"} if path in (".data", ".task") else set()
        for key in set(node) - {"_target_"} - by_build:
            if path.startswith(".job"):
                continue  # jobs read their own node
            assert key in known or key in inherited, f"{path}: {node._target_} takes no {key}"


SPEC = DataSpec(classes=("a", "b", "c"), positives=(3, 3, 3), known=(9, 9, 9), families=("x", "x", "y"))


def sounds():
    """A batch of four noises of different lengths."""
    return {
        "audio": torch.randn(4, 1, 16000),
        "lengths": torch.tensor([16000, 16000, 12000, 9000]),
        "row": torch.arange(4),
        "start": torch.zeros(4),
        "label": torch.eye(3)[[0, 1, 2, 0]],
    }


# backbones that take a front-end without bins
OCTAVES = {"cqt", "cqt_coverhunter", "hcqt"}  # in decibels
RAW = {"tiny", "samplecnn", "samplecnn_xl", "tune", "tune_plus", "tune_hybrid"}
FIXED = {"ftm2d", "frames"}  # backbones without parameters: nothing to train
NARROW = {  # the same layers as of full size, only narrower
    "bytecover2": ["model.width=8"],
    "bytecover3": ["model.width=8"],
    "clews": ["model.width=16"],
    "cqtnet": ["model.width=8"],
    "dvinet": ["model.width=10"],
    "conformer": ["model.depth=2"],
    "conformer_rotary": ["model.depth=2"],
    "conv4": ["model.width=16"],
    "patch_transformer": ["model.depth=1"],
    "samplecnn_xl": ["model.widths=[16,16,32]"],
    "short_chunk": ["model.width=16"],
}


def pairs():
    for frontend, model in itertools.product(members("frontend"), members("model")):
        fits = (frontend != "raw" or model in RAW) and (model != "key_equivariant" or frontend in OCTAVES)
        if model not in FIXED and fits:
            yield frontend, model


@cache
def front(name):
    """The front-end of a YAML file, made once: it has no state."""
    return connect(composed(f"frontend={name}").frontend)


@pytest.mark.parametrize(("frontend", "model"), pairs())
def test_every_frontend_and_model_train_a_step(frontend, model):
    config = composed(f"frontend={frontend}", f"model={model}", "augment=none", *NARROW.get(model, []))
    task = build_task(config, front(frontend), SPEC).train()
    loss = task.loss(task.augment.wave(sounds()))
    loss.backward()
    assert torch.isfinite(loss)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in task.encoder.parameters() if p.requires_grad)


@pytest.mark.parametrize("pooling", members("pooling"))
@pytest.mark.parametrize("augment", members("augment"))
def test_every_augmentation_and_pooling_train_a_step(pooling, augment):
    config = composed(f"pooling={pooling}", f"augment={augment}", "model=tiny", "loss=bce")
    task = build_task(config, connect(config.frontend), SPEC).train()
    assert torch.isfinite(task.loss(task.augment.wave(sounds())))


def kind(loss):
    """What a loss compares: metric, views, episodes; nothing where it takes logits."""
    return getattr(get_object(OmegaConf.load(CONFIG / "loss" / f"{loss}.yaml")._target_), "kind", "")


def losses(of):
    return [name for name in members("loss") if kind(name) == of]


def test_a_task_takes_every_loss():
    """Those on views are trained in tests/tasks/test_contrastive.py, the others here."""
    assert {kind(name) for name in members("loss")} == {"", "metric", "views", "episodes"}


@pytest.mark.parametrize("loss", losses(""))
def test_every_loss_on_logits_trains_a_step(loss):
    config = composed(f"loss={loss}", "model=tiny", "augment=none", "pooling=mean")
    task = build_task(config, front("logmel"), SPEC).train()
    task.loss(task.augment.wave(sounds())).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in task.encoder.parameters())


INSTRUMENTS = replace(SPEC, groups=("cello", "oboe", "violin"))


def episodes():
    """Stored features of two episodes of three classes, each with two clips of support and two that ask."""
    count = 2 * 3 * 4
    place = torch.arange(count)
    return {
        "features": -80 * torch.rand(count, 1, 64, 60),
        "lengths": torch.full((count,), 60),
        "row": place,
        "episode": place // 12,
        "slot": place // 4 % 3,
        "support": (place % 4 < 2).long(),
        "group": place // 4 % 3,
    }


def fewshot_step(*words, frontend="logmel"):
    """One training step of task=fewshot, with gradients."""
    config = composed("task=fewshot", f"frontend={frontend}", "augment=none", *words)
    task = build_task(config, front(frontend), INSTRUMENTS).train()
    task.log = lambda *args, **keywords: None  # there is no trainer
    loss = task.loss(task.augment.wave(episodes()))
    loss.backward()
    assert torch.isfinite(loss)
    return task


@pytest.mark.parametrize("loss", losses("episodes"))
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_every_loss_on_episodes_trains_a_step(loss, weighting):
    task = fewshot_step(f"loss={loss}", f"loss.weighting={weighting}", "model=tiny", "pooling=mean")
    assert task.paths.shape[1] > 1
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in task.encoder.parameters())
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in task.parameters())


@pytest.mark.parametrize("model", sorted(set(members("model")) - FIXED))
def test_every_model_trains_a_fewshot_step(model):
    frontend = "cqt" if model == "key_equivariant" else "logmel"
    task = fewshot_step(f"model={model}", "pooling=mean", *NARROW.get(model, []), frontend=frontend)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in task.encoder.parameters() if p.requires_grad)


WORKS = replace(SPEC, groups=("first", "second"))


def versions():
    """Stored features of two versions each of two works, about 20 s long, of different lengths."""
    return {
        "features": -80 * torch.rand(4, 1, 96, 168),
        "lengths": torch.tensor([168, 168, 120, 60]),
        "row": torch.arange(4),
        "start": torch.zeros(4),
        "label": torch.eye(3)[[0, 1, 2, 0]],
        "group": torch.tensor([0, 0, 1, 1]),
    }


def csi_step(*words):
    """Loss of one training step of task=csi, with gradients."""
    config = composed("task=csi", "frontend=cqt_coverhunter", *words)
    task = build_task(config, connect(config.frontend), WORKS).train()
    task.log = lambda *args, **keywords: None  # there is no trainer
    loss = task.loss(task.augment.wave(versions()))
    loss.backward()
    assert torch.isfinite(loss)
    return task


PLAIN = ["task.transpositions=1", "task.segment_hop=1.92"]


@pytest.mark.parametrize("loss", losses("metric"))
@pytest.mark.parametrize("segment", ["3.84", "null"])
def test_every_metric_loss_trains_a_csi_step(loss, segment):
    task = csi_step(f"loss={loss}", "model=tiny", "pooling=mean", f"task.segment={segment}", *PLAIN)
    gradients = [p.grad for p in task.encoder.parameters()]
    assert any(grad is not None and grad.abs().sum() > 0 for grad in gradients)
    assert all(grad is None or torch.isfinite(grad).all() for grad in gradients)


@pytest.mark.parametrize("model", sorted(set(members("model")) - FIXED))
def test_every_model_trains_a_csi_step(model):
    task = csi_step(
        f"model={model}", "pooling=mean", "loss=supcon", "task.segment=null", *PLAIN, *NARROW.get(model, [])
    )
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in task.encoder.parameters())


@pytest.mark.parametrize("model", sorted(FIXED))
def test_models_without_parameters_embed(model):
    config = composed("task=csi", f"model={model}", "pooling=mean", "task.segment=null", *PLAIN)
    task = build_task(config, connect(config.frontend), WORKS).eval()
    assert not list(task.encoder.backbone.parameters())
    assert torch.isfinite(task.embed(versions())).all()


@pytest.mark.parametrize("optimizer", members("optimizer"))
@pytest.mark.parametrize("schedule", members("schedule"))
def test_every_optimizer_and_schedule_fit(fit, optimizer, schedule):
    words = [f"optimizer={optimizer}", f"schedule={schedule}", "trainer.max_epochs=1", "task.plan.steps=1"]
    done = fit(*words, "job.test=false")
    assert done.status == 0, done.err


@pytest.mark.parametrize("name", members("trainer"))
def test_every_trainer_composes_with_its_name(name):
    assert composed(f"trainer={name}").trainer._target_ == "lightning.pytorch.Trainer"


def test_timm_names_any_backbone():
    config = composed("model=timm", "model.name=convnext_tiny", "frontend=logmel", "augment=none")
    task = build_task(config, connect(config.frontend), SPEC).train()
    optimizer = torch.optim.SGD(task.parameters(), 1e-3)
    before = [p.detach().clone() for p in task.encoder.parameters()]
    task.loss(sounds()).backward()
    optimizer.step()
    assert any((a != b).any() for a, b in zip(before, task.encoder.parameters(), strict=True))


def test_every_word_for_a_number_or_null_is_such_a_key():
    text = "\n".join(path.read_text() for path in CONFIG.rglob("*.yaml"))
    null = set(re.findall(r"(\w+): null\b", text))
    assert set(NULL_OR_NUMBER.pattern.split("|")) <= null
