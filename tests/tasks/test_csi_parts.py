"""Every published method with every loss and every reduction: two steps of training, and a test."""

import pytest
import torch
from omegaconf import OmegaConf

from tests.conftest import ROOT
from tests.losses.test_metric_losses import METRIC as LOSSES
from tests.test_config import composed
from tonnetz.build import _loss, build_task, connect
from tonnetz.matching import Matching
from tonnetz.metrics.vectors import Segments
from tonnetz.retrieval import evaluate
from tonnetz.tracks import DataSpec

WORKS = ("a", "b", "c")
METHODS = ["coverhunter", "clews", "bytecover2", "bytecover3", "cqtnet", "dvinet"]
REDUCTIONS = [
    "min",
    "max",
    "mean",
    "meanmin",
    "minmean",
    "maxmean",
    "best-3",
    "bestmin-2",
    "worst-2",
    "bpwr-5",
    "qmax-10",
    "qmaxmin-10",
]
SHORT = ["task.segment=3", "task.segment_hop=1.5", "task.train_hop=1.5"]  # of what is cut into 20 s
SECONDS = {"coverhunter": 12, "cqtnet": 30, "dvinet": 30, "bytecover2": 12, "clews": 7, "bytecover3": 7}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_learns_with_every_loss_and_is_judged_by_every_reduction(name):
    torch.manual_seed(0)
    config = composed(f"experiment={name}", *(SHORT if name in ("clews", "bytecover3") else []))
    frontend = connect(config.frontend)
    spec = DataSpec(classes=(), positives=(), known=(), families=(), groups=WORKS)
    made = build_task(config, frontend, spec)
    rate = frontend.sample_rate / frontend.hop
    frames = round(SECONDS[name] * rate)
    batch = {
        "features": torch.rand(6, frontend.channels, frontend.bins, frames) * (frontend.floor or 1),
        "lengths": torch.full((6,), frames),
        "row": torch.arange(6),
        "group": torch.tensor([0, 0, 1, 1, 2, 2]),
        "start": torch.zeros(6),
    }
    made.train()
    z, valid, _ = made.segments(batch)  # (6, S, D)
    assert valid.any(1).all()
    for kind in LOSSES:
        loss = _loss(OmegaConf.load(ROOT / "config" / "loss" / f"{kind}.yaml"), {"dim": z.shape[2], "classes": 3})
        learned = z.detach().clone().requires_grad_()
        slow = torch.optim.SGD([learned, *loss.parameters()], lr=1e-3)
        for _ in range(2):
            slow.zero_grad()
            value = loss(learned, batch["group"], batch["row"], valid)
            value.backward()
            assert value.isfinite(), kind
            slow.step()
        assert learned.isfinite().all(), kind
        assert (learned != z).any(), kind
    weights = [p for p in made.parameters() if p.requires_grad]
    own = torch.optim.SGD(weights, lr=1e-3)
    before = [p.detach().clone() for p in weights]
    made.criterion(z, batch["group"], batch["row"], valid).backward()  # through the network, with its own loss
    own.step()
    moved = sum(bool((p != old).any()) for p, old in zip(weights, before, strict=True))
    assert moved > 10  # not all: some residual branches begin at zero
    assert all(p.isfinite().all() for p in weights)
    made.eval()
    with torch.no_grad():
        z, valid, start = made.segments(batch)
    row, group = (batch[key][:, None].expand(valid.shape)[valid] for key in ("row", "group"))
    found = Segments(z[valid], row, group, start[valid], torch.ones(int(valid.sum())))
    for how in (made.matching.reduction, *REDUCTIONS, *(f"s{how}" for how in REDUCTIONS)):
        values = evaluate(found, Matching(made.matching.distance, how)).values
        assert 0 < values["map"] <= 1, how
