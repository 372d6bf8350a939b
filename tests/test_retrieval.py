"""Retrieval over segments against loops over tracks, tempi and ranks."""

import itertools
import os
import subprocess
import sys
import time

import pytest
import torch

from tests.conftest import ROOT
from tonnetz.errors import UserError
from tonnetz.matching import Matching
from tonnetz.metrics.vectors import Segments
from tonnetz.reductions import distances as cells
from tonnetz.reductions import reduce
from tonnetz.retrieval import distances, evaluate

GROUP = [0, 0, 1, 1, 1, 2, -1, 3, 3]  # a work of one recording, and a recording of no known work


def gallery(seed=0, tempi=(1.0,), sizes=(3, 1, 4, 2, 2, 5, 1, 3, 2)):
    """Random segments of nine tracks, as many as `sizes` at every tempo."""
    g = torch.Generator().manual_seed(seed)
    cells = [(row, float(s), tempo) for tempo in tempi for row, size in enumerate(sizes) for s in range(size)]
    row, start, tempo = (torch.tensor(column) for column in zip(*cells, strict=True))
    return Segments(torch.randn(len(cells), 6, generator=g), row, torch.tensor(GROUP)[row], start, tempo)


def naive(found, kind, how):
    """Distance of every two tracks: the queries at all tempi, the references at the tempo nearest to 1."""
    own = min(found.tempi, key=lambda tempo: abs(tempo - 1))

    def take(row, tempo):
        return found.z[(found.row == row) & (found.tempo == tempo)]

    table = torch.empty(9, 9)
    for a, b in itertools.product(range(9), range(9)):
        table[a, b] = min(float(reduce(cells(take(a, t), take(b, own), kind), how)) for t in found.tempi)
    return table


def score(table, queries, references, exclude=()):
    """Mean average precision and hit rate, rank by rank."""
    precision, hits = [], []
    for q in queries:
        if GROUP[q] < 0:
            continue
        answers = [r for r in references if r != q and (q, r) not in exclude]
        answers.sort(key=lambda r: float(table[q, r]))
        ranks = [rank for rank, r in enumerate(answers, 1) if GROUP[r] == GROUP[q]]
        if ranks:
            precision.append(sum(i / rank for i, rank in enumerate(ranks, 1)) / len(ranks))
            hits.append(ranks[0] == 1)
    return sum(precision) / len(precision), sum(hits) / len(hits), len(hits)


@pytest.mark.parametrize("tempi", [(1.0,), (0.8, 1.0, 1.25), (0.75, 1.5)])
@pytest.mark.parametrize(("kind", "how"), [("cosine", "min"), ("euclidean", "smeanmin"), ("squared", "best-2")])
def test_all_against_all(kind, how, tempi):
    found = gallery(tempi=tempi)
    table = naive(found, kind, how)
    rows = torch.arange(9)
    got = list(distances(found, Matching(kind, how), rows, rows, 9))
    torch.testing.assert_close(torch.cat([near for _, near in got]), table, atol=1e-5, rtol=1e-5)
    values = evaluate(found, Matching(kind, how)).values
    ap, hit, count = score(table, range(9), range(9))
    assert (values["map"], values["hit1"]) == pytest.approx((ap, hit))
    assert (values["queries"], values["without_positive"]) == (count, 1)


def test_lists_say_who_asks_and_answers():
    found = gallery(1)
    queries, references, exclude = [0, 3, 4, 6, 8], [1, 2, 4, 5, 7, 3], {(3, 2), (0, 5), (4, 1)}
    result = evaluate(
        found,
        Matching(),
        queries=torch.tensor(queries),
        references=torch.tensor(references),
        exclude=torch.tensor(sorted(exclude)),
    )
    ap, hit, count = score(naive(found, "cosine", "min"), queries, references, exclude)
    assert (result.values["map"], result.values["hit1"]) == pytest.approx((ap, hit))
    assert result.values["queries"] == count


@pytest.mark.parametrize("size", [1, 2, 4])
def test_blocks_do_not_matter(monkeypatch, size):
    found = gallery(2, (0.9, 1.0))
    whole = evaluate(found, Matching("cosine", "meanmin")).values
    monkeypatch.setattr("tonnetz.retrieval.block_size", lambda *_: size)
    assert evaluate(found, Matching("cosine", "meanmin")).values == pytest.approx(whole)


def test_lists_may_name_tracks_that_were_not_read():
    whole = gallery(3)
    some = whole.row < 7  # as when a test is limited to a few batches
    found = Segments(whole.z[some], whole.row[some], whole.group[some], whole.start[some], whole.tempo[some])
    plain = evaluate(found, Matching()).values
    rows = torch.arange(9)
    listed = evaluate(found, Matching(), queries=rows, references=rows, exclude=torch.tensor([[0, 8], [8, 1]])).values
    for name in ("map", "hit1", "mrr", "queries"):
        assert listed[name] == pytest.approx(plain[name])


def test_intervals_come_with_rounds():
    values = evaluate(gallery(4), Matching(), rounds=50).values
    assert values["map_low"] <= values["map"] <= values["map_high"]


def test_mistakes():
    found = gallery(5)
    found.z[3, 2] = torch.nan
    with pytest.raises(UserError, match="not finite"):
        evaluate(found, Matching())
    lonely = gallery(6)
    lonely.group = lonely.row
    with pytest.raises(UserError, match="nothing to find"):
        evaluate(lonely, Matching())


def test_compat_drops_what_rounding_puts_below_zero():
    """An exact copy of another work has a distance of about -1e-8: CoverHunter took it for an excluded one."""
    z = torch.nn.functional.normalize(torch.randn(4, 64, generator=torch.Generator().manual_seed(0)), dim=1)
    z[1] = z[0]  # a copy that belongs to another work
    z[2] = z[0] + 0.05 * z[2]
    row = torch.arange(4)
    found = Segments(z * 1.0000001, row, torch.tensor([0, 1, 0, 1]), torch.zeros(4), torch.ones(4))
    cells = Matching(clamp=False)(z[:, None], z[:, None])
    standard, compat = evaluate(found, Matching()), evaluate(found, Matching(), compat=True)
    first = standard.per_query["rank1"][standard.query == 0]
    assert first == 2  # the copy stands before the version
    expected = 1 if cells[0, 1] < 0 else 2
    assert compat.per_query["rank1"][compat.query == 0] == expected


def test_excerpts_of_queries():
    """A query that holds its work in its middle alone is found when only its middle asks."""
    random = torch.Generator().manual_seed(1)
    z = torch.randn(4, 9, 32, generator=random)
    z[1, 4] = z[0, 4]  # versions share their middle
    z[3, 4] = z[2, 4]
    row = torch.arange(4).repeat_interleave(9)
    start = torch.arange(9.0).repeat(4)
    found = Segments(z.flatten(0, 1), row, row // 2, start, torch.ones(36))
    everything = evaluate(found, Matching("cosine", "mean"))
    middle = evaluate(found, Matching("cosine", "mean"), seconds=(1.0, 1.0))
    assert middle.values["map"] == 1.0
    assert middle.distance[0, 1] < 1e-5 < everything.distance[0, 1]


def test_five_thousand_recordings_of_three_chunks():
    """All pairs and every metric within bounded blocks; some rows equal the definition."""
    tracks, g = 5000, torch.Generator().manual_seed(0)
    row = torch.arange(tracks).repeat_interleave(3)
    work = torch.arange(tracks) // 5
    z = torch.randn(tracks // 5, 32, generator=g)[work][row] + torch.randn(len(row), 32, generator=g)
    found = Segments(z, row, work[row], torch.arange(3.0).repeat(tracks), torch.ones(len(row)))
    begin = time.process_time()
    result = evaluate(found, Matching("cosine", "min"))
    assert time.process_time() - begin < 30  # of one core
    assert result.values["queries"] == tracks
    unit = torch.nn.functional.normalize(z, dim=1)
    for q in (0, 17, 4999):
        near = (1 - unit[row == q] @ unit.T).amin(0).view(tracks, 3).amin(1)
        near[q] = torch.inf
        rank = 1 + near.argsort().argsort()[(work == work[q]) & (torch.arange(tracks) != q)].sort().values
        expected = float((torch.arange(1, 5) / rank).mean())
        assert float(result.per_query["ap"][q]) == pytest.approx(expected, abs=1e-4)


PEAK = """
import resource, torch
from tonnetz.matching import Matching
from tonnetz.metrics.vectors import Segments
from tonnetz.retrieval import evaluate

def peak(tracks):
    row = torch.arange(tracks).repeat_interleave(3)
    z = torch.randn(len(row), 32, generator=torch.Generator().manual_seed(0))
    found = Segments(z, row, row // 5, torch.arange(3.0).repeat(tracks), torch.ones(len(row)))
    evaluate(found, Matching("cosine", "min"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

print(-peak(50) + peak(5000))
"""


def test_memory_is_bounded_by_a_block():
    """The distances of all segments of 5,000 recordings at once would be 900 MB."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PEAK], capture_output=True, text=True, env=env, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) / 1024 < 600
