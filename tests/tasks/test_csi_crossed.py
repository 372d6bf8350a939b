"""Every network, loss and reduction of cover-song identification trains a step and is tested, each with others."""

import pytest
import torch

from tests.test_config import composed
from tonnetz.build import build_task, connect
from tonnetz.metrics.vectors import Segments
from tonnetz.reductions import COUNTED, PLAIN
from tonnetz.retrieval import evaluate
from tonnetz.tracks import DataSpec

SIZES = {  # small ones of the networks
    "key_equivariant": ["model.width=4", "model.depth=1"],
    "ftm2d": [],
    "conformer": ["model.dim=16", "model.depth=1", "model.heads=2", "model.ffn=16"],
    "conformer_rotary": ["model.dim=16", "model.depth=1", "model.heads=2", "model.ffn=16"],
    "clews": ["model.width=8", "model.blocks=[1,1,1,1]"],
    "bytecover2": ["model.width=4", "model.blocks=[1,1,1,1]"],
    "bytecover3": ["model.width=4", "model.blocks=[1,1,1,1]"],
    "cqtnet": ["model.width=2"],
    "dvinet": ["model.width=4"],
    "cnn": ["model.width=4"],
    "crnn": ["model.width=4"],
    "tiny": [],
}
LOSSES = [
    *("best_matches", "supcon", "ntxent", "triplet_batch_hard", "triplet_semi_hard", "triplet_random_hard"),
    *("multi_similarity", "circle", "alignment_uniformity", "clews", "maxmean", "coverhunter", "bytecover2"),
    *("arcface", "subcenter_arcface", "cosface", "proxy_nca", "dvinet_plus"),
]
REDUCTIONS = [*PLAIN, *(f"{name}-3" for name in COUNTED), "smeanmin"]
SPANNING = [  # each at least once, the longest list in its order
    (list(SIZES)[i % len(SIZES)], loss, REDUCTIONS[i % len(REDUCTIONS)]) for i, loss in enumerate(LOSSES)
]
WORKS, VERSIONS, FRAMES = 3, 2, 48
SPEC = DataSpec(groups=tuple("abc"), tracks={"train": WORKS * VERSIONS})


def made(model, loss, reduction):
    torch.manual_seed(0)
    pooling = [] if model in ("key_equivariant", "ftm2d") else ["pooling=mean_std"]
    words = [f"model={model}", f"loss={loss}", f"task.reduction={reduction}", "task.segment_hop=1.92"]
    config = composed("task=csi", *words, *SIZES[model], *pooling)
    return build_task(config, connect(config.frontend), SPEC)


def batch():
    """Versions of a work: the same decibels with noise."""
    work = torch.arange(WORKS).repeat_interleave(VERSIONS)
    features = -60 * torch.rand(WORKS, 1, 96, FRAMES)[work] + 3 * torch.randn(len(work), 1, 96, FRAMES)
    lengths = torch.full((len(work),), FRAMES)
    start = torch.zeros(len(work))
    return {"features": features, "lengths": lengths, "row": torch.arange(len(work)), "group": work, "start": start}


@pytest.mark.parametrize(("model", "loss", "reduction"), SPANNING)
def test_a_step_and_a_test(model, loss, reduction):
    task, items = made(model, loss, reduction), batch()
    task.log = lambda *_, **__: None  # there is no trainer
    weights = [p for p in task.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in weights]
    optimizer = task.train().optimizer(task.parameters()) if weights else None
    for _ in range(2 if weights else 1):
        value = task.loss(items)
        assert value.isfinite()
        if optimizer:
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    assert all(p.isfinite().all() for p in weights)
    assert model == "ftm2d" or any(not torch.equal(a, b) for a, b in zip(before, weights, strict=True))
    with torch.no_grad():
        z, valid, start = task.eval().segments(items)
    row, group = (items[name][:, None].expand(valid.shape)[valid] for name in ("row", "group"))
    found = Segments(z[valid], row, group, start[valid], torch.ones(len(row)))
    result = evaluate(found, task.matching, rounds=5)
    assert result.values["queries"] == WORKS * VERSIONS
    assert 0 < result.values["map_low"] <= result.values["map"] <= 1


def test_everything_stands_in_the_spanning_set():
    for column, all_of in zip(zip(*SPANNING, strict=True), (SIZES, LOSSES, REDUCTIONS), strict=True):
        assert set(column) == set(all_of)
