"""Segments of cover-song identification: where they are cut, which count, what they hold."""

from types import SimpleNamespace

import pytest
import torch

from tests.test_config import composed
from tonnetz.build import build_task, connect
from tonnetz.errors import UserError
from tonnetz.segments import cut
from tonnetz.tracks import DataSpec

SPEC = DataSpec(classes=(), positives=(), known=(), families=(), groups=("a", "b"))
RATE = 16000 / 1920  # frames a second of cqt_coverhunter


def task(*words):
    torch.manual_seed(0)
    config = composed("task=csi", "task.plan.seconds=20", "model.dropout=0", *words)
    return build_task(config, connect(config.frontend), SPEC).eval()


def batch(frames=150, lengths=(150, 90, 20), tempo=None):
    g = torch.Generator().manual_seed(1)
    features = -60 * torch.rand(len(lengths), 1, 96, frames, generator=g)
    made = {
        "features": features,
        "lengths": torch.tensor(lengths),
        "row": torch.arange(len(lengths)),
        "group": torch.tensor([0, 0, 1])[: len(lengths)],
        "start": torch.tensor([0.0, 7.5, 30.0])[: len(lengths)],
    }
    return made | ({} if tempo is None else {"tempo": torch.full((len(lengths),), tempo)})


@pytest.mark.parametrize(("segment", "hop"), [(3.0, None), (3.0, 1.0), (2.2, 0.4), (0.01, 0.01), (50.0, 2.0)])
@pytest.mark.parametrize("frames", [1, 7, 40])
def test_cut_against_a_loop(segment, hop, frames):
    rate, lengths = 2.5, [frames, max(1, frames // 2), 1]
    x = torch.randn(3, frames, 2, 4)
    parts, valid, seconds = cut(x, torch.tensor(lengths), rate, segment, hop)
    size, step = max(1, round(segment * rate)), max(1, round((hop or segment) * rate))
    torch.testing.assert_close(seconds, (torch.arange(parts.shape[1]) * step / rate).expand(3, -1))
    starts = range(0, max(frames - size, 0) + 1, step)
    assert parts.shape == (3, len(starts), size, 2, 4)
    for b in range(3):
        for s, start in enumerate(starts):
            for k in range(size):
                assert torch.equal(parts[b, s, k], x[b, min(start + k, frames - 1)])
            assert bool(valid[b, s]) == (s == 0 or start + size <= lengths[b])


@pytest.mark.parametrize("model", ["key_equivariant", "tiny"])
@pytest.mark.parametrize("where", ["frames", "input"])
def test_a_segment_holds_its_seconds(model, where):
    made = task(f"model={model}", "task.transpositions=1", f"task.cut={where}", "task.segment_hop=0.96")
    items = batch()
    with torch.no_grad():
        z, valid, start = made.segments(items)
        rate = made.encoder.rate if where == "frames" else RATE
        size, step = round(3.84 * rate), round(0.96 * rate)
        h, _ = made.encoder.encode(items["features"], items["lengths"])
        for b, length in enumerate(items["lengths"].tolist()):
            have = -(-length // 4) if where == "frames" else length
            steps = 1 + (h.shape[1] - size if where == "frames" else 150 - size) // step
            assert valid[b, :steps].tolist() == [s == 0 or s * step + size <= have for s in range(steps)]
            left = have > size and have < (h.shape[1] if where == "frames" else 150) and (have - size) % step > 0
            assert valid[b, steps:].tolist() == [left] * (z.shape[1] - steps)  # the tail of a short example
            if left:
                assert float(start[b, -1]) == pytest.approx(float(items["start"][b]) + (have - size) / rate)
            for s in valid[b, :steps].nonzero()[:, 0].tolist():
                assert float(start[b, s]) == pytest.approx(float(items["start"][b]) + s * step / rate)
                if have < size:
                    continue
                first = slice(s * step, s * step + size)
                if where == "frames":
                    expected = made.pooling(h[b : b + 1, first])
                else:
                    x = items["features"][b : b + 1, ..., first]
                    expected = made.pooling(made.encoder.encode(x, torch.tensor([size]))[0])
                torch.testing.assert_close(z[b, s], expected[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("words", [[], ["task.cut=input"], ["task.segment=null", "pooling=mean"]])
def test_neighbours_and_padding_do_not_matter(words):
    made, items = task("task.segment_hop=0.96", *words), batch()
    with torch.no_grad():
        z, valid, _ = made.segments(items)
        for b, length in enumerate(items["lengths"].tolist()):
            one = {key: value[b : b + 1] for key, value in items.items()}
            one["features"] = one["features"][..., :length]
            alone, _, _ = made.segments(one)
            many = min(int(valid[b].sum()), alone.shape[1])  # the last may be a tail that an example alone has not
            torch.testing.assert_close(z[b, valid[b]][:many], alone[0][:many], atol=1e-5, rtol=1e-4)
        mean = torch.stack([z[b, valid[b]].mean(0) for b in range(3)])
        torch.testing.assert_close(made.embed(items), mean)


def test_starts_are_seconds_of_the_recording_at_any_tempo():
    made = task()
    _, _, plain = made.segments(batch())
    _, _, slow = made.segments(batch(tempo=0.8))
    begin = batch()["start"][:, None]
    torch.testing.assert_close(slow - begin, 0.8 * (plain - begin))


def test_training_has_a_hop_of_its_own():
    made = task("task.segment_hop=0.96", "task.train_hop=1.92")
    with torch.no_grad():
        whole = batch(lengths=(150, 150, 150))
        few, many = made.train().segments(whole)[0].shape[1], made.eval().segments(whole)[0].shape[1]
    assert few == (many + 1) // 2


def test_an_excerpt_holds_so_many_seconds_of_sound():
    """Vectors that begin within them would reach beyond."""
    words = ["task.query_seconds=30", "task.reference_seconds=5"]
    for made, expected in (
        (task(*words), (30 - 3.84, 5 - 3.84)),
        (task(*words, "task.segment=null", "pooling=mean"), (10.0, 0.0)),
        (task("task.segment=null", "pooling=mean"), (None, None)),
    ):
        made.data = SimpleNamespace(plan=SimpleNamespace(span=20.0))
        assert made.excerpts() == pytest.approx(expected)


def test_projection_and_norm():
    made = task("task.dim=17", "task.norm=true", "task.transpositions=1", "loss=best_matches")
    assert made.dim == 17
    assert made.segments(batch())[0].shape[-1] == 17
    assert [type(layer).__name__ for layer in made.projection] == ["BatchNorm1d", "Linear"]
    assert made.projection[1].bias is None
    assert task().dim == 96


def test_another_key_is_no_distance():
    """Music in another key: vectors turn, the matching tries keys, and the distance stays nearly nothing."""
    made = task("task.transpositions=12", "task.reduction=meanmin")
    items = batch(lengths=(150,))
    items["features"][:, :, :24] = items["features"][:, :, 60:] = -90.0
    other = {**items, "features": items["features"].roll(5, 2)}
    with torch.no_grad():
        a, b = made(items), made(other)
        near, far = made.matching(a, b), task("task.transpositions=1", "task.reduction=meanmin").matching(a, b)
    assert float(near) < 0.3 * float(far)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["task.cut=output"], r"task\.cut=output: known are"),
        (["loss=ce"], "needs a loss on vectors"),
        (["task.transpositions=13"], "need 1 to 12"),
        (["task.transpositions=0"], "need 1 to 12"),
        (["task.dim=8", "task.transpositions=3"], "no projection"),
        (["model=tiny", "task.transpositions=3"], "model=key_equivariant"),
        (["task.distance=manhattan"], "manhattan"),
        (["task.reduction=bast-3"], "bast-3"),
    ],
)
def test_mistakes(words, message):
    with pytest.raises(UserError, match=message):
        task(*words)


@pytest.mark.parametrize("length", [20, 39, 40, 55, 60])
def test_an_example_that_ends_between_steps_gets_a_last_segment(length):
    x = torch.arange(60.0)[None, :, None]
    parts, valid, place = cut(x, torch.tensor([length]), 1.0, 20.0, 20.0, tail=True)
    first = parts[0, valid[0], 0, 0]
    assert first.tolist() == place[0, valid[0]].tolist()
    ends = set((first + 20).tolist())
    assert max(ends) == length  # nothing is left out
    assert (parts[0, valid[0], -1, 0] == first + 19).all()
