"""No training step mixes tensors of the processor with those of a GPU, which this machine may not have."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hydra import compose, initialize_config_dir

from tests.conftest import SMALL
from tests.device import DEVICE, MixedDevices, second_device
from tests.jobs.test_csi import CONFORMER, WORDS
from tests.jobs.test_csi import SMALL as SMALL_CSI
from tests.probing.test_stack import goal_of, toy
from tonnetz.build import build
from tonnetz.paths import config_folder
from tonnetz.probing import Probe, Protocol, fit


def test_the_second_device_is_one():
    with second_device():
        x, layer = torch.rand(3, 4).to(DEVICE), torch.nn.Linear(4, 2).to(DEVICE)
        layer(x).sum().backward()
        assert layer.weight.grad.device == x[x > 0.5].device == torch.zeros(2, device=DEVICE).device == DEVICE
        assert x[torch.tensor([2, 0])].device == (x + torch.tensor(1.0)).device == DEVICE
        assert x.sum().cpu().device.type == "cpu"
        for mixed in (lambda: x + torch.zeros(4), lambda: layer(torch.rand(3, 4)), lambda: torch.rand(5)[x[:, 0] > 2]):
            with pytest.raises(MixedDevices):
                mixed()


CONTRASTIVE = [*SMALL, "task=contrastive", "frontend=logmel", "augment=clmr"]
WAVES = ["task=contrastive", "data.batch_size=4", "data.workers=0", "task.plan.seconds=0.5"]
FEWSHOT = [*SMALL, "task=fewshot", "data=synthetic", "data.corpus.instruments=[violin,flute,piano,oboe]"]
FEWSHOT += ["data.corpus.files=9", "data.corpus.seconds=1", "data.corpus.workers=1", "task.plan.ways=2"]
FEWSHOT += ["data.split=classes", "data.valid=0", "data.test=0", "data.fixed={valid:[],test:[violin,piano]}"]
FEWSHOT += ["task.plan.shots=2", "task.plan.queries=2", "task.evaluation.ways=2", "task.evaluation.queries=2"]
FEWSHOT += ["task.evaluation.episodes=20", "task.evaluation.valid_episodes=5"]
STEPS = {
    "classification": [*SMALL, "augment=mixup", "loss=focal"],
    "every augmentation": [*SMALL, "augment=full"],
    "several labels": [*SMALL, "loss=bce_pos_weight", "augment=specaugment"],
    "episodes": FEWSHOT,
    "simclr": CONTRASTIVE,
    "moco": [*CONTRASTIVE, "loss=moco", "loss.queue=32"],
    "byol": [*CONTRASTIVE, "loss=byol"],
    "vicreg": [*CONTRASTIVE, "loss=vicreg"],
    "views of one track": [*CONTRASTIVE, "loss=supcon_views"],
    "waveforms": [*WAVES, "model=tune_plus", "model.width=2", "augment=key_preserving"],
    "covers": [*SMALL_CSI, *WORDS],
    "covers by CoverHunter": [*CONFORMER, *WORDS, "augment=coverhunter", "frontend=cqt_coverhunter"],
    "covers by CLEWS": [*SMALL_CSI, *WORDS, "loss=clews", "augment=clews"],
    "covers by ByteCover3": [*SMALL_CSI, *WORDS, "loss=maxmean"],
    "covers by class": [*SMALL_CSI, *WORDS, "loss=subcenter_arcface"],
    "covers by triplets": [*SMALL_CSI, *WORDS, "loss=triplet_semi_hard"],
}


@pytest.mark.parametrize("name", STEPS)
def test_steps_stay_on_their_device(name, corpus, tmp_path):
    made = any(word.startswith("data.corpus.") for word in STEPS[name])
    data = [f"data.root={tmp_path / 'made'}"] if made else ["data=folder", f"data.root={corpus}"]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        cfg = compose("main", [*data, *STEPS[name], f"paths.data={tmp_path / 'data'}"])
    experiment = build(cfg)
    task = experiment.task.train()
    task.log = task.log_dict = lambda *_, **__: None
    task.trainer = SimpleNamespace(world_size=1, global_rank=0, current_epoch=0, global_step=0)
    batch = next(iter(experiment.data.train_dataloader()))
    judged = list(experiment.data.test_dataloader())
    with second_device():
        task.to(DEVICE)
        loss = task.training_step({key: value.to(DEVICE) for key, value in batch.items()}, 0)
        loss.backward()
        assert loss.device == DEVICE
        task.optimizer(task.parameters()).step()
        assert all(weight.device == DEVICE for weight in task.parameters())
        assert all(weight.isfinite().all() for weight in task.parameters())
        task.eval()
        with torch.no_grad():
            task.on_test_start()
            for index, part in enumerate(judged):
                task.test_step({key: value.to(DEVICE) for key, value in part.items()}, index)
            task.on_test_epoch_end()


@pytest.mark.parametrize("kind", ["multilabel", "classes", "key", "number"])
def test_probes_stay_on_their_device(kind):
    train, valid, _ = toy(kind)
    probes = [Probe((16,), 32, 1e-2, p, 1e-3, s) for s in (False, True) for p in (0.0, 0.5)]
    protocol = Protocol(every=8, patience=2, max_steps=32)
    alone = fit(probes, goal_of(kind), train, valid, protocol)
    with second_device():
        found = fit(probes, goal_of(kind), train.to(DEVICE), valid.to(DEVICE), protocol)
        assert {weight.device for weight in found.weights} == {DEVICE}
        torch.testing.assert_close(found.score.cpu(), alone.score)
