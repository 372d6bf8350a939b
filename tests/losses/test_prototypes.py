"""Hierarchical prototypical loss against a slow loop over episodes, classes and queries."""

import itertools
import math

import pytest
import torch

from tonnetz.errors import UserError
from tonnetz.geometry import Flat, Hyperbolic
from tonnetz.losses import Prototypes
from tonnetz.losses.levels import Weighting, chosen_heights

DEPTH = 4
# class: itself, group, subfamily, family: three families of unequal size, a repeated level in the third
TREE = [
    [0, 10, 20, 30],
    [1, 10, 20, 30],
    [2, 11, 20, 30],
    [3, 12, 21, 31],
    [4, 12, 21, 31],
    [5, 13, 13, 13],
    [6, 14, 22, 31],
]


def episodes(count, ways, shots, queries, seed=0, ragged=True, dim=7):
    """Random embeddings; with `ragged`, some support and query clips do not exist."""
    random = torch.Generator().manual_seed(seed)
    chosen = torch.stack([torch.randperm(len(TREE), generator=random)[:ways].sort().values for _ in range(count)])
    support = torch.randn(count, ways, shots, dim, generator=random, dtype=torch.float64).float()
    query = torch.randn(count, ways, queries, dim, generator=random, dtype=torch.float64).float()
    shown, asked = torch.ones(support.shape[:3], dtype=torch.bool), torch.ones(query.shape[:3], dtype=torch.bool)
    if ragged:
        shown = torch.rand(shown.shape, generator=random) < 0.7
        shown[..., 0] = True
        asked = torch.rand(asked.shape, generator=random) < 0.6
        asked[..., 0] = True
    return support, shown, query, asked, torch.tensor(TREE)[chosen]


def distance(a, b, kind):
    if kind == "squared":
        return ((a - b) ** 2).sum()
    if kind == "cosine":
        return 1 - a @ b / (a.norm() * b.norm())
    return ((a - b) ** 2).sum().sqrt()


def mean(vectors):
    return sum(vectors) / len(vectors)


AGGREGATES = ["leaf_mean", "recursive", "support_mean", "size_weighted", "learned"]


def node_prototypes(leaves, supports, paths, height, aggregate, power=0.5, attention=None):
    """Node id -> prototype at a height, by loops."""
    ids = sorted({p[height] for p in paths.values()})
    if height == 0:
        return leaves
    if aggregate in ("recursive", "size_weighted"):
        below = node_prototypes(leaves, supports, paths, height - 1, aggregate, power)
        under = {n: {p[height - 1] for p in paths.values() if p[height] == n} for n in ids}
        clips = {k: sum(len(supports[c]) for c, p in paths.items() if p[height - 1] == k) for k in below}
        weight = {k: 1.0 if aggregate == "recursive" else clips[k] ** power for k in below}
        return {n: sum(weight[k] * below[k] for k in under[n]) / sum(weight[k] for k in under[n]) for n in ids}
    members = {n: [c for c, p in paths.items() if p[height] == n] for n in ids}
    if aggregate == "support_mean":
        return {n: mean([v for c in members[n] for v in supports[c]]) for n in ids}
    if aggregate == "learned":
        return {n: attended([leaves[c] for c in members[n]], *attention) for n in ids}
    return {n: mean([leaves[c] for c in members[n]]) for n in ids}


def attended(vectors, weight, bias, out):
    """The mean of vectors, weighted by the softmax of v tanh(W p + b), one vector after the other."""
    scores = [(out * torch.tanh(weight @ v + bias)).sum().exp() for v in vectors]
    return sum(s * v for s, v in zip(scores, vectors, strict=True)) / sum(scores)


def slow_terms(batch, heights, kind, aggregate, scale, power=0.5, attention=None):
    """Losses (E, n) of every episode and level, one query after the other, in float64; gradients flow through."""
    found = []
    for support, shown, query, asked, path in zip(*batch, strict=True):
        paths = {int(p[0]): p.tolist() for p in path}
        unit = (lambda v: v / v.norm()) if kind == "cosine" else (lambda v: v)
        supports = {
            int(p[0]): [unit(v.double()) for v, there in zip(s, m, strict=True) if there]
            for p, s, m in zip(path, support, shown, strict=True)
        }
        leaves = {c: mean(v) for c, v in supports.items()}
        row = []
        for height in (0, *heights):
            nodes = node_prototypes(leaves, supports, paths, height, aggregate, power, attention)
            costs = []
            for p, vectors, there in zip(path.tolist(), query, asked, strict=True):
                for vector, ask in zip(vectors, there, strict=True):
                    if ask:
                        logits = {n: -scale * distance(vector.double(), v, kind) for n, v in nodes.items()}
                        costs.append(sum(x.exp() for x in logits.values()).log() - logits[p[height]])
            row.append(sum(costs) / len(costs))
        found.append(torch.stack(row))
    return torch.stack(found)


def made(aggregate, **words):
    """A loss that climbs the whole tree; its attention, where it has any, has learned something."""
    torch.manual_seed(0)
    loss = Prototypes(aggregate=aggregate, levels="all", dim=7, **words)
    loss.grow(DEPTH)
    if loss.aggregate.attention is not None:
        torch.nn.init.normal_(loss.aggregate.attention[2].weight, std=3.0)
    return loss


def attention_of(loss):
    """Copies in float64 of W, b and v, that gradients reach."""
    if loss.aggregate.attention is None:
        return None
    return [p.detach().double().squeeze(0).requires_grad_() for p in loss.aggregate.attention.parameters()]


@pytest.mark.parametrize("aggregate", AGGREGATES)
@pytest.mark.parametrize("kind", ["euclidean", "squared", "cosine"])
@pytest.mark.parametrize("count", [1, 5])
def test_a_batch_of_episodes_equals_a_slow_loop(aggregate, kind, count):
    batch = episodes(count, 5, 3, 4, seed=count)
    loss = made(aggregate, distance=kind, scale=0.7)
    expected = slow_terms(batch, (1, 2, 3), kind, aggregate, 0.7, attention=attention_of(loss))
    torch.testing.assert_close(loss.terms(*batch), expected.float(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_gradients_equal_those_of_a_slow_loop(aggregate):
    """Of the support, of the queries, and of what the attention learns."""
    support, shown, query, asked, paths = episodes(3, 6, 3, 2, seed=7)
    loss = made(aggregate, distance="squared", scale=0.3)
    given = [value.clone().requires_grad_() for value in (support, query)]
    loss.terms(given[0], shown, given[1], asked, paths).sum().backward()
    slow = [value.double().requires_grad_() for value in (support, query)]
    attention = attention_of(loss)
    terms = slow_terms((slow[0], shown, slow[1], asked, paths), (1, 2, 3), "squared", aggregate, 0.3, 0.5, attention)
    terms.sum().backward()
    for mine, theirs in zip(given, slow, strict=True):
        assert theirs.grad.abs().max() > 1e-3
        torch.testing.assert_close(mine.grad, theirs.grad.float(), atol=1e-5, rtol=1e-4)
    if attention is not None:
        for mine, theirs in zip(loss.aggregate.attention.parameters(), attention, strict=True):
            assert theirs.grad.abs().max() > 1e-3
            torch.testing.assert_close(mine.grad.squeeze(0), theirs.grad.float(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("power", "other"), [(0.0, "recursive"), (1.0, "support_mean")])
def test_size_weighted_lies_between_two_others(power, other):
    batch = episodes(4, 6, 3, 2, seed=3)
    found, expected = made("size_weighted", power=power).terms(*batch), made(other).terms(*batch)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("distance", ["squared", "hyperbolic"])
def test_attention_begins_as_the_mean_and_learns(distance):
    batch = episodes(4, 6, 3, 2, seed=3)
    torch.manual_seed(0)
    loss = Prototypes(aggregate="learned", levels="all", dim=7, distance=distance)
    loss.grow(DEPTH)
    before = loss.terms(*batch)
    torch.testing.assert_close(before, made("leaf_mean", distance=distance).terms(*batch))
    optimizer = torch.optim.Adam(loss.aggregate.parameters(), lr=0.05)
    for _ in range(20):
        optimizer.zero_grad()
        loss(*batch).backward()
        optimizer.step()
    after = loss.terms(*batch)
    assert torch.equal(after[:, 0], before[:, 0])  # classes have no say in it
    assert after[:, 1:].mean() < before[:, 1:].mean() - 1e-3
    logits = loss.level_logits(batch[0], batch[1], batch[2].flatten(1, 2), batch[4])
    costs = torch.nn.functional.cross_entropy(
        logits[:, 3].flatten(0, 1), _slots(batch[4][..., 3]).repeat_interleave(2, 1).flatten(), reduction="none"
    ).unflatten(0, (4, 12))
    asked = batch[3].flatten(1)
    torch.testing.assert_close((costs * asked).sum(1) / asked.sum(1), after[:, 3])  # an evaluation uses the same


def _slots(nodes):
    """First class under the same node, (E, C)."""
    return torch.tensor([[line.index(node) for node in line] for line in nodes.tolist()])


def test_aggregates_differ_where_groups_are_unequal():
    batch = episodes(3, 6, 3, 4, seed=2)
    found = []
    for aggregate in AGGREGATES:
        found.append(made(aggregate).terms(*batch)[:, -1])
    assert all((a - b).abs().max() > 1e-3 for a, b in itertools.combinations(found, 2))


def test_many_episodes_cost_the_mean_of_each_alone():
    batch = episodes(8, 4, 2, 3)
    loss = Prototypes(height=2)
    loss.grow(DEPTH)
    alone = [loss(*(value[i : i + 1] for value in batch)) for i in range(8)]
    torch.testing.assert_close(loss(*batch), torch.stack(alone).mean())


def test_absent_classes_take_no_part():
    batch = episodes(2, 4, 2, 3, ragged=False)
    more = [torch.cat([value, value[:, :1]], 1) for value in batch]
    more[1][:, -1] = more[3][:, -1] = False
    more[4][:, -1] = -1
    loss = Prototypes(levels="all")
    loss.grow(DEPTH)
    torch.testing.assert_close(loss(*more), loss(*batch))
    logits = loss.leaf_logits(more[0], more[1], more[2].flatten(1, 2))
    assert (logits[..., -1] == -torch.inf).all()
    assert logits[..., :-1].isfinite().all()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("exp", [1, math.exp(-0.3), math.exp(-0.6), math.exp(-0.9)]),
        ("exp_leafheavy", [1, math.exp(0.6), math.exp(0.3), 1]),
        ("interp_avg", [0.3, 0.7 / 3, 0.7 / 3, 0.7 / 3]),
        ("interp_avg_decay", [0.3, 0.7 * math.exp(-0.4) / 3, 0.7 * math.exp(-0.2) / 3, 0.7 / 3]),
        ("learned", [1, 1 / 3, 1 / 3, 1 / 3]),
        ("uncertainty", [1, 1, 1, 1]),
    ],
)
def test_weightings_by_hand(kind, expected):
    weighting = Weighting(kind, alpha=0.3, beta=0.2)
    weighting.grow(4)
    losses = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    torch.testing.assert_close(weighting(losses), (losses * torch.tensor(expected)).sum(1))
    assert weighting(losses[:, :1]).item() == 1.0


def test_normalized_weights_sum_to_one():
    assert Weighting("exp", normalized=True).weights(5).sum() == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["learned", "uncertainty"])
def test_learned_weights_learn(kind):
    batch = episodes(2, 4, 2, 3)
    loss = Prototypes(weighting=kind, levels="all")
    loss.grow(DEPTH)
    loss(*batch).backward()
    assert loss.weighting.free.grad.abs().sum() > 0


def test_multi_hot_is_one_sigmoid_a_node():
    support, shown, query, asked, paths = batch = episodes(1, 4, 2, 3, seed=4)
    loss = Prototypes(weighting="multi_hot", levels="all", distance="euclidean", bias=None)
    loss.grow(DEPTH)
    leaves = {
        int(p[0]): mean([v for v, ok in zip(s, m, strict=True) if ok])
        for p, s, m in zip(paths[0], support[0], shown[0], strict=True)
    }
    chains = {int(p[0]): p.tolist() for p in paths[0]}
    costs = []
    for path, vectors, there in zip(paths[0].tolist(), query[0], asked[0], strict=True):
        for vector in (v for v, ok in zip(vectors, there, strict=True) if ok):
            for height in range(DEPTH):
                for node, prototype in node_prototypes(leaves, {}, chains, height, "leaf_mean").items():
                    p = 1 / (1 + math.exp(float((vector - prototype).norm())))
                    costs.append(-math.log(p if node == path[height] else 1 - p))
    assert loss(*batch).item() == pytest.approx(sum(costs) / len(costs), rel=1e-5)
    learned = Prototypes(weighting="multi_hot", levels="all", bias=3.0)
    learned.grow(DEPTH)
    learned(*batch).backward()
    assert learned.bias.grad.abs() > 0
    assert learned.log_scale.grad.abs() > 0


def test_smoothing_moves_the_target_to_near_classes():
    support, shown, query, _, paths = batch = episodes(1, 3, 1, 2, ragged=False, seed=1)
    plain, smooth = Prototypes(height=0), Prototypes(height=0, smoothing=0.2)
    plain.grow(DEPTH)
    smooth.grow(DEPTH)
    logp = plain.leaf_logits(support, shown, query.flatten(1, 2))[0].log_softmax(-1)
    total = 0.0
    for own, line in zip([0, 0, 1, 1, 2, 2], logp, strict=True):
        heights = [sum(a != b for a, b in zip(paths[0, own].tolist(), p.tolist(), strict=True)) for p in paths[0]]
        weights = [0.0 if c == own else math.exp(-h) for c, h in enumerate(heights)]
        target = [0.2 * w / sum(weights) + (0.8 if c == own else 0.0) for c, w in enumerate(weights)]
        total -= sum(t * float(x) for t, x in zip(target, line, strict=True)) / 6
    assert smooth(*batch).item() == pytest.approx(total, rel=1e-5)


def test_heights_count_from_the_top_as_in_music_trees():
    assert chosen_heights(None, 0, 5) == ()
    assert chosen_heights(None, 1, 5) == (4,)
    assert chosen_heights(None, 4, 5) == (1, 2, 3, 4)
    assert chosen_heights("all", 0, 5) == (1, 2, 3, 4)
    assert chosen_heights("leaf", 3, 5) == ()
    assert chosen_heights([0, 3, 1], 0, 5) == (1, 3)


@pytest.mark.parametrize("words", [{"height": 9}, {"levels": [4]}, {"levels": "leaves"}])
def test_heights_that_the_tree_lacks_are_refused_with_the_range(words):
    loss = Prototypes(**words)
    with pytest.raises(UserError, match=r"loss\.(height|levels).*3"):
        loss.grow(DEPTH)


@pytest.mark.parametrize(
    "words",
    [{"distance": "manhattan"}, {"aggregate": "max"}, {"weighting": "sum"}, {"smoothing": 1}, {"power": -1}],
)
def test_unknown_choices_are_refused(words):
    with pytest.raises(UserError, match=f"loss.{next(iter(words))}"):
        Prototypes(**words)


def mobius(x, y, c):
    """Moebius addition, as it is defined."""
    xy, xx, yy = float(x @ y), float(x @ x), float(y @ y)
    return ((1 + 2 * c * xy + c * yy) * x + (1 - c * xx) * y) / (1 + 2 * c * xy + c * c * xx * yy)


def test_hyperbolic_distance_and_midpoint_by_definition():
    space = Hyperbolic(curvature=0.3, clip=2.0)
    points = space.place(3 * torch.randn(6, 4, dtype=torch.float64))
    assert (0.3 * points.square().sum(-1) < 1).all()
    far = space.distance(points, points.flip(0))
    for i, x in enumerate(points):
        for j, y in enumerate(points.flip(0)):
            expected = 2 / 0.3**0.5 * math.atanh(0.3**0.5 * float(mobius(-x, y, 0.3).norm()))
            assert float(far[i, j]) == pytest.approx(expected, abs=1e-5)
    gamma = [1 / math.sqrt(1 - 0.3 * float(k @ k)) for k in (2 * x / (1 + 0.3 * x @ x) for x in points)]
    klein = [2 * x / (1 + 0.3 * x @ x) for x in points]
    middle = sum(g * k for g, k in zip(gamma, klein, strict=True)) / sum(gamma)
    expected = middle / (1 + math.sqrt(1 - 0.3 * float(middle @ middle)))
    torch.testing.assert_close(space.mean(torch.full((1, 6), 1 / 6, dtype=torch.float64), points)[0], expected)


def test_hyperbolic_loss_has_finite_gradients():
    support, shown, query, asked, paths = episodes(2, 5, 3, 4)
    support, query = (1e3 * support).requires_grad_(), query.requires_grad_()
    loss = Prototypes(distance="hyperbolic", levels="all", curvature=1.0)
    loss.grow(DEPTH)
    loss(support, shown, query, asked, paths).backward()
    assert support.grad.isfinite().all()
    assert query.grad.isfinite().all()


def test_level_logits_stand_in_the_slot_of_the_first_class():
    batch = episodes(2, 5, 2, 2, ragged=False)
    loss = Prototypes(distance="squared")
    loss.grow(DEPTH)
    logits = loss.level_logits(batch[0], batch[1], batch[2].flatten(1, 2), batch[4])
    assert logits.shape == (2, DEPTH, 10, 5)
    for e, path in enumerate(batch[4].tolist()):
        for height in range(DEPTH):
            first = [[p[height] for p in path].index(p[height]) == c for c, p in enumerate(path)]
            assert (logits[e, height].isfinite().all(0)).tolist() == first


def test_flat_cosine_ignores_length():
    space = Flat("cosine")
    a, b = torch.randn(3, 5), torch.randn(2, 5)
    torch.testing.assert_close(space.distance(space.place(a), b), space.distance(space.place(7 * a), 3 * b))
