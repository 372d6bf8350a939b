"""Losses on two views: published fixtures, loops over vectors in NumPy, gradients, several processes."""

import inspect
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import get_object
from omegaconf import OmegaConf

from tests.conftest import ROOT
from tests.processes import found_by_two
from tonnetz.build import _loss
from tonnetz.errors import UserError
from tonnetz.losses import BYOL, DCL, BarlowTwins, MoCo, SimCLR, SimSiam, SupConViews, VICReg, ViewLoss
from tonnetz.losses.views import PairLoss, check_momentum

CONFIG = Path(ROOT) / "config" / "loss"
NAMES = [
    path.stem
    for path in sorted(CONFIG.glob("*.yaml"))
    if getattr(get_object(OmegaConf.load(path)._target_), "kind", "") == "views" and path.stem != "cpc"
]  # cpc compares frames: tests/losses/test_cpc.py
FACTS = {"dim": 12, "classes": 3, "multilabel": False, "pitches": 0}


def views(count=7, dim=12, seed=0):
    g = torch.Generator().manual_seed(seed)
    online, target = (torch.randn(2, count, dim, generator=g) for _ in range(2))
    code = torch.tensor([0, 1, 2, 0, 3, 4, 1, 5, 6, 7])[:count]
    return online, target, code


def unit(x):
    return x / np.linalg.norm(x)


# --- NT-Xent


@pytest.mark.parametrize(("count", "expected"), [(2, 0.954261), (4, 2.108168), (48, 4.569300)])
def test_nt_xent_of_published_fixtures(count, expected):
    g = torch.Generator().manual_seed(0)
    first, second = torch.randn(count, 64, generator=g), torch.randn(count, 64, generator=g)
    pair = torch.stack([first, second])
    assert float(SimCLR(0.5)(pair, pair, torch.arange(count))) == pytest.approx(expected, abs=1e-5)


def test_nt_xent_in_closed_form():
    pair = torch.eye(4).expand(2, 4, 4)
    assert float(SimCLR(0.5)(pair, pair, torch.arange(4))) == pytest.approx(math.log(math.e**2 + 6) - 2, abs=1e-6)
    same = torch.ones(2, 48, 3)
    assert float(SimCLR()(same, same, torch.arange(48))) == pytest.approx(math.log(95), abs=1e-4)


def test_nt_xent_equals_masked_cross_entropy_with_its_gradient():
    z = torch.randn(2, 40, 16, dtype=torch.float64, requires_grad=True)
    loss = SimCLR(0.2)(z, z, torch.arange(40))
    flat = torch.nn.functional.normalize(z.flatten(0, 1), dim=-1)
    score = (flat @ flat.T / 0.2).masked_fill(torch.eye(80, dtype=torch.bool), -torch.inf)
    other = torch.nn.functional.cross_entropy(score, (torch.arange(80) + 40) % 80)
    torch.testing.assert_close(loss, other)
    torch.testing.assert_close(*(torch.autograd.grad(value, z)[0] for value in (loss, other)))
    few, code = z[:, :3].detach().requires_grad_(), torch.tensor([0, 1, 0])
    assert torch.autograd.gradcheck(lambda x: SimCLR()(x, x, code), few)


def pair_loss(online, code, temperature, kin, kind):
    """One anchor and one positive at a time."""
    z = [unit(v) for v in np.concatenate(online.double().numpy())]
    count, costs = len(code), []
    for a in range(2 * count):
        positive, negative = [], []
        for b in range(2 * count):
            score = z[a] @ z[b] / temperature
            excerpt, related = a % count == b % count, code[a % count] == code[b % count]
            if excerpt or (related and kin == "positive"):
                positive += [score] if a != b else []
            elif not related or kin == "negative":
                negative.append(score)
        down = sum(math.exp(s) for s in negative)
        if kind == "sup_con":
            total = down + sum(math.exp(s) for s in positive)
            costs.append(np.mean([math.log(total) - s for s in positive]))
        else:
            costs += [math.log(down + (math.exp(s) if kind == "nt_xent" else 0)) - s for s in positive]
    return float(np.mean(costs))


@pytest.mark.parametrize("kin", ["masked", "positive", "negative"])
@pytest.mark.parametrize(("kind", "name"), [(SimCLR, "nt_xent"), (DCL, "dcl"), (SupConViews, "sup_con")])
def test_pair_losses_against_a_loop(kind, name, kin):
    online, target, code = views()
    found = kind(0.3, kin)(online, target, code)
    assert float(found) == pytest.approx(pair_loss(online, code.tolist(), 0.3, kin, name), abs=1e-5)


def test_what_kin_are_matters():
    online, target, code = views()
    values = {kin: float(SimCLR(0.3, kin)(online, target, code)) for kin in ("masked", "positive", "negative")}
    assert len({round(value, 4) for value in values.values()}) == 3
    assert values["negative"] == pytest.approx(float(SimCLR(0.3)(online, target, torch.arange(7))))
    with pytest.raises(UserError, match=r"loss\.kin=mask"):
        SimCLR(kin="mask")


# --- the queue


def test_moco_against_a_loop_and_its_queue():
    torch.manual_seed(1)
    loss = MoCo(12, 0.3, queue=20)
    online, target, code = views(4)  # codes 0, 1, 2, 0
    queue, codes = [], []
    for step in range(4):
        old = loss.queue.clone().double().numpy()
        known = loss.codes.tolist()
        found = float(loss(online + step, target - step, code))
        costs = []
        for v in range(2):
            for i in range(4):
                query = unit((online + step)[v, i].double().numpy())
                near = query @ unit((target - step)[1 - v, i].double().numpy()) / 0.3
                far = [query @ old[q] / 0.3 for q in range(20) if known[q] != code[i]]
                costs.append(math.log(math.exp(near) + sum(map(math.exp, far))) - near)
        assert found == pytest.approx(np.mean(costs), abs=1e-5)
        queue += [unit(x) for x in (target - step).flatten(0, 1).double().numpy()]
        codes += code.tolist() * 2
        assert int(loss.place) == 8 * (step + 1) % 20
    wanted = {tuple(np.round(x, 4)) for x in queue[-20:]}
    assert {tuple(np.round(x, 4)) for x in loss.queue.double().numpy()} == wanted
    assert sorted(loss.codes.tolist()) == sorted(codes[-20:])


def test_moco_keeps_its_queue_in_evaluation_and_has_gradients_in_training():
    loss = MoCo(12, queue=5)
    online, target, code = views(8)
    online.requires_grad_()
    before = loss.queue.clone()
    loss.eval()(online, target, code)
    assert torch.equal(loss.queue, before)
    loss.train()(online, target, code).backward()  # a queue shorter than the batch
    assert not torch.equal(loss.queue, before)
    assert online.grad.abs().sum() > 0
    with pytest.raises(UserError, match=r"loss\.queue=0"):
        MoCo(12, queue=0)


# --- without negatives


def test_vicreg_against_loops():
    online, target, code = views(9, 5)
    a, b = online.double().numpy()
    invariance = np.mean([(a[n, d] - b[n, d]) ** 2 for n in range(9) for d in range(5)])
    variance = np.mean([max(0, 1 - math.sqrt(x[:, d].var(ddof=1) + 1e-4)) for x in (a, b) for d in range(5)])
    pairs = [(x, i, j) for x in (a, b) for i in range(5) for j in range(5) if i != j]
    covariance = sum(np.cov(x[:, i], x[:, j])[0, 1] ** 2 for x, i, j in pairs) / 5
    found = VICReg(25, 20, 2)(online, target, code)
    assert float(found) == pytest.approx(25 * invariance + 20 * variance + 2 * covariance, rel=1e-5)
    assert float(VICReg()(torch.ones(2, 9, 5), target, code)) == pytest.approx(25 * 0.99)  # collapsed


def test_barlow_twins_against_loops():
    online, target, code = views(9, 5)
    a, b = online.double().numpy()
    a, b = ((x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) for x in (a, b))
    cost = 0.0
    for i in range(5):
        for j in range(5):
            c = sum(a[n, i] * b[n, j] for n in range(9)) / 9
            cost += (1 - c) ** 2 if i == j else 0.01 * c**2
    assert float(BarlowTwins(0.01)(online, target, code)) == pytest.approx(cost, rel=1e-5)


def test_byol_and_simsiam_against_a_loop():
    online, target, code = views()
    target.requires_grad_()
    cosines = [[unit(online[v, i].numpy()) @ unit(target[1 - v, i].detach().numpy()) for i in range(7)] for v in (0, 1)]
    expected = sum(np.mean([2 - 2 * c for c in direction]) for direction in cosines)
    assert float(BYOL()(online, target, code)) == pytest.approx(expected, abs=1e-5)
    assert float(SimSiam()(online, target, code)) == pytest.approx(-np.mean(cosines), abs=1e-5)
    assert not SimSiam()(online, target, code).requires_grad
    assert float(BYOL()(target, target.flip(0), code).detach()) == pytest.approx(0, abs=1e-5)


# --- all of them


@pytest.mark.parametrize("name", NAMES)
def test_every_yaml_builds_a_loss_that_learns(name):
    torch.manual_seed(0)
    loss = _loss(OmegaConf.load(CONFIG / f"{name}.yaml"), FACTS)
    assert isinstance(loss, ViewLoss)
    base = torch.randn(6, 1, 12)
    z = torch.nn.Parameter(torch.cat([base, base], 1).transpose(0, 1) + torch.randn(2, 6, 12))
    target = (base.expand(6, 2, 12).transpose(0, 1) * 2).detach()
    optimizer = torch.optim.SGD([z], 0.02)
    values = []
    loss.eval()
    for _ in range(30):
        optimizer.zero_grad()
        value = loss(z, target, torch.arange(6))
        value.backward()
        assert torch.isfinite(z.grad).all()
        optimizer.step()
        values.append(float(value.detach()))
    assert values[-1] < values[0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_small_batches_and_equal_vectors_are_finite(name, count):
    loss = _loss(OmegaConf.load(CONFIG / f"{name}.yaml"), FACTS)
    for z in (torch.randn(2, count, 12), torch.zeros(2, count, 12), torch.ones(2, count, 12)):
        z.requires_grad_()
        value = loss(z, z.detach(), torch.zeros(count, dtype=torch.long))
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(z.grad).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_views_and_excerpts_does_not_matter(name):
    loss = _loss(OmegaConf.load(CONFIG / f"{name}.yaml"), FACTS).eval()
    online, target, code = views()
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    found = loss(online, target, code)
    torch.testing.assert_close(loss(online.flip(0), target.flip(0), code), found)
    torch.testing.assert_close(loss(online[:, order], target[:, order], code[order]), found)


@pytest.mark.parametrize("name", NAMES)
def test_yaml_holds_the_defaults_of_its_signature(name):
    node = OmegaConf.to_container(OmegaConf.load(CONFIG / f"{name}.yaml"))
    kind = get_object(node.pop("_target_"))
    defaults = {k: p.default for k, p in inspect.signature(kind).parameters.items() if p.default is not p.empty}
    own = {key: tuple(value) if isinstance(value, list) else value for key, value in node.items()}
    assert own == {key: value for key, value in defaults.items() if key in own}
    if kind is not SimSiam:
        assert own == defaults


def test_a_moving_average_has_two_decays():
    assert check_momentum([0.9, 1]) == (0.9, 1)
    for wrong in ([0.9], [0.9, 1.1], [-0.1, 0.5]):
        with pytest.raises(UserError, match=r"loss\.momentum"):
            check_momentum(wrong)


def test_only_losses_with_negatives_know_kin():
    kinds = {name: get_object(OmegaConf.load(CONFIG / f"{name}.yaml")._target_) for name in NAMES}
    knowing = {name for name, kind in kinds.items() if issubclass(kind, PairLoss)}
    assert knowing == {"simclr", "dcl", "supcon_views", "moco"}
    assert all("kin" in OmegaConf.load(CONFIG / f"{name}.yaml") for name in knowing)


DATA = """
import torch

def data():
    g = torch.Generator().manual_seed(3)
    return torch.randn(8, 2, 10, generator=g), torch.randn(10, 6, generator=g), torch.tensor([0, 1, 2, 3, 1, 4, 5, 0])
"""
TWO = (
    DATA
    + """
import torch.distributed as dist
from tonnetz.losses import SimCLR, VICReg
from tonnetz.losses.views import gathered

def found(rank):
    x, weight, code = data()
    weight.requires_grad_()
    mine = slice(4 * rank, 4 * rank + 4)
    out = {}
    for name, loss in {"simclr": SimCLR(), "vicreg": VICReg()}.items():
        z, codes = gathered(x[mine] @ weight), gathered(code[mine])
        value = loss(z.transpose(0, 1), z.transpose(0, 1), codes)
        (grad,) = torch.autograd.grad(value, weight)
        dist.all_reduce(grad)  # DDP takes the mean
        out[name] = (value.detach(), grad / 2)
    return out
"""
)


def test_two_processes_equal_one_with_the_joint_batch(tmp_path):
    names: dict = {}
    exec(DATA, names)
    x, weight, code = names["data"]()
    weight.requires_grad_()
    for found in found_by_two(TWO, tmp_path):
        for name, loss in {"simclr": SimCLR(), "vicreg": VICReg()}.items():
            z = (x @ weight).transpose(0, 1)
            value = loss(z, z, code)
            torch.testing.assert_close(found[name][0], value.detach())
            torch.testing.assert_close(found[name][1], torch.autograd.grad(value, weight)[0])
