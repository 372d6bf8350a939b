"""Heads: the contract of all, and each against a reference of its own."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression as Sklearn
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor
from torch.nn import functional

from tonnetz import heads
from tonnetz.errors import UserError
from tonnetz.heads import Head

INDUCTIVE = ["Prototypes", "SimpleShot", "LogisticRegression", "BaselinePP", "KNN", "Constant", "Random"]
ALL = [*INDUCTIVE, "BDCSPN", "TIM"]
LEARNING = [name for name in ALL if name not in ("Constant", "Random")]


def episodes(
    e: int = 4, c: int = 5, s: int = 4, q: int = 6, d: int = 12, spread: float = 1.0
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Unequal shots; a class of episode 1 is absent, and is no query's."""
    g = torch.Generator().manual_seed(0)
    place = spread * torch.randn(e, c, 1, d, generator=g)
    support, query = (place + torch.randn(e, c, n, d, generator=g) for n in (s, q))
    mask = torch.ones(e, c, s, dtype=torch.bool)
    mask[0, 1, 1:] = False
    mask[1, 2] = False
    target = torch.arange(c).repeat_interleave(q).repeat(e, 1)
    valid = mask.any(-1).gather(1, target)
    return support, mask, query.flatten(1, 2), target, valid


def make(name: str) -> Head:
    return getattr(heads, name)()


@pytest.mark.parametrize("name", ALL)
def test_contract(name: str) -> None:
    support, mask, query, _, valid = episodes()
    head, center = make(name), torch.ones(12)
    scores = head(support, mask, query, center, valid)
    assert scores.shape == (4, 30, 5)
    assert (scores == -torch.inf).all(1).equal(~mask.any(-1))
    assert scores[mask.any(-1)[:, None].expand_as(scores)].isfinite().all()
    assert head.transductive == (name in ("BDCSPN", "TIM"))
    padded = support.masked_fill(~mask[..., None], torch.nan)  # what does not exist must not matter
    torch.testing.assert_close(head(padded, mask, query, center, valid), scores)
    one = torch.cat([head(*(x[i : i + 1] for x in (support, mask, query)), center, valid[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(one, scores, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", INDUCTIVE)
def test_queries_are_answered_alone(name: str) -> None:
    support, mask, query, _, _ = episodes()
    head, center = make(name), torch.zeros(12)
    scores = head(support, mask, query, center)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(head(support, mask, query[:, order], center), scores[:, order], rtol=1e-4, atol=1e-5)
    parts = torch.cat([head(support, mask, part, center) for part in query.split(7, 1)], 1)
    torch.testing.assert_close(parts, scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["BDCSPN", "TIM"])
def test_transductive_heads_ignore_queries_that_do_not_exist_and_their_order(name: str) -> None:
    support, mask, query, _, valid = episodes()
    head = make(name)
    scores = head(support, mask, query, valid=valid)
    other = head(support, mask, query.masked_fill(~valid[..., None], 7.0), valid=valid)
    torch.testing.assert_close(other[valid], scores[valid])
    assert not torch.allclose(head(support, mask, query[:, :20]), head(support, mask, query)[:, :20])
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    again = head(support, mask, query[:, order], valid=valid[:, order])
    torch.testing.assert_close(again[valid[:, order]], scores[:, order][valid[:, order]], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", LEARNING)
def test_learning_beats_chance_and_bad_input_is_said(name: str) -> None:
    support, mask, query, target, valid = episodes(e=20)
    right = make(name)(support, mask, query, torch.zeros(12), valid).argmax(-1) == target
    assert right[valid].float().mean() > 0.8
    with pytest.raises(ValueError, match="do not agree"):
        make(name)(support, mask[:, :, 1:], query)
    with pytest.raises(UserError, match="did you mean 'cl2'"):
        getattr(heads, name)(normalize="cl3")
    with pytest.raises(UserError, match="mean of training embeddings"):
        getattr(heads, name)(normalize="cl2")(support, mask, query)


@pytest.mark.parametrize("distance", ["euclidean", "squared", "cosine"])
def test_prototypes_equal_a_loop(distance: str) -> None:
    support, mask, query, _, _ = episodes()
    scores = heads.Prototypes(distance, scale=2.0)(support, mask, query)
    for e in range(4):
        for c in range(5):
            examples = support[e, c][mask[e, c]]
            for m in range(0, 30, 4):
                if not len(examples):
                    continue
                p = examples.mean(0)
                expected = {
                    "euclidean": -(query[e, m] - p).norm(),
                    "squared": -((query[e, m] - p) ** 2).sum(),
                    "cosine": functional.cosine_similarity(query[e, m], p, dim=0),
                }[distance]
                torch.testing.assert_close(scores[e, m, c], 2 * expected)


def test_simpleshot_is_the_nearest_mean_of_centred_unit_vectors() -> None:
    support, mask, query, _, _ = episodes()
    center = torch.full((12,), 0.5)
    scores = heads.SimpleShot("cl2", scale=1.0)(support, mask, query, center)
    unit = [functional.normalize(x - center, dim=-1) for x in (support, query)]
    expected = heads.Prototypes("squared")(unit[0], mask, unit[1])
    torch.testing.assert_close(scores, expected)
    assert not torch.allclose(heads.SimpleShot("l2", scale=1.0)(support, mask, query)[0], expected[0])


@pytest.mark.parametrize(
    ("ways", "shots", "dim", "factor", "c"),
    [(5, 4, 12, 1.0, 1.0), (5, 4, 64, 1.0, 1.0), (2, 5, 8, 1.0, 0.5), (5, 1, 16, 1.0, 1.0), (8, 10, 16, 3.0, 10.0)],
)
def test_logistic_regression_equals_sklearn(ways: int, shots: int, dim: int, factor: float, c: float) -> None:
    support, mask, query, _, _ = episodes(3, ways, shots, 6, dim, 0.4) if ways > 2 else episodes_of_two(shots, dim)
    support, query = factor * support + 1, factor * query + 1
    prob = heads.LogisticRegression(c, normalize="none")(support, mask, query).softmax(-1)
    for e in range(len(support)):
        x, y = support[e][mask[e]].double().numpy(), mask[e].nonzero()[:, 0].numpy()
        model = Sklearn(C=c, solver="newton-cholesky", tol=1e-10, max_iter=500).fit(x, y)
        expected = model.predict_proba(query[e].double().numpy())
        mine = prob[e][:, model.classes_].numpy()
        assert np.abs(mine - expected).max() < 1e-3
        assert (mine.argmax(1) == expected.argmax(1)).all()


def episodes_of_two(shots: int, dim: int) -> tuple[Tensor, Tensor, Tensor, None, None]:
    g = torch.Generator().manual_seed(2)
    support, query = torch.randn(3, 2, shots, dim, generator=g), torch.randn(3, 9, dim, generator=g)
    mask = torch.ones(3, 2, shots, dtype=torch.bool)
    mask[0, 0, 2:] = False
    return support, mask, query, None, None


def test_logistic_regression_says_when_it_is_not_done() -> None:
    support, mask, query, _, _ = episodes()
    with pytest.warns(UserWarning, match="2 steps leave an error"):
        heads.LogisticRegression(steps=2)(support, mask, query)


@pytest.mark.parametrize("ways", [2, 3])
def test_logistic_regression_of_equal_examples_is_even_and_silent(ways: int) -> None:
    support = torch.randn(1, 1, 1, 16).expand(4, ways, 5, 16)
    mask = torch.ones(4, ways, 5, dtype=torch.bool)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = heads.LogisticRegression()(support, mask, torch.randn(4, 7, 16))
    torch.testing.assert_close(scores.softmax(-1), torch.full((4, 7, ways), 1 / ways))


def test_baseline_pp_equals_torch_sgd_of_one_episode() -> None:
    support, mask, query, _, _ = episodes()
    head = heads.BaselinePP(scale=4.0, steps=25, lr=0.2)
    scores = head(support, mask, query)
    x, y = support[0][mask[0]], mask[0].nonzero()[:, 0]
    weight = torch.stack([functional.normalize(support[0, c][mask[0, c]].mean(0), dim=-1) for c in range(5)])
    weight.requires_grad_()
    sgd = torch.optim.SGD([weight], lr=0.2, momentum=0.9)
    for _ in range(25):
        sgd.zero_grad()
        logits = 4 * functional.normalize(x, dim=-1) @ functional.normalize(weight, dim=-1).T
        functional.cross_entropy(logits, y).backward()
        sgd.step()
    expected = 4 * functional.normalize(query[0], dim=-1) @ functional.normalize(weight, dim=-1).T
    torch.testing.assert_close(scores[0], expected.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("k", [1, 3, 100])
def test_knn_equals_sklearn(k: int) -> None:
    support, mask, query, _, _ = episodes(spread=0.3)
    query[0, 0] = support[0, 0, 0]  # an exact match
    scores = heads.KNN(k, normalize="none")(support, mask, query)
    for e in range(4):
        x, y = support[e][mask[e]].numpy(), mask[e].nonzero()[:, 0].numpy()
        model = KNeighborsClassifier(min(k, len(x)), weights="distance").fit(x, y)
        mine = scores[e].exp()[:, model.classes_]
        np.testing.assert_allclose(mine, model.predict_proba(query[e].numpy()), atol=1e-4)


def test_knn_settles_ties_by_distance_and_refuses_no_neighbours() -> None:
    support = torch.tensor([[[[-2.0], [-2.0]], [[2.0], [9.0]], [[3.0], [1.0]]]])  # (1, 3, 2, 1)
    scores = heads.KNN(1, normalize="none")(support, torch.ones(1, 3, 2, dtype=torch.bool), torch.zeros(1, 1, 1))
    assert scores[0, 0].tolist() == sorted(scores[0, 0].tolist())
    assert scores[0, 0, 0] < scores[0, 0, 2] - 5
    tied = torch.tensor([[[[-3.0], [-3.0]], [[2.0], [3.0]], [[3.0], [3.0]]]])
    scores = heads.KNN(6, normalize="none")(tied, torch.ones(1, 3, 2, dtype=torch.bool), torch.zeros(1, 1, 1))
    assert scores[0, 0].argmax() == 1
    with pytest.raises(UserError, match="k=0"):
        heads.KNN(0)


def test_bdcspn_equals_a_loop() -> None:
    support, mask, query, _, _ = episodes()
    scores = heads.BDCSPN(top=3, scale=5.0)(support, mask, query)
    s, q = functional.normalize(support, dim=-1), functional.normalize(query, dim=-1)
    for e in range(4):
        there = [c for c in range(5) if mask[e, c].any()]
        shifted = q[e] + s[e][mask[e]].mean(0) - q[e].mean(0)
        old = {c: s[e, c][mask[e, c]].mean(0) for c in there}
        cosine = torch.stack([functional.cosine_similarity(shifted, old[c][None]) for c in there], 1)
        sure, label = cosine.softmax(1).max(1)
        for place, c in enumerate(there):
            mine = [m for m in sure.argsort(descending=True).tolist() if label[m] == place][:3]
            members = torch.cat([s[e, c][mask[e, c]], shifted[mine]])
            weight = (5 * functional.cosine_similarity(members, old[c][None])).softmax(0)
            new = (weight[:, None] * members).sum(0)
            torch.testing.assert_close(
                scores[e, :, c], 5 * functional.cosine_similarity(shifted, new[None]), rtol=1e-4, atol=1e-4
            )


def tim_loss(weight: Tensor, x: Tensor, y: Tensor, query: Tensor) -> float:
    p = (-7.5 * torch.cdist(query, weight) ** 2).softmax(1)
    ce = functional.cross_entropy(-7.5 * torch.cdist(x, weight) ** 2, y)
    marginal = p.mean(0)
    return float(0.1 * ce + (marginal * marginal.log()).sum() - 0.1 * (p * p.log()).sum(1).mean())


def test_tim_lowers_its_loss_and_balances_better_than_prototypes() -> None:
    support, mask, query, target, _ = episodes(e=20, s=1, q=12, spread=1.2)
    mask[:] = True
    head = heads.TIM()
    s, q = functional.normalize(support, dim=-1), functional.normalize(query, dim=-1)
    start = s.mean(2)
    x, label = s.flatten(1, 2), torch.eye(5).expand(20, 5, 5)
    end = head._fit(x, label, q, torch.ones(20, 60, dtype=torch.bool), start)
    ones = torch.arange(5)
    before, after = (
        torch.tensor([tim_loss(w[e], s[e].flatten(0, 1), ones, q[e]) for e in range(20)]) for w in (start, end)
    )
    assert (after < before).all()
    assert (after < before - 0.02).sum() > 10
    tim = (head(support, mask, query).argmax(-1) == target).float().mean()
    plain = (heads.Prototypes("squared", normalize="l2")(support, mask, query).argmax(-1) == target).float().mean()
    assert tim > plain + 0.05


def test_constant_and_random_are_chance() -> None:
    support, mask, query, target, _ = episodes(e=200, q=10)
    mask[:] = True
    assert (heads.Constant()(support, mask, query).argmax(-1) == 0).all()
    fewer = mask.clone()
    fewer[:, :3, 1:] = False
    assert (heads.Constant()(support, fewer, query).argmax(-1) == 3).all()
    answers = heads.Random()(support, mask, query).argmax(-1)
    assert torch.bincount(answers.flatten(), minlength=5).float().div(10_000).sub(0.2).abs().max() < 0.02
    assert (answers == target).float().mean() == pytest.approx(0.2, abs=0.02)
    assert (heads.Random(1)(support, mask, query).argmax(-1) == answers).float().mean() == pytest.approx(0.2, abs=0.02)
    repeated = query[:1].expand(200, -1, -1)  # the same clips in every episode: their answers differ
    drawn = heads.Random()(support, mask, repeated).argmax(-1)
    share = functional.one_hot(drawn, 5).double().mean(0)  # (M, C)
    assert share.sub(0.2).abs().max() < 0.12
    assert share.std() == pytest.approx((0.2 * 0.8 / 200) ** 0.5, rel=0.25)


def test_least_risk_equals_a_loop_and_prefers_the_near_relative() -> None:
    g = torch.Generator().manual_seed(0)
    prob = torch.rand(3, 7, 4, generator=g).softmax(-1)
    costs = torch.randint(0, 4, (3, 4, 4), generator=g)
    answers = heads.least_risk(prob, costs)
    for e in range(3):
        for m in range(7):
            expected = [sum(float(prob[e, m, c]) * int(costs[e, k, c]) for c in range(4)) for k in range(4)]
            assert heads.risk(prob, costs)[e, m].tolist() == pytest.approx(expected, abs=1e-5)
            assert expected[answers[e, m]] == pytest.approx(min(expected))
    # 0 is likeliest, but 1 and 2 are of one family
    tree = torch.tensor([[0, 2, 2], [2, 0, 1], [2, 1, 0]])
    assert heads.least_risk(torch.tensor([[[0.4, 0.35, 0.25]]]), tree).item() == 1
    absent = torch.tensor([[True, False, True]])
    assert heads.least_risk(torch.tensor([[[0.3, 0.0, 0.7]]]), tree[None], absent).item() == 2
