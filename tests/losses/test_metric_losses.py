"""Metric losses against loops over vectors, pytorch-metric-learning, and on batches with nothing to learn from."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra.utils import get_object
from omegaconf import OmegaConf
from pytorch_metric_learning import distances as pml_distances
from pytorch_metric_learning import losses as pml
from pytorch_metric_learning import miners, reducers
from torch import Tensor

import tonnetz.losses
from tonnetz.build import _loss
from tonnetz.errors import UserError
from tonnetz.losses import (
    CLEWS,
    AlignmentUniformity,
    BestMatches,
    Center,
    Circle,
    FocalClassifier,
    Library,
    MaxMean,
    MetricLoss,
    NTXent,
    Repulsion,
    Sum,
    SupCon,
    Triplet,
)

CONFIG = Path(__file__).parents[2] / "config" / "loss"
DIM, CLASSES = 12, 6
FACTS = {"dim": DIM, "classes": CLASSES, "pitches": 12, "multilabel": False}

LOSSES: dict[str, Callable[[], MetricLoss]] = {
    "focal": lambda: FocalClassifier(DIM, CLASSES),
    "focal_smooth": lambda: FocalClassifier(DIM, CLASSES, gamma=1.5, label_smoothing=0.1),
    "cross_entropy": lambda: FocalClassifier(DIM, CLASSES, gamma=0.0),
    "focal_outputs": lambda: FocalClassifier(DIM, CLASSES, outputs=3 * CLASSES),
    "cross_entropy_smooth": lambda: FocalClassifier(DIM, CLASSES, gamma=0.0, label_smoothing=0.1),
    "center": lambda: Center(DIM, CLASSES),
    "repulsion": lambda: Repulsion(),
    "center_outputs": lambda: Center(DIM, CLASSES, outputs=3 * CLASSES),
    "batch_hard": Triplet,
    "batch_hard_tracks": lambda: Triplet(within_track=False, distance="cosine"),
    "semi_hard": lambda: Triplet(mining="semi_hard"),
    "semi_hard_tracks": lambda: Triplet(0.1, "semi_hard", "squared", within_track=False),
    "random_hard": lambda: Triplet(mining="random_hard"),
    "supcon": SupCon,
    "supcon_within": lambda: SupCon(0.07, within_track=True),
    "ntxent": NTXent,
    "ntxent_within": lambda: NTXent(0.5, within_track=True),
    "circle": lambda: Circle(0.25, 16.0),
    "circle_within": lambda: Circle(within_track=True),
    "uniformity": AlignmentUniformity,
    "uniformity_within": lambda: AlignmentUniformity(1.0, 3.0, 0.5, within_track=True),
    "clews": CLEWS,
    "clews_other": lambda: CLEWS(2.0, 0.1, "meanmin", "best-2", "cosine", within_track=True),
    "maxmean": lambda: MaxMean(DIM, CLASSES),
    "maxmean_within": lambda: MaxMean(DIM, CLASSES, 2, 5.0, 0.0, 0.5, 2.0, 0.3, within_track=True),
    "arcface": lambda: Library("ArcFaceLoss", None, DIM, CLASSES),
    "subcenter_arcface": lambda: Library("SubCenterArcFaceLoss", {"sub_centers": 2}, DIM, CLASSES),
    "cosface": lambda: Library("CosFaceLoss", None, DIM, CLASSES),
    "proxy_nca": lambda: Library("ProxyNCALoss", {"softmax_scale": 3}, DIM, CLASSES),
    "multi_similarity": lambda: Library("MultiSimilarityLoss", None, DIM, CLASSES),
    "multi_similarity_within": lambda: Library("MultiSimilarityLoss", None, DIM, CLASSES, within_track=True),
}
MORE = {**LOSSES, "best_matches": lambda: BestMatches(pitches=12), "sum": lambda: Sum({"a": SupCon(), "b": CLEWS()})}
YAMLS = [path.stem for path in sorted(CONFIG.glob("*.yaml"))]
METRIC = [
    name
    for name in YAMLS
    if isinstance(kind := get_object(OmegaConf.load(CONFIG / f"{name}.yaml")._target_), type)
    and issubclass(kind, MetricLoss)
]


def made(name: str) -> MetricLoss:
    torch.manual_seed(0)
    return MORE[name]()


def batch(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ten excerpts of up to three segments: works of 3, 3 (one recording twice), 2, 1 and an unknown one."""
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(10, 3, DIM, generator=g)
    group = torch.tensor([0, 2, 0, 5, 2, 0, 2, -1, 5, 3])
    row = torch.tensor([0, 1, 2, 3, 4, 5, 1, 7, 8, 9])
    valid = torch.rand(10, 3, generator=g) < 0.6
    valid[:, 1] |= ~valid.any(1)
    valid[9] = torch.tensor([True, False, False])
    valid[8] = seed != 1  # once without any valid segment
    return z, group, row, valid


# --- references: one vector, pair or track at a time, in double precision


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x)


def distance(a: np.ndarray, b: np.ndarray, kind: str) -> float:
    if kind == "cosine":
        return float(1 - unit(a) @ unit(b))
    return float(np.linalg.norm(a - b)) if kind == "euclidean" else float(((a - b) ** 2).mean())


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def relu(x: float) -> float:
    return max(x, 0.0)


class Vectors:
    """The valid vectors of known works, with their positives and negatives."""

    def __init__(self, z: Tensor, group: Tensor, row: Tensor, valid: Tensor, within: bool) -> None:
        keep = [(b, s) for b, s in itertools.product(*map(range, valid.shape)) if valid[b, s] and group[b] >= 0]
        self.x = [z[b, s].double().numpy() for b, s in keep]
        self.group, self.row = [int(group[b]) for b, _ in keep], [int(row[b]) for b, _ in keep]
        self.within, self.n = within, range(len(keep))

    def positives(self, a: int) -> list[int]:
        same = [p for p in self.n if p != a and self.group[p] == self.group[a]]
        return [p for p in same if self.within or self.row[p] != self.row[a]]

    def negatives(self, a: int) -> list[int]:
        return [n for n in self.n if self.group[n] != self.group[a]]

    def pairs(self) -> list[tuple[int, int]]:
        return [(a, p) for a in self.n for p in self.positives(a)]

    def cosine(self, a: int, b: int) -> float:
        return float(unit(self.x[a]) @ unit(self.x[b]))


def softmax_cost(logits: np.ndarray, y: int, smoothing: float = 0.0) -> float:
    log_p = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
    return float(-(1 - smoothing) * log_p[y] - smoothing * log_p.mean())


def naive_classifier(loss: FocalClassifier, v: Vectors) -> float:
    x = np.stack(v.x)
    x = (x - x.mean(0)) / np.sqrt(x.var(0) + loss.neck.eps)
    logits = x @ loss.linear.weight.detach().double().numpy().T
    if loss.gamma == 0:
        return mean([softmax_cost(z, y, loss.label_smoothing) for z, y in zip(logits, v.group, strict=True)])
    costs = []
    for z, y in zip(logits, v.group, strict=True):
        p = np.exp(z) / np.exp(z).sum() + np.finfo(np.float32).eps
        cost = -((1 - p) ** loss.gamma) * np.log(p)
        costs.append((1 - loss.label_smoothing) * cost[y] + loss.label_smoothing * cost.mean())
    return mean(costs)


def naive_center(loss: Center, v: Vectors) -> float:
    centers = loss.centers.detach().double().numpy()
    return mean([float(((x - centers[g]) ** 2).sum()) for x, g in zip(v.x, v.group, strict=True)])


def naive_repulsion(loss: Repulsion, v: Vectors) -> float:
    return mean([v.cosine(a, n) ** 2 for a in v.n for n in v.negatives(a)])


def naive_triplet(loss: Triplet, v: Vectors) -> float:
    def d(a: int, b: int) -> float:
        return distance(v.x[a], v.x[b], loss.distance)

    draw = torch.rand(len(v.x), len(v.x))
    costs = []
    for a in v.n:
        positives, negatives = v.positives(a), v.negatives(a)
        if not positives or not negatives:
            continue
        far = sorted(d(a, n) for n in negatives)
        if loss.mining == "semi_hard":
            for p in positives:
                beyond = [x for x in far if x > d(a, p)] or far[-1:]
                costs.append(relu(d(a, p) - beyond[0] + loss.margin))
        elif loss.mining == "batch_hard":
            costs.append(relu(max(d(a, p) for p in positives) - far[0] + loss.margin))
        else:
            costs.append(relu(d(a, max(positives, key=lambda p: draw[a, p])) - far[0] + loss.margin))
    return mean(costs)


def naive_supcon(loss: SupCon, v: Vectors) -> float:
    costs = []
    for a in v.n:
        positives = v.positives(a)
        others = sum(math.exp(v.cosine(a, b) / loss.temperature) for b in positives + v.negatives(a))
        if positives:
            costs.append(mean([math.log(others) - v.cosine(a, p) / loss.temperature for p in positives]))
    return mean(costs)


def naive_ntxent(loss: NTXent, v: Vectors) -> float:
    costs = []
    for a, p in v.pairs():
        true = math.exp(v.cosine(a, p) / loss.temperature)
        rest = sum(math.exp(v.cosine(a, n) / loss.temperature) for n in v.negatives(a))
        costs.append(-math.log(true / (true + rest)))
    return mean(costs)


def naive_circle(loss: Circle, v: Vectors) -> float:
    m, gamma = loss.margin, loss.gamma
    costs = []
    for a in v.n:
        pull = [v.cosine(a, p) for p in v.positives(a)]
        push = [v.cosine(a, n) for n in v.negatives(a)]
        if pull and push:
            near = sum(math.exp(-gamma * relu(1 + m - s) * (s - (1 - m))) for s in pull)
            far = sum(math.exp(gamma * relu(s + m) * (s - m)) for s in push)
            costs.append(math.log(1 + near * far))
    return mean(costs)


def naive_uniformity(loss: AlignmentUniformity, v: Vectors) -> float:
    align = [float(np.linalg.norm(unit(v.x[a]) - unit(v.x[p]))) ** loss.alpha for a, p in v.pairs()]
    spread = [np.linalg.norm(unit(v.x[a]) - unit(v.x[n])) ** 2 for a in v.n for n in v.negatives(a)]
    return mean(align) + loss.uniformity * math.log(mean([math.exp(-loss.t * s) for s in spread]))


def naive_library(loss: Library, v: Vectors) -> float:
    inner, costs = loss.inner, []
    if isinstance(inner, pml.ProxyNCALoss):
        proxies = [unit(p) for p in inner.proxies.detach().double().numpy()]
        for x, g in zip(v.x, v.group, strict=True):
            costs.append(softmax_cost(np.array([-3 * ((unit(x) - p) ** 2).sum() for p in proxies]), g))
    elif isinstance(inner, pml.MultiSimilarityLoss):
        for a in v.n:
            near = sum(math.exp(-2 * (v.cosine(a, p) - 0.5)) for p in v.positives(a))
            far = sum(math.exp(50 * (v.cosine(a, n) - 0.5)) for n in v.negatives(a))
            costs.append(math.log(1 + near) / 2 + math.log(1 + far) / 50)
    else:
        weights = [unit(w) for w in inner.W.detach().double().numpy().T]
        several = len(weights) // CLASSES
        for x, g in zip(v.x, v.group, strict=True):
            cosine = np.array([unit(x) @ w for w in weights]).reshape(CLASSES, several).max(1)
            if isinstance(inner, pml.CosFaceLoss):
                cosine[g] -= 0.35
            else:
                angle, m = math.acos(cosine[g]), math.radians(28.6)
                cosine[g] = math.cos(angle + m) if angle <= math.pi - m else cosine[g] - m * math.sin(m)
            costs.append(softmax_cost(64 * cosine, g))
    return mean(costs)


def tracks(z: Tensor, group: Tensor, row: Tensor, valid: Tensor, within: bool) -> SimpleNamespace:
    """The excerpts that have vectors, and their ordered pairs."""
    keep = [b for b in range(len(z)) if valid[b].any() and group[b] >= 0]
    x = {b: [v.double().numpy() for v, ok in zip(z[b], valid[b], strict=True) if ok] for b in keep}
    every = [(a, b) for a, b in itertools.product(keep, keep) if a != b]
    positive = [(a, b) for a, b in every if group[a] == group[b] and (within or row[a] != row[b])]
    negative = [(a, b) for a, b in every if group[a] != group[b]]
    return SimpleNamespace(x=x, group=group, keep=keep, positive=positive, negative=negative)


def naive_reduction(cells: dict[tuple[int, int], float], how: str) -> float:
    if how == "min":
        return min(cells.values())
    if how == "best-2":
        return mean(sorted(cells.values())[:2])
    if how == "meanmin":
        return mean([min(d for (i, _), d in cells.items() if i == row) for row in {i for i, _ in cells}])
    taken = []
    while cells and len(taken) < 5:  # bpwr-5
        i, j = min(cells, key=cells.__getitem__)
        taken.append(cells[i, j])
        cells = {(p, q): d for (p, q), d in cells.items() if p != i and q != j}
    return mean(taken)


def naive_clews(loss: CLEWS, t: SimpleNamespace) -> float:
    def reduced(a: int, b: int, how: str) -> float:
        cells = itertools.product(enumerate(t.x[a]), enumerate(t.x[b]))
        return naive_reduction({(i, j): distance(x, y, loss.distance) for (i, x), (j, y) in cells}, how)

    far = mean([math.exp(-loss.gamma * reduced(a, b, loss.negative)) for a, b in t.negative])
    return mean([reduced(a, b, loss.positive) for a, b in t.positive]) + math.log(math.exp(loss.log_eps) + far)


def naive_maxmean(loss: MaxMean, t: SimpleNamespace) -> float:
    def s(a: list[np.ndarray], b: list[np.ndarray]) -> float:
        return mean([max(float(unit(x) @ unit(y)) for y in b) for x in a])

    works = [list(p) for p in loss.prototypes.detach().double().numpy()]
    scale = math.exp(loss.log_scale.item())
    cost = mean(
        [
            softmax_cost(scale * np.array([s(t.x[b], w) for w in works]), int(t.group[b]), loss.label_smoothing)
            for b in t.keep
        ]
    )
    triplets = []
    for a in t.keep:
        near = [s(t.x[a], t.x[b]) for c, b in t.positive if c == a]
        far = [s(t.x[a], t.x[b]) for c, b in t.negative if c == a]
        if near and far:
            triplets.append(relu((1 + loss.margin) * max(far) - min(near)))
    align = mean([1 - s(t.x[a], t.x[b]) for a, b in t.positive])
    return cost + loss.triplet * mean(triplets) + loss.alignment * align


REFERENCES: dict[type, Callable] = {
    FocalClassifier: naive_classifier,
    Center: naive_center,
    Repulsion: naive_repulsion,
    Triplet: naive_triplet,
    SupCon: naive_supcon,
    NTXent: naive_ntxent,
    Circle: naive_circle,
    AlignmentUniformity: naive_uniformity,
    Library: naive_library,
    CLEWS: naive_clews,
    MaxMean: naive_maxmean,
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("seed", range(4))
def test_every_loss_equals_a_loop(name: str, seed: int) -> None:
    loss, data = made(name).train(), batch(seed)
    view = tracks if isinstance(loss, (CLEWS, MaxMean)) else Vectors
    within = getattr(loss, "within_track", True)
    torch.manual_seed(seed)
    value = loss(*data)
    torch.manual_seed(seed)
    expected = REFERENCES[type(loss)](loss, view(*data, within))
    assert value.shape == ()
    assert expected != 0
    assert value.item() == pytest.approx(expected, rel=1e-5, abs=1e-5)


def flat(seed: int = 0, works: int = 5, versions: int = 4) -> tuple[Tensor, Tensor]:
    """One vector a track."""
    z = torch.randn(works * versions, DIM, generator=torch.Generator().manual_seed(seed))
    return z, torch.arange(works).repeat_interleave(versions)


def euclidean() -> pml_distances.LpDistance:
    return pml_distances.LpDistance(normalize_embeddings=False)


SECOND = {
    "supcon": (lambda: SupCon(0.1), lambda: pml.SupConLoss(0.1, reducer=reducers.MeanReducer()), None),
    "ntxent": (lambda: NTXent(0.1), lambda: pml.NTXentLoss(0.1), None),
    "circle": (lambda: Circle(0.4, 8.0), lambda: pml.CircleLoss(0.4, 8.0), None),
    "batch_hard": (
        lambda: Triplet(0.3),
        lambda: pml.TripletMarginLoss(0.3, distance=euclidean(), reducer=reducers.MeanReducer()),
        lambda: miners.BatchHardMiner(distance=euclidean()),
    ),
    "multi_similarity": (
        lambda: Library("MultiSimilarityLoss", {"alpha": 1, "beta": 20}, DIM, CLASSES),
        lambda: pml.MultiSimilarityLoss(1, 20),
        None,
    ),
}


@pytest.mark.parametrize("name", SECOND)
def test_equal_to_pytorch_metric_learning(name: str) -> None:
    ours, theirs, miner = SECOND[name]
    z, group = flat()
    first, second = z.clone().requires_grad_(), z.clone().requires_grad_()
    a = ours()(first[:, None], group, torch.arange(len(z)))
    b = theirs()(second, group, miner()(second, group) if miner else None)
    a.backward()
    b.backward()
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(first.grad, second.grad, rtol=1e-4, atol=1e-5)


# --- batches with nothing to learn from


def size(value: float) -> Callable[[], Tensor]:
    return lambda: torch.full((6, 3, DIM), value)


SHAPES = {
    "zeros": size(0.0),
    "ones": size(1.0),
    "small": size(1e-6),
    "large": size(1e3),
    "random": lambda: torch.randn(6, 3, DIM, generator=torch.Generator().manual_seed(0)),
    "wide": lambda: 1e4 * torch.randn(6, 3, DIM, generator=torch.Generator().manual_seed(0)),
}
WORKS = {
    "pairs": [0, 0, 1, 1, 2, 2],
    "one work": [4] * 6,
    "singletons": [0, 1, 2, 3, 4, 5],
    "unknown": [-1] * 6,
    "one known": [-1, -1, 2, -1, -1, -1],
}
MASKS = {
    "all": torch.ones(6, 3).bool(),
    "some": torch.tensor([[1, 1, 0], [0, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0], [1, 0, 1]]).bool(),
    "none": torch.zeros(6, 3).bool(),
    "one": torch.eye(6, 3).bool() & (torch.arange(6) == 2)[:, None],
}


@pytest.mark.parametrize("name", MORE)
@pytest.mark.parametrize("vectors", SHAPES)
def test_values_and_gradients_are_always_finite(name: str, vectors: str) -> None:
    for works, mask, rows in itertools.product(WORKS, MASKS, (torch.arange(6), torch.zeros(6).long())):
        loss = made(name).train()
        z = SHAPES[vectors]().requires_grad_()
        value = loss(z, torch.tensor(WORKS[works]), rows, MASKS[mask])
        value.backward()
        case = f"{works}, {mask}, {rows[1]}"
        assert value.isfinite(), case
        assert z.grad.isfinite().all(), case
        assert all(p.grad is None or p.grad.isfinite().all() for p in loss.parameters()), case
        if works == "unknown" or mask == "none":
            assert value == 0, case
            assert not z.grad.any(), case


@pytest.mark.parametrize("name", ["arcface", "subcenter_arcface", "cosface", "proxy_nca", "focal", "maxmean"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_vectors_on_their_class_weights_have_finite_gradients(name: str, sign: float) -> None:
    loss = made(name)
    weights = {"focal": "linear.weight", "maxmean": "prototypes", "proxy_nca": "inner.proxies"}
    w = loss.get_parameter(weights.get(name, "inner.W")).detach()
    w = w.T if w.shape[0] == DIM else w
    z = (sign * w.reshape(CLASSES, -1, DIM)[:, :1]).clone().requires_grad_()
    value = loss(z, torch.arange(CLASSES), torch.arange(CLASSES))
    value.backward()
    assert value.isfinite()
    assert z.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in loss.parameters())


@pytest.mark.parametrize("name", MORE)
def test_masked_segments_and_unknown_works_are_as_if_absent(name: str) -> None:
    z, group, row, valid = batch()
    used = valid & (group >= 0)[:, None]
    first, second = z.clone().requires_grad_(), z.masked_fill(~used[..., None], torch.nan).requires_grad_()
    values = []
    for x in (first, second):
        loss = made(name).train()
        torch.manual_seed(1)
        values.append(loss(x, group, row, valid))
        values[-1].backward()
    assert torch.equal(*values)
    assert torch.equal(first.grad, second.grad)
    assert not first.grad[~used].any()
    assert first.grad[used].any()


@pytest.mark.parametrize("name", [name for name in MORE if name != "random_hard"])
def test_the_order_of_tracks_does_not_matter(name: str) -> None:
    z, group, row, valid = batch(2)
    turn = torch.randperm(len(z), generator=torch.Generator().manual_seed(0))
    a, b = made(name)(z, group, row, valid), made(name)(z[turn], group[turn], row[turn], valid[turn])
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


# Centres and sub-centres gather a work later, and best matches only in some transposition and not in all segments.
SLOW = {"center", "subcenter_arcface", "best_matches"}


@pytest.mark.parametrize("name", [name for name in MORE if name not in SLOW])
def test_descent_brings_versions_together(name: str) -> None:
    _, group = flat(works=4)
    row = torch.arange(len(group))
    loss = made(name).train()
    z = torch.randn(len(group), 2, DIM, generator=torch.Generator().manual_seed(1)).requires_grad_()
    optimizer = torch.optim.Adam([z, *loss.parameters()], lr=0.05)
    costs = []
    for _ in range(60):
        optimizer.zero_grad()
        costs.append(loss(z, group, row))
        costs[-1].backward()
        optimizer.step()
    assert costs[-1] < costs[0]
    x = torch.nn.functional.normalize(z.detach().mean(1), dim=1)
    nearest = (x @ x.T).fill_diagonal_(-2).argmax(1)
    assert (group[nearest] == group).float().mean() >= 0.9


@pytest.mark.parametrize("name", MORE)
def test_half_precision_is_computed_in_single(name: str) -> None:
    z, group, row, valid = batch()
    with torch.autocast("cpu", torch.bfloat16):
        value = made(name)(z.bfloat16(), group, row, valid)
    torch.manual_seed(0)
    assert value.dtype == torch.float32
    if name != "random_hard":
        torch.testing.assert_close(value, made(name)(z.bfloat16().float(), group, row, valid))


# --- particular definitions


def test_clews_without_other_works_only_attracts_and_without_versions_only_repels() -> None:
    z = torch.randn(3, 2, DIM, generator=torch.Generator().manual_seed(0))
    d = ((z[0][:, None] - z[1][None]) ** 2).mean(-1)  # (2, 2)
    straight = d.argmin().item() in (0, 3)  # the nearest pair of segments leaves one other pair
    best = (d[0, 0] + d[1, 1]) / 2 if straight else (d[0, 1] + d[1, 0]) / 2
    alone = CLEWS()(z[:2], torch.tensor([3, 3]), torch.tensor([0, 1]))
    torch.testing.assert_close(alone, best)
    apart = CLEWS()(z[:2], torch.tensor([3, 4]), torch.tensor([0, 1]))
    torch.testing.assert_close(apart, (1e-6 + (-5 * d.min()).exp()).log())


def test_clews_is_stable_where_the_exponential_underflows() -> None:
    z = torch.zeros(2, 1, DIM)
    z[1] = 1e3  # exp(-5e6) is 0
    value = CLEWS()(z.requires_grad_(), torch.tensor([0, 1]), torch.tensor([0, 1]))
    assert value.item() == pytest.approx(math.log(1e-6))


def test_sum_weighs_its_parts_and_keeps_them() -> None:
    data = batch()
    parts = {"near": SupCon(weight=0.5), "far": Triplet(weight=3.0)}
    loss = Sum(parts)
    value = loss(*data)
    a, b = SupCon()(*data), Triplet()(*data)
    torch.testing.assert_close(value, 0.5 * a + 3 * b)
    assert not any(part.requires_grad for part in loss.last.values())
    assert {name: part.item() for name, part in loss.last.items()} == {"near": a.item(), "far": b.item()}
    with pytest.raises(UserError, match="no part"):
        Sum({})


def test_neck_keeps_its_bias_and_serves_single_vectors() -> None:
    loss = made("focal").train()
    z = torch.randn(1, 1, DIM).requires_grad_()
    loss(z, torch.tensor([1]), torch.tensor([0])).backward()
    assert not loss.neck.bias.requires_grad
    assert not loss.neck.bias.any()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize(
    "name", ["focal", "focal_outputs", "center", "center_outputs", "maxmean", "arcface", "proxy_nca"]
)
def test_works_beyond_the_classes_are_user_errors(name: str) -> None:
    z, group, row, valid = batch()
    with pytest.raises(UserError, match=f"work {CLASSES} is none of {CLASSES} classes"):
        made(name)(z, group.clamp(max=4).masked_fill(group == 5, CLASSES), row, valid)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: SupCon(temperature=0.0), "temperature"),
        (lambda: Triplet(mining="batch_hrad"), "did you mean 'batch_hard'"),
        (lambda: Triplet(distance="cosin"), "did you mean 'cosine'"),
        (lambda: FocalClassifier(DIM, CLASSES, gamma=-1.0), "gamma"),
        (lambda: FocalClassifier(DIM, CLASSES, outputs=CLASSES - 1), f"outputs={CLASSES - 1} are too few"),
        (lambda: Center(DIM, CLASSES, outputs=CLASSES - 1), f"too few for {CLASSES} works"),
        (lambda: CLEWS(positive="bpwr"), "reduction"),
        (lambda: CLEWS(gamma=0.0), "gamma"),
        (lambda: MaxMean(DIM, CLASSES, label_smoothing=1.0), "label_smoothing"),
        (lambda: MaxMean(DIM, CLASSES, prototypes=0), "prototypes"),
        (lambda: Library("ArcFace", None, DIM, CLASSES), "did you mean 'ArcFaceLoss'"),
        (lambda: Library("BaseMetric", None, DIM, CLASSES), "loss.name"),
        (lambda: Library("CosFaceLoss", {"margn": 1}, DIM, CLASSES), "loss.options.margn.*did you mean 'margin'"),
        (lambda: Library("ArcFaceLoss"), "give dim and classes"),
    ],
)
def test_bad_values_are_user_errors(make: Callable[[], MetricLoss], match: str) -> None:
    with pytest.raises(UserError, match=match):
        make()


# --- configuration


@pytest.mark.parametrize("name", METRIC)
def test_every_yaml_builds_a_loss_that_learns(name: str) -> None:
    loss = _loss(OmegaConf.load(CONFIG / f"{name}.yaml"), FACTS)
    assert loss.kind == "metric"
    z, group = flat(works=3)
    z = z[:, None].expand(-1, 4, -1).clone() + 0.1 * torch.randn(len(z), 4, DIM)
    z.requires_grad_()
    value = loss(z, group, torch.arange(len(z)))
    value.backward()
    assert value.isfinite()
    assert z.grad.any()
    state = _loss(OmegaConf.load(CONFIG / f"{name}.yaml"), FACTS)
    state.load_state_dict(loss.state_dict())


def test_the_yamls_are_all_there() -> None:
    asked = "coverhunter clews maxmean supcon ntxent triplet_batch_hard triplet_semi_hard triplet_random_hard arcface"
    asked += " subcenter_arcface cosface proxy_nca multi_similarity circle alignment_uniformity bytecover2"
    assert set(METRIC) == {*asked.split(), "best_matches", "dvinet_plus"}


@pytest.mark.parametrize("name", [name for name in METRIC if "triplet" not in name])
def test_yaml_holds_the_defaults_of_its_signature(name: str) -> None:
    node = OmegaConf.to_container(OmegaConf.load(CONFIG / f"{name}.yaml"))
    kind = getattr(tonnetz.losses, node.pop("_target_").removeprefix("tonnetz.losses."))
    known = inspect.signature(kind).parameters
    if kind is Library:
        made = getattr(pml, node.pop("name"))
        defaults = {k: p.default for base in made.__mro__ for k, p in inspect.signature(base).parameters.items()}
        own = {k: p.default for k, p in inspect.signature(made).parameters.items()}
        assert node.pop("options").items() <= (defaults | own).items()
        assert node.items() <= {k: p.default for k, p in known.items()}.items()
    elif kind is not Sum:
        assert node == {k: p.default for k, p in known.items() if k not in FACTS}


def test_coverhunter_is_its_recipe() -> None:
    loss = _loss(OmegaConf.load(CONFIG / "coverhunter.yaml"), FACTS)
    focal, triplet, center = (loss.parts[name] for name in ("focal", "triplet", "center"))
    assert (focal.weight, focal.gamma, focal.label_smoothing) == (1.0, 2.0, 0.0)
    assert (triplet.weight, triplet.margin, triplet.mining, triplet.distance) == (0.1, 0.3, "batch_hard", "euclidean")
    assert center.weight == 0.0
    data = batch()
    total = loss(*data)
    torch.testing.assert_close(total, loss.last["focal"] + 0.1 * loss.last["triplet"])
    node = OmegaConf.load(CONFIG / "coverhunter.yaml")
    node.parts.center = None
    assert set(_loss(node, FACTS).parts) == {"focal", "triplet"}
