"""The store of predictions: order, repeats, batch sizes, one-element results, uneven processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from sklearn.metrics import average_precision_score, f1_score
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from tonnetz.metrics.classification import per_row, score
from tonnetz.metrics.store import Scores


def windows(count: int = 37, classes: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Windows of 11 rows in order of (row, start): prob, target, row, start."""
    g = torch.Generator().manual_seed(0)
    row = torch.randint(11, (count,), generator=g).sort().values * 7
    start = torch.arange(count) * 0.5
    label = (torch.rand(78, classes, generator=g) < 0.5).float()
    label[torch.rand(78, classes, generator=g) < 0.2] = torch.nan
    return torch.rand(count, classes, generator=g), label[row], row, start


def same(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(x.nan_to_num(-1), y.nan_to_num(-1)) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("size", [1, 3, 16, 100])
def test_result_does_not_depend_on_batch_size_order_or_repeats(size: int) -> None:
    data = windows()
    order = torch.randperm(37, generator=torch.Generator().manual_seed(1))
    order = torch.cat([order, order[:5]])  # as a padding sampler repeats the first items
    store = Scores(3)
    for chunk in order.split(size):
        store.update(*(x[chunk] for x in data))
    assert same(tuple(store.compute()), data)
    assert len(store.compute()) == 37
    store.reset()
    store.update(*(x[:2] for x in data))
    assert len(store.compute()) == 2


@pytest.mark.parametrize("size", [1, 3, 16])
def test_metrics_of_chunks_equal_sklearn_on_all_rows(size: int) -> None:
    data = windows()
    store = Scores(3)
    for chunk in torch.arange(37).split(size):
        store.update(*(x[chunk] for x in data))
    prob, target, _ = per_row(*tuple(store.compute())[:3], how="max")
    numbers, classes = score(prob, target)
    f1 = []
    for k in range(3):
        best: dict[int, float] = {}
        label: dict[int, float] = {}
        for p, y, row in zip(data[0][:, k].tolist(), data[1][:, k].tolist(), data[2].tolist(), strict=True):
            if y == y:
                best[row], label[row] = max(p, best.get(row, 0.0)), y
        truth, values = list(label.values()), [best[row] for row in label]
        f1.append(f1_score(truth, [v >= 0.5 for v in values], zero_division=0))
        assert classes["ap"][k].item() == pytest.approx(average_precision_score(truth, values))
    assert numbers["macro_f1"] == pytest.approx(sum(f1) / 3)


def test_one_window_of_one_class_keeps_its_shape() -> None:
    store = Scores(1)
    store.update(torch.ones(1, 1), torch.ones(1, 1), torch.tensor([4]), torch.tensor([0.5]))
    assert [tuple(x.shape) for x in store.compute()] == [(1, 1), (1, 1), (1,), (1,)]
    assert store.compute()["row"].tolist() == store.compute().row.tolist() == [4]


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_works_empty_and_after_an_empty_batch() -> None:
    store = Scores(3)
    assert [tuple(x.shape) for x in store.compute()] == [(0, 3), (0, 3), (0,), (0,)]
    store.update(*(x[:0] for x in windows()))
    assert len(store.compute()) == 0
    store.update(*windows())
    assert same(tuple(store.compute()), windows())


def test_keeps_no_graph_no_half_precision_and_no_state_dict() -> None:
    store = Scores(3)
    prob, target, row, start = windows()
    store.update(prob.bfloat16().requires_grad_(), target, row.int(), start.double())
    result = store.compute()
    assert not result.prob.requires_grad
    assert [x.dtype for x in result] == [torch.float32, torch.float32, torch.int64, torch.float32]
    assert not store.state_dict()


def share(rank: int, folder: str, firsts: tuple[int, ...]) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    data = windows()
    for first in firsts:
        mine = torch.arange(first) if rank == 0 else torch.arange(max(0, first - 3), 37)  # 3 windows twice
        store = Scores(3)
        for chunk in mine.split(4):
            store.update(*(x[chunk] for x in data))
        result = tuple(store.compute())
        local = sum(len(x) for x in store.row)
        torch.save((result, local == len(mine)), f"{folder}/{first}-{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_two_processes_of_uneven_size_equal_one(tmp_path: Path) -> None:
    firsts = (0, 10, 35)  # windows of the first process
    spawn(share, (str(tmp_path), firsts), nprocs=2)
    for path in [tmp_path / f"{first}-{rank}.pt" for first in firsts for rank in range(2)]:
        result, unsynced = torch.load(path, weights_only=True)
        assert same(result, windows())
        assert unsynced  # afterwards a process holds its own windows again
