"""Gathered segments: each once, in the order of tempo, track and time."""

import torch

from tonnetz.metrics.vectors import Segments, Vectors


def test_segments_are_distinct_and_sorted():
    g = torch.Generator().manual_seed(0)
    cells = [(tempo, row, start) for tempo in (0.9, 1.1) for row in (0, 2, 5) for start in (0.0, 1.5, 3.25, 7.0)]
    order = torch.randperm(len(cells), generator=g).tolist()
    seen = order + order[:7]  # some come twice, as from a padded sampler
    z = torch.randn(len(cells), 4, generator=g)
    metric = Vectors(4)
    for begin in range(0, len(seen), 5):
        some = seen[begin : begin + 5]
        tempo, row, start = (torch.tensor(column) for column in zip(*(cells[i] for i in some), strict=True))
        metric.update(z[some], row, row * 10, start, tempo)
    found = metric.compute()
    assert len(found) == len(cells)
    torch.testing.assert_close(found.z, z)
    columns = (x.tolist() for x in (found.tempo, found.row, found.start))
    assert [(round(tempo, 2), row, start) for tempo, row, start in zip(*columns, strict=True)] == cells
    assert torch.equal(found.group, found.row * 10)
    assert [round(tempo, 2) for tempo in found.tempi] == [0.9, 1.1]
    slow = found.at(0.9)
    torch.testing.assert_close(slow.z, z[:12])
    assert slow.row.tolist() == found.row[:12].tolist()


def test_without_segments_there_is_an_empty_answer():
    metric = Vectors(3)
    assert metric.compute().z.shape == (0, 3)
    metric.update(torch.ones(2, 3), torch.arange(2), torch.zeros(2), torch.zeros(2), torch.ones(2))
    assert len(metric.compute()) == 2
    metric.reset()
    assert len(metric.compute()) == 0


def test_vectors_are_kept_without_gradient_in_single_precision():
    metric = Vectors(3)
    z = torch.ones(1, 3, dtype=torch.bfloat16, requires_grad=True)
    metric.update(z, torch.tensor([3]), torch.tensor([1]), torch.tensor([0.5], dtype=torch.float64), torch.ones(1))
    found = metric.compute()
    assert (found.z.dtype, found.z.requires_grad, found.row.dtype) == (torch.float32, False, torch.int64)


def test_the_middle_of_every_track():
    """So many seconds around the middle of each track; of a short one at least the nearest segment."""
    row = torch.tensor([0] * 11 + [1] * 2)
    start = torch.cat([torch.arange(11.0), torch.tensor([0.0, 7.0])])
    found = Segments(torch.randn(13, 4), row, row, start, torch.ones(13)).middle(4.0, 2)
    assert found.start[found.row == 0].tolist() == [3, 4, 5, 6, 7]
    assert found.start[found.row == 1].tolist() == [0]  # both as near: one is what was asked for
    assert len(found.z) == len(found)
