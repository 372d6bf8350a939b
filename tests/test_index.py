"""The index: search equals a naive loop, growing never embeds twice, nothing is ever half written."""

import json
import sys
import zlib
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn import functional as F

from tonnetz import calibration as measuring
from tonnetz import index as module
from tonnetz import search as searching
from tonnetz import shortlist as shortlisting
from tonnetz.calibration import SHORT
from tonnetz.data.plan import Plan
from tonnetz.embedding import embed_batches, step_of
from tonnetz.errors import UserError
from tonnetz.index import Index, weights_fingerprint
from tonnetz.reductions import distances, reduce
from tonnetz.search import nearest_tempo, pair_distances, search, similarities, track_distances
from tonnetz.shortlist import Shortlist
from tonnetz.transposition import transpose

FACTS = {
    "encoder": "e1",
    "frontend": "f1",
    "window": 15.0,
    "hop": 5.0,
    "pad": "zero",
    "normalize": True,
    "distance": "cosine",
    "reduction": "min",
}


def tracks(works, seed=0):
    """A table of recordings; `works` names the work of each."""
    ids = [f"r{seed}-{i}" for i in range(len(works))]
    columns = {"id": ids, "path": [f"/x/{i}.wav" for i in ids], "work": works, "mark": ["1"] * len(ids)}
    return pl.DataFrame(columns, schema_overrides={"work": pl.String}).with_columns(duration=pl.lit(60.0))


class Embedder:
    """Vectors from the name of the work, with noise from the id; counts what it was asked for."""

    def __init__(self, dim=16, noise=0.5, most=5, broken=(), stop_after=None):
        self.dim, self.noise, self.most, self.broken, self.stop_after = dim, noise, most, broken, stop_after
        self.asked = []

    def __call__(self, table):
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        self.asked += table["id"].to_list()
        parts = []
        for i, (name, work) in enumerate(table.select("id", "work").rows()):
            if name in self.broken:
                continue
            vectors = self.vectors(name, work)
            parts.append((vectors, torch.full((len(vectors),), i), 5.0 * torch.arange(len(vectors))))
        if not parts:
            row, empty = torch.zeros(0, dtype=torch.long), torch.zeros(0)
            return {"vectors": torch.zeros(0, self.dim), "row": row, "start": empty, "length": empty}
        vectors, row, start = (torch.cat(values) for values in zip(*parts, strict=True))
        return {"vectors": vectors, "row": row, "start": start, "length": torch.full((len(row),), 15.0)}

    def vectors(self, name, work):
        own = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        of_work = torch.Generator().manual_seed(zlib.crc32(str(work).encode()) + 1)
        count = int(torch.randint(1, self.most + 1, (1,), generator=own))
        centre = torch.randn(self.dim, generator=of_work) if work else torch.randn(self.dim, generator=own)
        return 3 * (centre + self.noise * torch.randn(count, self.dim, generator=own))


@pytest.fixture
def works():
    return [f"w{i % 9}" for i in range(40)]


@pytest.fixture
def built(tmp_path, works):
    index = Index(tmp_path / "index", FACTS)
    index.add(tracks(works), Embedder())
    return index


def naive(index, query):
    """Distances of one query (S, D) to every recording, one by one."""
    kind, how = index.facts["distance"], index.facts["reduction"]
    result = []
    for r in range(len(index)):
        mine = torch.from_numpy(index.windows.row == r)
        vectors = index.windows.vectors[mine] * index.windows.norms[mine][:, None]
        result.append(reduce(distances(query, vectors, kind), how))
    return torch.stack(result)


@pytest.mark.parametrize("kind", ["cosine", "euclidean", "squared"])
@pytest.mark.parametrize("how", ["min", "meanmin", "smeanmin", "best-3", "bpwr-3"])
def test_search_equals_the_naive_loop(tmp_path, works, kind, how):
    index = Index(tmp_path / "index", {**FACTS, "distance": kind, "reduction": how})
    index.add(tracks(works), Embedder())
    lengths = [1, 3, 7]
    queries = torch.zeros(3, 7, 16)
    valid = torch.arange(7) < torch.tensor(lengths)[:, None]
    queries[valid] = torch.randn(11, 16, generator=torch.Generator().manual_seed(1))
    expected = torch.stack([naive(index, q[:n]) for q, n in zip(queries, lengths, strict=True)])
    np.testing.assert_allclose(track_distances(index, queries, valid), expected, atol=2e-5)
    found = search(index, queries, valid, top=4)
    best = expected.sort(1)
    np.testing.assert_allclose(found.distance, best.values[:, :4], atol=2e-5)
    np.testing.assert_array_equal(found.place, best.indices[:, :4])
    query, row = np.array([0, 2, 1, 2]), np.array([5, 5, 39, 0])
    np.testing.assert_allclose(pair_distances(index, queries, valid, query, row), expected[query, row], atol=2e-5)


@pytest.mark.parametrize("how", ["min", "bpwr-2"])
def test_blocks_change_nothing(built, monkeypatch, how):
    built.match_by(how)
    queries = torch.randn(6, 3, 16)
    whole = track_distances(built, queries)
    monkeypatch.setattr(searching, "CELLS", 100)
    np.testing.assert_allclose(track_distances(built, queries), whole, atol=1e-6)


def test_works_are_ranked_by_their_nearest_recording(built):
    queries = torch.randn(5, 2, 16)
    table = track_distances(built, queries)
    found = search(built, queries, top=20, mode="works")
    code = built.work
    for q in range(5):
        best = {c: min(table[q, code == c].tolist()) for c in range(9)}
        order = sorted(best, key=best.get)
        assert code[found.place[q, :9]].tolist() == order
        np.testing.assert_allclose(found.distance[q, :9], [best[c] for c in order], atol=1e-6)
        assert (found.place[q, 9:] == -1).all()
        assert np.isinf(found.distance[q, 9:]).all()


def test_recordings_of_unknown_work_stand_for_themselves(tmp_path):
    index = Index(tmp_path / "index", FACTS)
    index.add(tracks(["a", None, None, "a", "b"]), Embedder())
    assert index.work.tolist() == [0, -1, -1, 0, 1]
    found = search(index, torch.randn(1, 1, 16), mode="works")
    assert len(set(found.place[0].tolist()) - {-1}) == 4


def test_it_comes_back_as_it_was(built):
    again = Index.open(built.folder)
    assert again.table.equals(built.table)
    for name in ("vectors", "norms", "start", "length", "tempo"):
        assert torch.equal(again.arrays[name], built.arrays[name])
    assert again.facts == built.facts
    assert set(again.nulls) == {"null_level", "null_pairs", "null_nearest", "null_kin"}
    np.testing.assert_allclose(again.windows.vectors.norm(dim=1), 1, atol=1e-6)
    assert again.windows.norms.min() > 3


def test_adding_embeds_nothing_twice(built, works):
    more = Embedder()
    both = pl.concat([tracks(works), tracks(["w1", "new"], seed=1)])
    assert built.add(both, more) == {"added": 2, "kept": 40, "left out": 0, "moved": 0}
    assert more.asked == ["r1-0", "r1-1"]
    assert len(Index.open(built.folder)) == 42
    changed = both.with_columns(mark=pl.when(pl.col("id") == "r0-3").then(pl.lit("2")).otherwise("mark"))
    again = Embedder()
    built.add(changed, again)
    assert again.asked == ["r0-3"]
    assert len(built) == 42
    assert built.table.filter(pl.col("id") == "r0-3")["mark"].to_list() == ["2"]
    np.testing.assert_array_equal(np.bincount(built.row), built.table["windows"])


def test_the_order_of_adding_does_not_matter(built, works, tmp_path):
    other = Index(tmp_path / "other", FACTS)
    table = tracks(works)
    other.add(table[20:], Embedder())
    other.add(table[:20], Embedder())
    query = torch.randn(1, 3, 16)
    one, two = search(built, query, top=40), search(other, query, top=40)
    np.testing.assert_allclose(one.distance, two.distance, atol=1e-6)
    assert built.table["id"].gather(one.place[0]).to_list() == other.table["id"].gather(two.place[0]).to_list()


def test_a_new_spreadsheet_moves_recordings(built, works):
    embed = Embedder()
    renamed = tracks(["other", *works[1:]])
    assert built.add(renamed, embed)["moved"] == 1
    assert embed.asked == []
    assert Index.open(built.folder).table["work"][0] == "other"


def test_two_corpora_may_have_works_and_ids_of_one_name(tmp_path):
    index = Index(tmp_path / "index", FACTS)
    one = tracks(["0001", "0002", None]).with_columns(corpus=pl.lit("one"))
    two = tracks(["0001", "0003", None]).with_columns(corpus=pl.lit("two"), id=pl.Series(["r0-0", "x", "y"]))
    index.add(index.distinct(one), Embedder())
    assert index.works == ["0001", "0002"]  # one corpus keeps its names
    index.add(index.distinct(two), Embedder())
    assert index.works == ["0001", "0002", "0003", "two/0001"]
    assert index.table["id"].to_list() == ["r0-0", "r0-1", "r0-2", "two/r0-0", "x", "y"]
    again, embed = Index.open(index.folder), Embedder()
    for table in (one, two):
        counts = again.add(again.distinct(table), embed)
        assert counts == {"added": 0, "kept": 3, "left out": 0, "moved": 0}
    assert embed.asked == []
    by_hand = tracks(["0001"], seed=7)  # a spreadsheet means what it says
    again.add(again.distinct(by_hand.with_columns(corpus=pl.lit(None, pl.String))), embed)
    assert again.works == ["0001", "0002", "0003", "two/0001"]


def test_a_corpus_that_has_moved_is_the_same(tmp_path):
    index = Index(tmp_path / "index", FACTS)

    def corpus(name, seconds, count=4):
        table = tracks([f"000{i // 2}" for i in range(count)])
        return table.with_columns(
            corpus=pl.lit(name), path=pl.concat_str(pl.lit(f"/{name}/"), "id"), duration=pl.Series(seconds[:count])
        )

    index.add(index.distinct(corpus("one", [60.0, 50.0, 40.0, 30.0])), Embedder())
    index.add(index.distinct(corpus("two", [61.0, 51.0, 41.0, 31.0])), Embedder())  # other works, of the same names
    assert index.works == ["0000", "0001", "two/0000", "two/0001"]
    embed = Embedder()
    for name, seconds in (("one", [60.0, 50.0, 40.0, 30.0, 20.0, 10.0]), ("two", [61.0, 51.0, 41.0, 31.0])):
        moved = corpus(f"{name}-moved", seconds, len(seconds))  # one of them has grown
        counts = index.add(index.distinct(moved), embed)
        assert counts == {"added": len(seconds) - 4, "kept": 4, "left out": 0, "moved": 4}
    assert embed.asked == ["r0-4", "r0-5"]
    assert Index.open(index.folder).works == ["0000", "0001", "0002", "two/0000", "two/0001"]
    paths = dict(index.table.select("id", "path").rows())
    assert paths["r0-0"] == "/one-moved/r0-0"
    assert paths["two/r0-0"] == "/two-moved/r0-0"


def test_an_index_without_corpora_is_read(built, works):
    path = built.folder / "tracks-1.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({k: v for k, v in line.items() if k != "corpus"}) + "\n" for line in lines))
    old = Index.open(built.folder)
    assert old.add(tracks(works), Embedder())["kept"] == 40
    assert old.table["corpus"].null_count() == 40


def test_remove_by_id_path_or_work(built):
    size = (built.table["work"] == "w3").sum()
    assert built.remove(["w3"]) == size
    assert built.remove(["r0-0", "/x/r0-1.wav"]) == 2
    again = Index.open(built.folder)
    assert len(again) == 40 - size - 2
    assert len(again.windows.vectors) == again.table["windows"].sum()
    name = again.table["id"][5]
    np.testing.assert_allclose(
        again.windows.vectors[again.windows.first[5]],
        F.normalize(Embedder().vectors(name, again.table["work"][5])[0], dim=0),
        atol=1e-6,
    )
    with pytest.raises(UserError, match=r"w44: no such recording or work in .*; near ones: w4$"):
        built.remove(["w44"])
    with pytest.raises(UserError, match=r"5\.waw: no .*; near ones: /x/r0-5\.wav$"):
        built.remove(["5.waw"])
    with pytest.raises(UserError, match=r"something else: no such recording or work in \S+$"):
        built.remove(["something else"])
    built.remove(again.table["id"].to_list())
    empty = Index.open(built.folder)
    assert len(empty) == 0
    with pytest.raises(UserError, match="the index is empty"):
        search(empty, torch.randn(1, 1, 16))
    empty.add(tracks(["a", "b"], seed=9), Embedder())
    assert len(Index.open(built.folder)) == 2


def test_an_interrupted_run_goes_on(tmp_path, works, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 8)
    index = Index(tmp_path / "index", FACTS)
    with pytest.raises(KeyboardInterrupt):
        index.add(tracks(works), Embedder(stop_after=24))
    with pytest.raises(UserError, match="no index here"):
        Index.open(tmp_path / "index")
    (tmp_path / "index" / "pending" / "half.safetensors.99.part").write_bytes(b"cut off")
    rest = Embedder()
    assert index.add(tracks(works), rest)["added"] == 40
    assert len(rest.asked) == 16
    whole = Index(tmp_path / "whole", FACTS)
    whole.add(tracks(works), Embedder())
    again = Index.open(tmp_path / "index")
    found = {name: again.windows.vectors[again.row == i] for i, name in enumerate(again.table["id"])}
    for i, name in enumerate(whole.table["id"]):
        assert torch.equal(found[name], whole.windows.vectors[whole.row == i])
    assert sorted(p.name for p in again.folder.iterdir()) == ["meta.json", "tracks-1.jsonl", "vectors-1.safetensors"]


def test_killed_while_writing_the_old_index_stands(built, monkeypatch):
    before = Index.open(built.folder)

    def cut(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_json", cut)
    with pytest.raises(KeyboardInterrupt):
        built.add(tracks(["w1"], seed=5), Embedder())
    monkeypatch.undo()
    again = Index.open(built.folder)
    assert again.table.equals(before.table)
    rest = Embedder()
    assert again.add(tracks(["w1"], seed=5), rest)["added"] == 1
    assert rest.asked == []


def test_what_cannot_be_embedded_is_left_out(tmp_path, works):
    index = Index(tmp_path / "index", FACTS)
    assert index.add(tracks(works), Embedder(broken=("r0-7", "r0-8")))["left out"] == 2
    assert "r0-7" not in index.table["id"].to_list()
    nothing = Index(tmp_path / "nothing", FACTS)
    assert nothing.add(tracks(["a"]), Embedder(broken=("r0-0",)))["added"] == 0
    assert not (tmp_path / "nothing" / "meta.json").exists()


def test_nan_vectors_and_doubled_ids_are_refused(tmp_path):
    index = Index(tmp_path / "index", FACTS)

    def bad(table):
        found = Embedder()(table)
        return {**found, "vectors": found["vectors"] * torch.nan}

    with pytest.raises(UserError, match=r"/x/r0-0.wav: its embedding holds NaN"):
        index.add(tracks(["a"]), bad)
    with pytest.raises(UserError, match="r0-0: this recording is given twice"):
        index.add(pl.concat([tracks(["a"])] * 2), Embedder())


def test_another_model_is_refused(built):
    built.check("e1", "f1")
    with pytest.raises(UserError, match="was made with encoder e1, the checkpoint's is e2"):
        built.check("e2", "f1")
    with pytest.raises(UserError, match="was made with frontend f1"):
        built.check("e1", "f2")


def test_broken_folders_are_one_line(built, tmp_path):
    with pytest.raises(UserError, match="no index here"):
        Index.open(tmp_path / "none")
    meta = json.loads((built.folder / "meta.json").read_text())
    (built.folder / "vectors-1.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match="cannot be read"):
        Index.open(built.folder)
    (built.folder / "meta.json").write_text(json.dumps({**meta, "format": 99}))
    with pytest.raises(UserError, match="format 99"):
        Index.open(built.folder)
    (built.folder / "meta.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        Index.open(built.folder)


def test_bad_questions(built):
    query = torch.randn(1, 1, 16)
    for top in (0, -1):
        with pytest.raises(UserError, match=f"job.top={top}"):
            search(built, query, top=top)
    assert (search(built, query, top=10**6).place >= 0).sum() == 40
    with pytest.raises(UserError, match="did you mean 'centroids'"):
        search(built, query, mode="centroid")
    with pytest.raises(UserError, match="reduction"):
        Index(built.folder, {**FACTS, "reduction": "nearest"})


def test_centroids_by_definition(built):
    found = built.centroids()
    code = built.work
    for w, name in enumerate(found.works):
        units = []
        for r in np.flatnonzero(code == w):
            mean = built.windows.vectors[built.row == r].mean(0)
            units.append(mean / mean.norm())
        units = torch.stack(units)
        mean = units.mean(0)
        d = 1 - units @ (mean / mean.norm())
        np.testing.assert_allclose(found.vectors[w], mean / mean.norm(), atol=1e-5)
        assert found.coherence[w].item() == pytest.approx(mean.norm().item(), abs=1e-5)
        assert found.radius[w].item() == pytest.approx((d.mean() + 1.5 * d.std(correction=0)).item(), abs=1e-4)
        assert name == f"w{w}"
        assert found.recordings[w] == len(units)
    query = torch.randn(2, 3, 16)
    mean = F.normalize(F.normalize(query, dim=-1).sum(1), dim=-1)
    table = 1 - mean @ found.vectors.T
    got = search(built, query, top=3, mode="centroids")
    np.testing.assert_array_equal(got.place, table.argsort(1)[:, :3])


def test_opposite_recordings_have_no_centre(tmp_path):
    index = Index(tmp_path / "index", FACTS)

    def embed(table):
        vectors = torch.tensor([[1.0, 0], [-1, 0], [0, 2]])[: table.height]
        return {
            "vectors": vectors,
            "row": torch.arange(len(vectors)),
            **{k: torch.zeros(3) for k in ("start", "length")},
        }

    index.add(tracks(["a", "a", "b"]), embed)
    found = index.centroids()
    assert found.coherence.tolist() == [0, 1]
    assert found.vectors.tolist() == [[1, 0], [0, 1]]


def asks(index):
    """The recordings (R,) that are about as long as usual, at least."""
    return index.windows.count >= SHORT * np.median(index.windows.count)


@pytest.mark.parametrize("how", ["min", "bpwr-2"])
def test_calibration_is_of_strangers(tmp_path, works, how):
    index = Index(tmp_path / "index", {**FACTS, "reduction": how})
    index.add(tracks(works), Embedder())
    whole = index.calibration(100)
    table = torch.stack(
        [naive(index, (index.windows.vectors * index.windows.norms[:, None])[index.row == r]) for r in range(40)]
    ).numpy()
    stranger, long = index.work[:, None] != index.work, asks(index)
    assert 0 < long.sum() < 40  # short recordings answer, but do not ask
    assert len(whole.pairs) == np.triu(stranger & (long[:, None] | long)).sum()
    assert np.isin(whole.pairs.round(4), table[long][stranger[long]].round(4)).mean() > 0.95
    np.testing.assert_allclose(whole.nearest, np.sort(np.where(stranger, table, np.inf).min(1)[long]), atol=1e-5)
    same = ~stranger & ~np.eye(40, dtype=bool)
    np.testing.assert_allclose(whole.kin, np.sort(np.where(same, table, np.inf).min(1)[long]), atol=1e-5)
    assert index.nulls["null_level"].tolist() == [0, -1]
    if how == "min":  # one window finds less
        assert index.calibration(1).nearest.mean() > whole.nearest.mean()
        assert index.calibration(2).pairs.mean() >= whole.pairs.mean()
    assert index.calibration(1, "centroids").kin.mean() < index.calibration(1, "centroids").nearest.mean()


def test_the_scale_of_short_queries_is_measured_once(built, monkeypatch):
    found = built.calibration(2)
    (kept,) = built.folder.glob("scale-1-2-min.safetensors")
    with monkeypatch.context() as patch:
        patch.setattr(module, "calibrate", None)  # not called
        again = Index.open(built.folder).calibration(2)
        for name in ("pairs", "nearest", "kin"):
            np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
    other = Index.open(built.folder)
    other.match_by("mean")  # another scale
    assert not np.array_equal(other.calibration(2).nearest, found.nearest)
    kept.write_bytes(b"cut")
    with pytest.raises(UserError, match="scale-1-2-min"):
        Index.open(built.folder).calibration(2)
    built.add(tracks(["w1", "new"], seed=1), Embedder())
    assert not list(built.folder.glob("scale-*"))  # it was of another index


def test_one_work_cannot_be_calibrated(tmp_path):
    index = Index(tmp_path / "index", FACTS)
    index.add(tracks(["a"] * 3), Embedder())
    assert index.calibration(3) is None
    unknown = Index(tmp_path / "unknown", FACTS)
    unknown.add(tracks([None] * 5), Embedder())
    assert unknown.calibration(3) is None
    assert unknown.calibration(1) is None
    assert unknown.calibration(3, "centroids") is None
    one = Index(tmp_path / "one", FACTS)
    one.add(tracks([None, "a", "a", None]), Embedder())
    assert one.calibration(3) is None
    with pytest.raises(UserError, match="no recording has a work"):
        search(unknown, torch.randn(1, 1, 16), mode="centroids")


def test_recordings_of_unknown_work_do_not_calibrate(tmp_path, works):
    """They are versions of the known works here: as strangers they would be far too near."""
    index = Index(tmp_path / "index", FACTS)
    known, secret = Embedder(), Embedder()
    index.add(tracks(works), known)
    alone = index.calibration(100)
    hidden = tracks([None] * 20, seed=1)
    index.add(hidden, lambda rows: secret(rows.with_columns(work=pl.lit("w1"))))
    assert (index.work < 0).sum() == 20
    both = index.calibration(100)
    for name in ("pairs", "nearest", "kin"):
        np.testing.assert_allclose(np.sort(getattr(both, name)).mean(), getattr(alone, name).mean(), atol=0.02)
    np.testing.assert_allclose(both.nearest, alone.nearest, atol=1e-5)
    np.testing.assert_allclose(both.kin, alone.kin, atol=1e-5)


def test_similarities_of_pairs(built):
    queries, valid = torch.randn(2, 4, 16), torch.tensor([[True] * 4, [True] * 2 + [False] * 2])
    cells, key = similarities(built, queries, valid, np.array([0, 1]), np.array([7, 3]))
    assert key.tolist() == [0, 0]
    expected = 1 - distances(queries[1, :2], built.windows.vectors[built.row == 3], clamp=False)
    np.testing.assert_allclose(cells[1][:2, : expected.shape[1]], expected, atol=1e-5)
    assert cells[1].isnan().sum() == cells[1].numel() - expected.numel()


@pytest.mark.parametrize("how", ["min", "meanmin"])
def test_queries_at_several_tempi_take_the_nearest(tmp_path, works, how):
    tempi = [0.8, 1.0, 1.25]
    index = Index(tmp_path / "index", {**FACTS, "reduction": how, "tempi": tempi})
    own = Embedder()

    def paced(table):
        """At another tempo a recording sounds a little different, and has fewer or more windows."""
        parts = []
        for tempo in tempi:
            found = own(table)
            keep = torch.ones(len(found["row"]), dtype=torch.bool)
            if tempo > 1:
                keep = found["start"] < 15  # at least one window
            shift = torch.randn(1, 16, generator=torch.Generator().manual_seed(int(10 * tempo)))
            one = {name: value[keep] for name, value in found.items()}
            one["vectors"] = one["vectors"] + (0.5 * shift if tempo != 1 else 0)
            parts.append({**one, "tempo": torch.full((int(keep.sum()),), tempo)})
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    index.add(tracks(works), paced)
    index = Index.open(index.folder)
    assert index.tempo == 1.0
    queries, valid = index.asking(np.arange(40), index.windows.first, index.windows.count)
    assert valid.sum((1, 2)).tolist() == [len(windows.row) for windows in index.asked]
    table = torch.full((40, 40), torch.inf)
    for asked in index.asked:
        for q in range(40):
            mine = torch.from_numpy(asked.row == q)
            table[q] = torch.minimum(table[q], naive(index, asked.vectors[mine] * asked.norms[mine][:, None]))
    found = search(index, queries, valid, top=40)
    np.testing.assert_allclose(found.distance, table.sort(1).values, atol=2e-5)
    pytest.importorskip("faiss")
    fast = search(index, queries, valid, top=3, faiss=True)
    np.testing.assert_allclose(fast.distance[:, 0], found.distance[:, 0], atol=2e-5)
    one = search(index, queries[1], valid[1], top=3, faiss=True)  # at one tempo only
    np.testing.assert_allclose(one.distance[:, 0], search(index, queries[1], valid[1]).distance[:, 0], atol=2e-5)
    tempo, near = nearest_tempo(index, queries[[1, 1, 1]], valid[[1, 1, 1]], np.arange(3), np.arange(3))
    assert tempo.tolist() == [1, 1, 1]  # of equal ones the own
    np.testing.assert_allclose(near, 0, atol=1e-6)
    stranger, long = index.work[:, None] != index.work, asks(index)
    whole = index.calibration(100)
    np.testing.assert_allclose(whole.nearest, np.sort(np.where(stranger, table, np.inf).min(1)[long]), atol=1e-5)
    assert np.isin(whole.pairs.round(4), table.numpy()[long][stranger[long]].round(4)).mean() > 0.95
    means = torch.full((40, 9), torch.inf)
    for asked, there in zip(queries, valid, strict=True):
        mean = F.normalize((F.normalize(asked, dim=-1) * there[..., None]).sum(1), dim=-1)
        means = torch.minimum(means, 1 - mean @ index.centroids().vectors.T)
    points = search(index, queries, valid, top=9, mode="centroids")  # of the tempi the nearest counts here, too
    np.testing.assert_allclose(points.distance, means.sort(1).values, atol=1e-5)
    work = torch.tensor(index.work)
    scale = index.calibration(100, "centroids")
    strange = means.scatter(1, work[:, None], torch.inf)
    np.testing.assert_allclose(scale.nearest, np.sort(strange.amin(1).numpy()[long]), atol=1e-5)
    assert np.isin(scale.pairs.round(4), strange.numpy()[long].round(4)).mean() > 0.95
    kin = []
    for r in range(40):
        others = F.normalize(index.windows.vectors, dim=-1)
        units = [others[index.windows.row == o].mean(0) for o in np.flatnonzero(index.work == index.work[r]) if o != r]
        rest = F.normalize(torch.stack([F.normalize(u, dim=0) for u in units]).sum(0), dim=0)
        tried = [
            F.normalize(F.normalize(q[r][v[r]], dim=-1).sum(0), dim=0) for q, v in zip(queries, valid, strict=True)
        ]
        kin.append(min(1 - float(t @ rest) for t in tried))
    np.testing.assert_allclose(scale.kin, np.sort(np.array(kin)[long]), atol=1e-5)


def test_a_part_of_a_recording_asks_with_the_same_part_at_all_tempi(tmp_path):
    index = Index(tmp_path / "index", {**FACTS, "tempi": [0.5, 1.0]})

    def embed(table):
        row, start, tempo = [], [], []
        for pace, count in ((0.5, 40), (1.0, 20)):
            row += [torch.zeros(count, dtype=torch.long)]
            start += [100.0 * torch.arange(count) / count]
            tempo += [torch.full((count,), pace)]
        start = torch.cat(start)
        vectors = torch.stack([torch.ones_like(start), start], 1)
        return {
            "vectors": vectors,
            "row": torch.cat(row),
            "start": start,
            "length": torch.ones(60),
            "tempo": torch.cat(tempo),
        }

    index.add(tracks(["a"]), embed)
    queries, valid = index.asking(np.array([0]), index.windows.first + 5, np.array([10]))
    assert valid.sum(2).flatten().tolist() == [20, 10]
    seconds = queries[..., 1] / queries[..., 0]
    np.testing.assert_allclose(seconds[0, 0], np.arange(25, 75, 2.5), atol=1e-3)
    np.testing.assert_allclose(seconds[1, 0, :10], np.arange(25, 75, 5.0), atol=1e-3)


def turning(tmp_path, reduction="min"):
    """Recordings of one vector a window whose pitch class axis is turned at random."""
    random = torch.Generator().manual_seed(0)
    works = F.normalize(torch.randn(30, 1, 24, generator=random), dim=-1)
    keys = torch.randint(12, (90,), generator=random)

    def embed(table):
        number = table["id"].str.slice(3).cast(pl.Int64).to_numpy()
        z = works[number // 3] + 0.05 * torch.randn(len(number), 5, 24, generator=random)
        z = torch.stack([transpose(x, int(keys[n])) for x, n in zip(z, number, strict=True)])
        row = torch.arange(len(z)).repeat_interleave(5)
        start = torch.arange(5).repeat(len(z)) * 5.0
        return {"vectors": z.flatten(0, 1), "row": row, "start": start, "length": torch.full_like(start, 15.0)}

    index = Index(tmp_path / "turning", {**FACTS, "transpositions": 12, "reduction": reduction})
    index.add(tracks([f"w{i // 3:02d}" for i in range(90)]), embed)
    return index, works, keys


def test_other_keys_are_tried(tmp_path):
    pytest.importorskip("faiss")
    index, works, keys = turning(tmp_path)
    query = torch.stack([transpose(w.repeat(3, 1), 7) for w in works])
    for keywords in ({}, {"mode": "centroids"}, {"faiss": True}, {"mode": "works"}):
        found = search(index, query, top=1, **keywords)
        work = found.place[:, 0] if keywords.get("mode") == "centroids" else index.work[found.place[:, 0]]
        assert (work == np.arange(30)).mean() == 1, keywords
        assert found.distance.max() < 0.2
    assert index.centroids().coherence.min() > 0.9
    valid = torch.ones(1, 3, dtype=torch.bool)
    _, key = similarities(index, query[:1], valid, np.array([0, 0]), np.array([0, 1]))
    assert key.tolist() == [(k - 7) % 12 for k in keys[:2].tolist()]
    assert index.calibration(1).kin.max() < index.calibration(1).nearest.min()
    assert index.calibration(1, "centroids").kin.max() < index.calibration(1, "centroids").nearest.min()


@pytest.mark.parametrize("kind", ["cosine", "euclidean"])
def test_the_shortlist_finds_what_the_whole_search_finds(tmp_path, kind):
    pytest.importorskip("faiss")
    index = Index(tmp_path / "index", {**FACTS, "distance": kind, "reduction": "best-2"})
    names = [f"w{i // 4}" for i in range(2000)]
    embed = Embedder(noise=0.4)
    index.add(tracks(names), embed)
    queries = torch.stack([embed.vectors(f"q{i}", f"w{i}")[:1].repeat(2, 1) for i in range(50)])
    for mode in ("recordings", "works"):
        exact = search(index, queries, top=3, mode=mode, faiss=False)
        fast = search(index, queries, top=3, mode=mode, faiss=True)
        assert (fast.place[:, 0] == exact.place[:, 0]).mean() > 0.9
        same = fast.place == exact.place
        np.testing.assert_allclose(fast.distance[same], exact.distance[same], atol=1e-5)
    (stored,) = index.folder.glob("*.faiss")
    stamp = stored.stat().st_mtime_ns
    again = Index.open(index.folder)
    np.testing.assert_array_equal(search(again, queries, faiss=True).place, search(index, queries, faiss=True).place)
    assert stored.stat().st_mtime_ns == stamp
    again.remove(["w1"])
    assert not list(index.folder.glob("*.faiss"))


def test_when_to_take_the_shortlist(built, hide_faiss):
    choices = ((None, 10), (None, 300_000), (True, 10), (False, 300_000))
    if Shortlist.installed():
        assert [Shortlist.wanted(c, n) for c, n in choices] == [False, True, True, False]
    hide_faiss()
    assert [Shortlist.wanted(c, n) for c, n in choices] == [False, False, True, False]
    with pytest.raises(UserError, match=r"pip install 'tonnetz\[faiss\]'"):
        search(built, torch.randn(1, 1, 16), faiss=True)


@pytest.fixture
def hide_faiss(monkeypatch):
    """Make as if FAISS were not installed, from the call on."""

    def hide():
        monkeypatch.setitem(sys.modules, "faiss", None)
        shortlisting._note_absence.cache_clear()

    yield hide
    shortlisting._note_absence.cache_clear()


@pytest.fixture
def large(monkeypatch):
    """Make as if every index were a large one."""
    monkeypatch.setattr(shortlisting, "THRESHOLD", 20)


def same(index, folder, monkeypatch):
    """Check that an index means and answers the same as one that never knew a shortlist."""
    with monkeypatch.context() as patch:
        patch.setattr(shortlisting, "THRESHOLD", 10**9)
        exact = Index(folder, FACTS)
        exact.add(index.table.drop("windows"), Embedder())
        scales = [exact.calibration(n, mode) for n, mode in ((100, "works"), (1, "works"), (1, "centroids"))]
        queries = torch.stack([Embedder().vectors(f"q{i}", f"w{i}")[:1] for i in range(9)])
        expected = search(exact, queries, top=3)
    for one in (index, Index.open(index.folder)):
        assert one.table["id"].to_list() == exact.table["id"].to_list()
        found = [one.calibration(n, mode) for n, mode in ((100, "works"), (1, "works"), (1, "centroids"))]
        for scale, known in zip(found, scales, strict=True):
            for name in ("pairs", "nearest", "kin"):
                np.testing.assert_allclose(getattr(scale, name), getattr(known, name), atol=1e-5)
        answers = search(one, queries, top=3)
        np.testing.assert_array_equal(answers.place, expected.place)
        np.testing.assert_allclose(answers.distance, expected.distance, atol=1e-5)


def test_a_large_index_is_built_with_its_shortlist(tmp_path, works, large, monkeypatch):
    pytest.importorskip("faiss")
    index = Index(tmp_path / "index", FACTS)
    index.add(tracks(works), Embedder())
    assert [path.name for path in index.folder.glob("*.faiss")] == ["vectors-1.faiss"]
    monkeypatch.setattr(Shortlist, "build", None)  # not called again
    assert Index.open(index.folder).shortlist().index.ntotal == len(index.windows.row)
    same(index, tmp_path / "exact", monkeypatch)


@pytest.mark.parametrize("opened", [True, False])
@pytest.mark.parametrize("change", ["add", "remove"])
def test_a_large_index_that_changes_is_measured_anew(tmp_path, works, large, monkeypatch, change, opened):
    pytest.importorskip("faiss")
    index = Index(tmp_path / "index", FACTS)
    index.add(tracks(works), Embedder())
    index = Index.open(index.folder) if opened else index
    index.shortlist()  # of the old content
    if change == "add":
        index.add(tracks([f"w{i % 14}" for i in range(30)], seed=1), Embedder())
    else:
        assert index.remove(["w1", "w2", "w8"]) > 10
    assert [path.name for path in index.folder.glob("*.faiss")] == ["vectors-2.faiss"]
    assert index.shortlist().index.ntotal == len(index.windows.row)
    same(index, tmp_path / "exact", monkeypatch)


@pytest.mark.parametrize("where", ["calibrate", "save_file", "write_json"])
def test_a_large_index_killed_anywhere_stays_usable(tmp_path, works, large, monkeypatch, where):
    pytest.importorskip("faiss")
    index = Index(tmp_path / "index", FACTS)
    index.add(tracks(works), Embedder())
    true, asked = getattr(module, where), []

    def cut(*args, **keywords):
        asked.append(where)
        if where == "save_file" and len(asked) == 1:  # of what was embedded
            return true(*args, **keywords)
        if where == "calibrate":
            true(*args, **keywords)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, where, cut)
        with pytest.raises(KeyboardInterrupt):
            index.add(tracks(["w1"] * 8, seed=5), Embedder())
    assert (index.folder / "vectors-2.faiss").is_file()  # of what never came to be
    again = Index.open(index.folder)
    same(again, tmp_path / "exact", monkeypatch)
    again.add(tracks(["w2"] * 8, seed=6), Embedder())
    same(again, tmp_path / "other", monkeypatch)


def test_a_large_index_without_faiss_is_searched_exactly(tmp_path, works, large, hide_faiss, monkeypatch, caplog):
    hide_faiss()
    index = Index(tmp_path / "index", FACTS)
    index.add(tracks(works), Embedder())
    index.remove(["w3"])
    same(index, tmp_path / "exact", monkeypatch)
    assert not list(index.folder.glob("*.faiss"))
    assert [record.levelname for record in caplog.records if "FAISS is not installed" in record.message] == ["WARNING"]


def test_an_index_with_a_shortlist_is_used_without_faiss(tmp_path, works, large, hide_faiss, monkeypatch):
    pytest.importorskip("faiss")
    index = Index(tmp_path / "index", FACTS)
    index.add(tracks(works), Embedder())
    hide_faiss()
    again = Index.open(index.folder)
    same(again, tmp_path / "exact", monkeypatch)
    for choice in (None, False):
        assert again.calibration(2, faiss=choice).nearest.size
    with pytest.raises(UserError, match=r"job\.faiss=true"):
        again.calibration(2, faiss=True)


def test_short_queries_are_measured_as_they_are_searched(tmp_path, works, large, monkeypatch):
    pytest.importorskip("faiss")
    index = Index(tmp_path / "index", FACTS)
    index.add(tracks(works), Embedder())
    asked, true = [], index.shortlist
    monkeypatch.setattr(index, "shortlist", lambda: asked.append(1) or true())
    assert index.calibration(2, faiss=False).nearest.size
    assert asked == []
    assert index.calibration(2).nearest.size
    assert asked
    names = {path.name for path in index.folder.glob("scale-*")}
    assert names == {"scale-1-2-min.safetensors", "scale-1-2-min-faiss.safetensors"}


def test_all_of_a_large_index_is_asked_by_fewer_recordings(tmp_path, large, hide_faiss, monkeypatch):
    index = Index(tmp_path / "index", FACTS)
    index.add(tracks([f"w{i % 30}" for i in range(600)]), Embedder())
    for choice, least, most in ((None, 90, 599), (False, 30, 60)):
        if choice is False or Shortlist.installed():
            monkeypatch.setattr(measuring, "WORK", 3 * 3 * 64 * 256 * 100)  # of a hundred shortlists
            asked = measuring.calibrate(index, faiss=choice)["null_nearest"].shape[1]
            assert least <= asked <= most


def test_fingerprint_of_weights():
    weights = {"b": torch.randn(3), "a": torch.ones(2, 2), "n.num_batches_tracked": torch.tensor(3)}
    mark = weights_fingerprint(weights)
    assert len(mark) == 16
    assert weights_fingerprint({**dict(reversed(weights.items())), "n.num_batches_tracked": torch.tensor(4)}) == mark
    assert weights_fingerprint({**weights, "a": torch.ones(4)}) != mark
    assert weights_fingerprint({**weights, "b": weights["b"] + 1e-6}) != mark


def test_the_step_is_exact_for_an_hour():
    step = 12 * 640 / 14400
    start = np.arange(6000) * step
    holes = np.delete(start, np.arange(100, 6000, 60))
    row = np.repeat([0, 1, 2], [len(start), len(holes), 1])
    given = np.concatenate([start, np.append(holes[:-1], holes[-2] + 0.2), [0]]).astype(np.float32)
    assert step_of(row, given) == pytest.approx(step, abs=1e-7)
    assert step_of(np.array([0, 1]), np.zeros(2)) == 1


def test_a_segment_of_two_windows_counts_once():
    """Starts of one segment that two windows tell may differ by a sample."""

    class Task(torch.nn.Module):
        def segments(self, batch):
            z = batch["z"]
            start = batch["start"][:, None] + torch.arange(3) * 0.5
            return z, torch.ones(start.shape, dtype=torch.bool), start

    start = torch.tensor([1.0005 - 1e-6, 0.0, 0.0, 1.0])
    batch = {"z": torch.arange(12.0).view(4, 3, 1), "row": torch.tensor([1, 1, 0, 0]), "start": start}
    found = embed_batches(SimpleNamespace(task=Task()), iter([batch]), Plan(3.0), torch.device("cpu"))
    assert found["row"].tolist() == [0] * 5 + [1] * 5
    np.testing.assert_allclose(found["start"], [0, 0.5, 1, 1.5, 2] * 2, atol=1e-3)
    assert found["vectors"].shape == (10, 1)
