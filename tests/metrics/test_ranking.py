"""Retrieval metrics against a plain loop over queries: ties, duplicates, exclusions, queries with nothing to find."""

import time

import numpy as np
import pytest
import torch

from tonnetz.errors import UserError
from tonnetz.metrics.ranking import Ranking, Retrieval, intervals, means


def naive(distance, work, references, queries, excluded=(), compat=False):
    """Scores by query, from the definitions, with Python lists."""
    found = {}
    for i, query in enumerate(queries):
        cells = []
        for j, reference in enumerate(references):
            if reference == query or (query, reference) in excluded or (compat and distance[i][j] < 0):
                continue
            cells.append((distance[i][j], j, work[reference] == work[query] and work[query] >= 0))
        strangers = [d for d, j, hit in cells if not hit and work[references[j]] >= 0]
        cells.sort(key=lambda cell: cell[:2])
        hits = [hit for *_, hit in cells]
        ranks = [r + 1 for r, hit in enumerate(hits) if hit]
        wrong = len(hits) - len(ranks)
        if not ranks and not compat:
            continue
        precision = [(k + 1) / rank for k, rank in enumerate(ranks)]
        above = [rank - (k + 1) for k, rank in enumerate(ranks)]
        found[query] = {
            "ap": sum(precision) / len(ranks) if ranks else 0.0,
            "rank1": ranks[0] if ranks else 0.0,
            "kin": min((d for d, _, hit in cells if hit), default=np.inf),
            "stranger": min(strangers, default=np.inf),
            "nar": 100 * sum(above) / len(ranks) / max(wrong, 1) if ranks else 0.0,
        }
    return found


def case(seed):
    random = np.random.default_rng(seed)
    tracks = int(random.integers(3, 14))
    work = random.integers(-1, max(2, tracks // 2), tracks)
    queries = np.sort(random.permutation(tracks)[: random.integers(1, tracks + 1)])
    references = np.sort(random.permutation(tracks)[: random.integers(2, tracks + 1)])
    distance = np.round(random.random((len(queries), len(references))), int(random.integers(1, 4)))  # with ties
    if seed % 3 == 0:
        distance[random.random(distance.shape) < 0.2] = -1e-8  # duplicates, as rounding leaves them
    excluded = {(int(random.choice(queries)), int(random.choice(references))) for _ in range(seed % 4)}
    return work, queries, references, distance, excluded


@pytest.mark.parametrize("seed", range(200))
def test_metrics_equal_a_loop(seed):
    work, queries, references, distance, excluded = case(seed)
    expected = naive(distance.tolist(), work.tolist(), references.tolist(), queries.tolist(), excluded)
    pairs = torch.tensor(sorted(excluded)).reshape(-1, 2).long() if excluded else None
    ranking = Ranking(torch.from_numpy(work), torch.from_numpy(references), pairs)
    for part in torch.arange(len(queries)).split(3):  # in blocks
        ranking.add(torch.from_numpy(queries)[part], torch.from_numpy(distance)[part])
    if not expected:
        with pytest.raises(UserError, match="nothing to find"):
            ranking.result()
        return
    result = ranking.result()
    assert result.query.tolist() == list(expected)
    for name in ("ap", "rank1", "nar", "kin", "stranger"):
        np.testing.assert_allclose(result.per_query[name], [row[name] for row in expected.values()], atol=1e-9)
    kin, stranger = (np.array([row[name] for row in expected.values()]) for name in ("kin", "stranger"))
    stranger = stranger[np.isfinite(stranger)]
    rates = [((kin > t).mean(), (stranger <= t).mean()) for t in [-np.inf, *kin, *stranger] if len(stranger)]
    if rates:
        gap, rate = min((abs(a - b), (a + b) / 2) for a, b in rates)
        assert result.values["eer"] == pytest.approx(rate, abs=gap / 2 + 1e-9)
    else:
        assert "eer" not in result.values
    values, first = result.values, np.array([row["rank1"] for row in expected.values()])
    ap, nar = (np.mean([row[name] for row in expected.values()]) for name in ("ap", "nar"))
    assert values["map"] == pytest.approx(ap)
    assert values["mr1"] == pytest.approx(first.mean())
    assert values["mrr"] == pytest.approx((1 / first).mean())
    assert values["hit1"] == pytest.approx((first == 1).mean())
    assert values["hit10"] == pytest.approx((first <= 10).mean())
    assert values["comp"] == pytest.approx((nar * (1 - ap)) ** 0.5)
    assert values["queries"] == len(expected)
    assert values["without_positive"] == len(queries) - len(expected)


@pytest.mark.parametrize("seed", range(40))
def test_compat_counts_as_coverhunter_did(seed):
    """Queries with nothing to find count as 0, negative cells vanish, and excluded pairs with them."""
    work, queries, references, distance, excluded = case(seed)
    expected = naive(distance.tolist(), work.tolist(), references.tolist(), queries.tolist(), excluded, compat=True)
    pairs = torch.tensor(sorted(excluded)).reshape(-1, 2).long() if excluded else None
    ranking = Ranking(torch.from_numpy(work), torch.from_numpy(references), pairs, compat=True)
    ranking.add(torch.from_numpy(queries), torch.from_numpy(distance))
    if not any(row["ap"] for row in expected.values()):
        return
    result = ranking.result()
    assert result.values["map"] == pytest.approx(np.mean([row["ap"] for row in expected.values()]))
    assert result.values["mr1"] == pytest.approx(np.mean([row["rank1"] for row in expected.values()]))


def test_compat_looks_at_ten_thousand_ranks():
    tracks = 10_050
    work = torch.arange(tracks)
    work[[1, 2]] = 0  # versions of track 0: one is second, one beyond the horizon
    distance = torch.arange(tracks).float()
    distance[1], distance[2] = 1.5, 99_999.0
    scores = {}
    for compat in (False, True):
        ranking = Ranking(work, torch.arange(tracks), compat=compat)
        ranking.add(torch.tensor([0]), distance[None])
        scores[compat] = ranking.result().values["map"]
    assert scores[True] == pytest.approx(1.0)  # the version at rank 1; the other is not looked for
    assert scores[False] == pytest.approx((1 + 2 / (tracks - 1)) / 2)


def test_a_distance_that_is_no_number_is_refused():
    ranking = Ranking(torch.tensor([0, 0]), torch.tensor([0, 1]))
    with pytest.raises(UserError, match="not a number"):
        ranking.add(torch.tensor([0]), torch.tensor([[0.0, torch.nan]]))


def result_of(works, per_work, seed=0):
    random = torch.Generator().manual_seed(seed)
    count = works * per_work
    ap = torch.rand(count, generator=random, dtype=torch.float64)
    first = torch.randint(1, 30, (count,), generator=random).double()
    per_query = {"ap": ap, "rank1": first, "nar": 50 * ap, "top10": ap}
    work = torch.arange(works).repeat_interleave(per_work)
    return Retrieval(means(per_query), torch.arange(count), work, per_query)


def test_intervals_hold_the_estimate_and_follow_the_seed():
    result = result_of(40, 5)
    found = intervals(result)
    for name in ("map", "hit1", "mr1", "nar"):
        assert found[f"{name}_low"] < result.values[name] < found[f"{name}_high"]
    assert intervals(result) == found
    assert intervals(result, seed=1) != found


def test_intervals_resample_works():
    """Queries of a work that agree make the interval wider than as many independent ones would."""
    result = result_of(20, 1)
    repeated = {name: value.repeat_interleave(25) for name, value in result.per_query.items()}
    wide = Retrieval(result.values, torch.arange(500), result.work.repeat_interleave(25), repeated)
    assert intervals(wide) == pytest.approx(intervals(result))


def test_a_thousand_rounds_over_15000_queries_are_quick():
    result = result_of(3000, 5)
    begin = time.perf_counter()
    intervals(result, rounds=1000)
    assert time.perf_counter() - begin < 5


def test_pictures_get_their_distances():
    work, rows = torch.tensor([0, 0, 1, 1]), torch.arange(4)
    distance = torch.tensor([[0, 1, 5, 6], [2, 0, 7, 8], [5, 7, 0, 3], [6, 8, 3, 0]]).float()
    ranking = Ranking(work, rows)
    ranking.add(rows, distance)
    result = ranking.result()
    within, between = result.within_between()
    assert sorted(within) == [1, 2, 3, 3]
    assert len(between) == 8
    chosen, square = result.square()
    assert chosen.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(square, square.T)
    assert square[0, 1] == 1.5
