"""An index of recordings: the unit vectors of all their windows in a folder, with what they belong to.

`meta.json` names the files of the current generation (`vectors-G.safetensors`, `tracks-G.jsonl`); writing it is the
commit, so an index is the old one or the new one and never half of each. What is embedded before the commit waits in
`pending/`: an interrupted job=index goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from tonnetz.atomic import replacing
from tonnetz.calibration import CENTROIDS, WHOLE, Calibration, calibrate, level_of
from tonnetz.errors import UserError, suggest
from tonnetz.manifest import write_json
from tonnetz.matching import Matching
from tonnetz.reductions import distances
from tonnetz.shortlist import Shortlist
from tonnetz.transposition import PITCHES, transpose
from tonnetz.windows import CELLS, blocks, extents, gather

FORMAT = 1
BATCH = 32  # recordings embedded between two saves
MODES = ("recordings", "works", "centroids")
NEIGHBOURS = 64  # of a query window, from the shortlist
CANDIDATES = 256  # recordings of the shortlist that are judged exactly, for each query
TINY = 1e-8  # a shorter mean has no direction

COLUMNS: dict[str, Any] = {
    "id": pl.String,
    "path": pl.String,
    "work": pl.String,
    "duration": pl.Float64,
    "mark": pl.String,  # changes when the file does
    "windows": pl.Int64,
}
Progress = Callable[[int, int], None]
Embed = Callable[[pl.DataFrame], Mapping[str, Tensor]]  # rows -> vectors (m, D), row, start and length (m,)


@dataclass(frozen=True)
class Found:
    """The best of each query, nearest first: place (Q, k) in the table or among the works, -1 for none; distance."""

    place: np.ndarray
    distance: np.ndarray


@dataclass(frozen=True)
class Centroids:
    """One unit vector a work (W, D), spherical mean of its recordings, with its coherence and radius (W,)."""

    works: list[str]
    vectors: Tensor
    coherence: Tensor  # length of the mean of the unit vectors: 1 when they all agree
    radius: Tensor  # mean + 1.5 deviations of the members' distances
    recordings: np.ndarray


def weights_fingerprint(weights: Mapping[str, Tensor]) -> str:
    """16 hex digits of SHA-256 over names, shapes, types and bytes; counters do not matter."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        if not name.endswith("num_batches_tracked"):
            digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
            digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


class Index:
    """Recordings by their vectors.

    Args:
        folder: where it lives.
        facts: encoder and frontend (fingerprints), window and hop in seconds, pad, normalize, distance, reduction and,
            for vectors with the pitch class innermost, in how many keys (`transpositions`) a query is tried.
    """

    def __init__(self, folder: str | Path, facts: dict[str, Any]) -> None:
        self.folder, self.facts, self.generation = Path(folder), facts, 0
        self.match_by(facts["reduction"])
        self._set(pl.DataFrame(schema=COLUMNS), _nothing(int(facts.get("dim", 0))))

    def match_by(self, reduction: str) -> None:
        """Choose the reduction of the distances between the windows of two recordings."""
        self.facts = {**self.facts, "reduction": reduction}
        self.matching = Matching(self.facts["distance"], reduction, self.facts.get("transpositions", 1))

    def _set(self, table: pl.DataFrame, arrays: Mapping[str, Tensor]) -> None:
        self.table = table
        self.works = table["work"].drop_nulls().unique().sort().to_list()
        codes = table["work"].rank("dense").cast(pl.Int64) - 1
        self.work = codes.fill_null(-1).to_numpy()  # (R,) place in `works`, -1 unknown
        self.vectors, self.norms = arrays["vectors"], arrays["norms"]  # (M, D), (M,)
        self.start, self.length = arrays["start"], arrays["length"]  # (M,) seconds
        self.row = np.repeat(np.arange(table.height), table["windows"].to_numpy())  # (M,)
        self.first, self.count = extents(self.row, table.height)  # (R,)
        self.nulls = {k: v for k, v in arrays.items() if k.startswith("null_")}
        self._calibrations: dict[int, Calibration | None] = {}
        self._centroids: Centroids | None = None
        self._shortlist: Shortlist | None = None

    def __len__(self) -> int:
        return self.table.height

    # On disk

    @classmethod
    def open(cls, folder: str | Path) -> Index:
        """Read an index. Raises UserError when there is none, or its files do not belong together."""
        folder = Path(folder)
        if not (folder / "meta.json").is_file():
            raise UserError(f"{folder}: no index here; make one with job=index job.index={folder}")
        try:
            meta = json.loads((folder / "meta.json").read_text())
            if meta["format"] != FORMAT:
                raise UserError(f"{folder}: index format {meta['format']} is not known to this version; build it anew")
            index = cls(folder, meta["facts"])
            index.generation = meta["generation"]
            table = index.table
            if meta["recordings"]:
                table = pl.read_ndjson(index._tracks, infer_schema_length=None, schema_overrides=COLUMNS)
            index._set(table, load_file(index._vectors))
        except (OSError, ValueError, KeyError, SafetensorError, pl.exceptions.PolarsError) as error:
            raise UserError(f"{folder}: the index cannot be read ({error}); build it anew") from None
        if len(index.row) != len(index.vectors):
            raise UserError(f"{folder}: the table and the vectors do not fit together; build the index anew")
        return index

    @property
    def _vectors(self) -> Path:
        return self.folder / f"vectors-{self.generation}.safetensors"

    @property
    def _tracks(self) -> Path:
        return self.folder / f"tracks-{self.generation}.jsonl"

    def check(self, encoder: str, frontend: str) -> None:
        """Raise UserError when the vectors were made by another encoder or front-end."""
        for name, value in (("encoder", encoder), ("frontend", frontend)):
            if self.facts[name] != value:
                raise UserError(
                    f"{self.folder}: was made with {name} {self.facts[name]}, the checkpoint's is {value}; "
                    "take the checkpoint it was made with, or build it anew"
                )

    def _commit(self, table: pl.DataFrame, arrays: dict[str, Tensor]) -> None:
        """Calibrate, write the next generation and make it the current one."""
        self._set(table, arrays)
        self.nulls = calibrate(self)
        self.generation += 1
        with replacing(self._vectors) as part:
            save_file({**arrays, **self.nulls}, part)
        with replacing(self._tracks) as part:
            table.write_ndjson(part)
        meta = {"format": FORMAT, "generation": self.generation, "facts": self.facts, "recordings": table.height}
        more = {"vectors": len(self.vectors), "works": len(self.works), "dimensions": self.vectors.shape[1]}
        write_json(self.folder / "meta.json", {**meta, **more})
        for path in [
            *self.folder.glob("*-*.safetensors"),
            *self.folder.glob("*-*.jsonl"),
            *self.folder.glob("*.faiss"),
        ]:
            if path not in (self._vectors, self._tracks):
                path.unlink()
        shutil.rmtree(self.folder / "pending", ignore_errors=True)

    # Growing and shrinking

    def add(self, tracks: pl.DataFrame, embed: Embed, progress: Progress | None = None) -> dict[str, int]:
        """Embed and add the recordings that are not there yet; the rest stays as it is.

        `tracks` has id, path, work, duration and mark; a recording whose mark has changed is embedded anew, and one
        with another work is moved. Rows that `embed` gives no vector for are left out. Returns how many were added,
        kept and left out.
        """
        if tracks["id"].n_unique() < tracks.height:
            name = tracks["id"].filter(tracks["id"].is_duplicated())[0]
            raise UserError(f"{name}: this recording is given twice; ids must differ")
        tracks = tracks.select([pl.col(name).cast(COLUMNS[name]) for name in COLUMNS if name != "windows"])
        here = tracks.join(self.table.select("id", "mark"), on=["id", "mark"], how="semi")
        wanted = tracks.join(here.select("id"), on="id", how="anti")
        moved = (
            here.select("id", "work")
            .drop_nulls()
            .join(self.table.select("id", was="work"), on="id")
            .filter(pl.col("work").ne_missing(pl.col("was")))
        )
        parts = list(self._pending(wanted))
        done = pl.concat([part[0].select("id") for part in parts]) if parts else wanted.select("id").clear()
        todo = wanted.join(done, on="id", how="anti")
        for begin in range(0, todo.height, BATCH):
            part = self._embed(todo[begin : begin + BATCH], embed)
            parts += [part] if part[0].height else []
            if progress:
                progress(done.height + min(begin + BATCH, todo.height), wanted.height)
        added = sum(part[0].height for part in parts)
        if added or moved.height:
            self._join(parts, moved.select("id", "work"))
        return {"added": added, "kept": here.height, "left out": wanted.height - added, "moved": moved.height}

    def _pending(self, wanted: pl.DataFrame) -> Iterator[tuple[pl.DataFrame, dict[str, Tensor]]]:
        """Parts that an interrupted run has embedded, if all their recordings are wanted as they are."""
        for path in sorted((self.folder / "pending").glob("*.safetensors")):
            with safe_open(path, "pt") as file:
                head = file.metadata()
                table = pl.read_ndjson(head["tracks"].encode(), schema_overrides=COLUMNS)
                fits = table.join(wanted, on=["id", "mark"], how="semi").height == table.height
                if fits and head["facts"] == _line(self.facts):
                    yield table, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                    continue
            path.unlink()

    def _embed(self, tracks: pl.DataFrame, embed: Embed) -> tuple[pl.DataFrame, dict[str, Tensor]]:
        """Embed one batch of recordings and keep it in `pending/`."""
        found = embed(tracks)
        vectors = found["vectors"].float()
        if not torch.isfinite(vectors).all():
            bad = tracks["path"][int(found["row"][~torch.isfinite(vectors).all(1)][0])]
            raise UserError(f"{bad}: its embedding holds NaN or infinite values; is the checkpoint sound?")
        order = torch.from_numpy(np.lexsort((found["start"].numpy(), found["row"].numpy())))
        count = np.bincount(found["row"].numpy(), minlength=tracks.height)
        end = np.zeros(tracks.height)
        np.maximum.at(end, found["row"].numpy(), (found["start"] + found["length"]).double().numpy())
        table = tracks.with_columns(
            windows=pl.Series(count, dtype=pl.Int64), duration=pl.coalesce("duration", pl.Series(end.round(3)))
        ).filter(pl.col("windows") > 0)
        norms = vectors.norm(dim=1)
        arrays = {
            "vectors": (vectors / norms.clamp(min=TINY)[:, None])[order].contiguous(),
            "norms": norms[order],
            "start": found["start"].float()[order],
            "length": found["length"].float()[order],
        }
        if table.height:
            lines = table.write_ndjson()
            name = hashlib.blake2b(lines.encode(), digest_size=8).hexdigest()
            with replacing(self.folder / "pending" / f"{name}.safetensors") as part:
                save_file(arrays, part, metadata={"tracks": lines, "facts": _line(self.facts)})
        return table, arrays

    def _join(self, parts: Sequence[tuple[pl.DataFrame, dict[str, Tensor]]], moved: pl.DataFrame) -> None:
        """Commit the present recordings, less those that come anew, and the parts."""
        new = pl.concat([part[0] for part in parts]) if parts else self.table.clear()
        keep = ~self.table["id"].is_in(new["id"].implode()).to_numpy()
        old, arrays = self._without(keep)
        old = old.update(moved, on="id", how="left")
        every = [arrays] if old.height or not parts else []
        every += [part[1] for part in parts]
        widths = {part["vectors"].shape[1] for part in every}
        if len(widths) > 1:
            raise UserError(f"{self.folder}: cannot hold vectors of {min(widths)} and {max(widths)} dimensions")
        joined = {name: torch.cat([part[name] for part in every]) for name in arrays}
        self._commit(pl.concat([old, new.select(old.columns)]), joined)

    def _without(self, keep: np.ndarray) -> tuple[pl.DataFrame, dict[str, Tensor]]:
        """Table and arrays of the recordings to keep (R,)."""
        arrays = {"vectors": self.vectors, "norms": self.norms, "start": self.start, "length": self.length}
        mask = torch.from_numpy(keep[self.row])
        return self.table.filter(pl.Series(keep)), {name: value[mask] for name, value in arrays.items()}

    def remove(self, names: Sequence[str]) -> int:
        """Take out recordings by id, path or work; returns how many. Raises UserError for an unknown name."""
        drop = np.zeros(len(self), bool)
        for name in names:
            hit = pl.Series(np.zeros(len(self), bool))
            for column in ("id", "path", "work"):
                hit |= (self.table[column] == name).fill_null(False)
            if not hit.any():
                known = [*self.works, *self.table["id"]]
                raise UserError(f"{name}: no such recording or work in {self.folder}{suggest(name, known)}")
            drop |= hit.to_numpy()
        self._commit(*self._without(~drop))
        return int(drop.sum())

    # Searching

    def raw(self, vectors: Tensor, norms: Tensor) -> Tensor:
        """What distances are taken of: unit vectors for cosine, the embeddings themselves otherwise."""
        return vectors if self.facts["distance"] == "cosine" else vectors * norms[..., None]

    def _prepare(self, queries: Tensor) -> Tensor:
        return F.normalize(queries.float(), dim=-1, eps=TINY) if self.facts["distance"] == "cosine" else queries.float()

    def track_distances(self, queries: Tensor, valid: Tensor | None = None) -> Tensor:
        """Distances (Q, R) of queries (Q, S, D) to all recordings, exactly."""
        queries = self._prepare(queries)
        if valid is None:
            valid = torch.ones(queries.shape[:2], dtype=torch.bool)
        if self.matching.reduction in ("min", "smin") and self.matching.turns == 1:
            return self._nearest_windows(queries, valid)
        result = torch.empty(len(queries), len(self))
        order = np.argsort(self.count, kind="stable")
        size = queries.shape[0] * queries.shape[1] + queries.shape[2]
        for part in blocks(self.count[order] * size):
            chosen = order[part]
            block, real = self.cut(self.first[chosen], self.count[chosen])
            result[:, torch.from_numpy(chosen)] = self.matching(queries, block, valid, real)
        return result

    def _nearest_windows(self, queries: Tensor, valid: Tensor) -> Tensor:
        """The reduction `min` of contiguous recordings, without padding."""
        cosine = self.facts["distance"] == "cosine"
        best = np.empty((len(queries), len(self)), np.float32)  # highest similarity, or negative distance
        flat, limit = queries.flatten(0, 1), max(1, CELLS // max(queries.shape[0] * queries.shape[1], 1))
        hidden = None if valid.all() else ~valid[..., None]
        begin = 0
        while begin < len(self):
            end = int(np.searchsorted(self.first + self.count, self.first[begin] + limit, side="right"))
            end = max(end, begin + 1)
            place = slice(self.first[begin], self.first[end - 1] + self.count[end - 1])
            block = self.raw(self.vectors[place], self.norms[place])
            cells = flat @ block.T if cosine else -distances(flat, block, self.facts["distance"])
            cells = cells.view(*queries.shape[:2], -1)
            cells = cells if hidden is None else cells.masked_fill_(hidden, -torch.inf)
            starts = self.first[begin:end] - self.first[begin]
            best[:, begin:end] = np.maximum.reduceat(cells.amax(1).numpy(), starts, axis=1)
            begin = end
        return torch.from_numpy(1 - best if cosine else -best).clamp(min=0)

    def pair_distances(self, queries: Tensor, valid: Tensor, query: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Distances (P,) of queries (Q, S, D) number `query` (P,) and recordings `row` (P,)."""
        queries = self._prepare(queries)
        result = np.empty(len(query), np.float32)
        order = np.argsort(self.count[row], kind="stable")
        size = queries.shape[1] + queries.shape[2]
        extra = queries.shape[1] * queries.shape[2]
        for part in blocks(self.count[row[order]] * size + extra):
            chosen = order[part]
            block, real = self.cut(self.first[row[chosen]], self.count[row[chosen]])
            mine = torch.from_numpy(query[chosen])
            result[chosen] = self.matching.pairs(queries[mine], block, valid[mine], real).numpy()
        return result

    def search(
        self,
        queries: Tensor,
        valid: Tensor | None = None,
        top: int = 10,
        mode: str = "recordings",
        faiss: bool | None = None,
    ) -> Found:
        """The `top` nearest recordings, works (by their nearest recording) or centroids of queries (Q, S, D).

        `valid` (Q, S) marks real windows. `faiss` True takes the approximate shortlist, False searches all of it,
        None takes the shortlist when the index is large. Works of unknown name do not compete with others.
        """
        if mode not in MODES:
            raise UserError(f"job.mode={mode}{suggest(mode, MODES)}")
        if top < 1:
            raise UserError(f"job.top={top}: must be at least 1")
        if not len(self):
            raise UserError(f"{self.folder}: the index is empty; add recordings with job=index job.action=add")
        if valid is None:
            valid = torch.ones(queries.shape[:2], dtype=torch.bool)
        if mode == "centroids":
            return _best(self.centroid_distances(queries, valid).numpy(), None, None, top)
        code = self.work if mode == "works" else None
        step = max(1, CELLS // max(len(self), 1024 * queries.shape[1]))
        found = []
        for begin in range(0, len(queries), step):
            distance, rows = self.scores(queries[begin : begin + step], valid[begin : begin + step], faiss)
            found.append(_best(distance, rows, code, top))
        width = max((f.place.shape[1] for f in found), default=0)
        wide = [(f, ((0, 0), (0, width - f.place.shape[1]))) for f in found]
        return Found(
            np.concatenate([np.pad(f.place, pad, constant_values=-1) for f, pad in wide]),
            np.concatenate([np.pad(f.distance, pad, constant_values=np.inf) for f, pad in wide]),
        )

    def scores(self, queries: Tensor, valid: Tensor, faiss: bool | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """Distances (Q, C) to the recordings (Q, C), or to all of them in their order (None)."""
        if Shortlist.wanted(faiss, len(self.vectors)):
            return self._shortlisted(queries, valid)
        return self.track_distances(queries, valid).numpy(), None

    def shortlist(self) -> Shortlist:
        """The approximate index of all windows, made when it is first needed and kept in the folder."""
        if self._shortlist is None:
            path = self.folder / f"vectors-{self.generation}.faiss"
            self._shortlist = Shortlist.load_or_build(path, self.raw(self.vectors, self.norms), self.facts["distance"])
        return self._shortlist

    def _shortlisted(self, queries: Tensor, valid: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """The recordings with windows near to most windows of a query, in any key, judged exactly."""
        tried = self.turned(self._prepare(queries)[valid])  # (turns, v, D)
        near = self.shortlist().search(tried.flatten(0, 1), NEIGHBOURS)  # (turns v, k)
        owner = np.repeat(np.tile(valid.nonzero()[:, 0].numpy(), len(tried)), near.shape[1])
        window = near.ravel()
        hit = np.stack([owner[window >= 0], self.row[window[window >= 0]]], 1)
        pairs, votes = np.unique(hit, axis=0, return_counts=True)
        pairs = pairs[np.lexsort((-votes, pairs[:, 0]))]
        place = _counter(pairs[:, 0], len(queries))
        pairs, place = pairs[place < CANDIDATES], place[place < CANDIDATES]
        rows = np.full((len(queries), int(place.max(initial=0)) + 1), -1)
        table = np.full(rows.shape, np.inf, np.float32)
        rows[pairs[:, 0], place] = pairs[:, 1]
        table[pairs[:, 0], place] = self.pair_distances(queries, valid, *pairs.T)
        return table, rows

    def turned(self, vectors: Tensor) -> Tensor:
        """Vectors (..., D) in all keys (12, ..., D), or as they are (1, ..., D) when keys are not tried."""
        turns = range(PITCHES if self.matching.turns > 1 else 1)
        return torch.stack([transpose(vectors, turn) if turn else vectors for turn in turns])

    def similarities(self, queries: Tensor, valid: Tensor, query: np.ndarray, row: np.ndarray) -> tuple[Tensor, Tensor]:
        """Cosines (P, S, s) of the windows of queries number `query` (P,) and recordings `row` (P,), NaN for none.

        And by how many semitones (P,) the queries were raised: to where their windows find the nearest ones.
        """
        tried = self.turned(F.normalize(queries.float(), dim=-1, eps=TINY)[query])  # (turns, P, S, D)
        block, real = gather(self.vectors, self.first[row], self.count[row])
        cells = tried @ block.mT  # (turns, P, S, s)
        near = cells.masked_fill(~real[:, None], -torch.inf).amax(-1)  # (turns, P, S)
        best = (near * valid[query]).sum(-1).argmax(0)  # (P,)
        chosen = cells[best, torch.arange(len(row))]
        return chosen.masked_fill(~(valid[query][:, :, None] & real[:, None]), torch.nan), best

    # Works

    def recording_vectors(self) -> Tensor:
        """One unit vector a recording (R, D): the mean of its windows."""
        total = torch.zeros(len(self), self.vectors.shape[1]).index_add_(0, torch.from_numpy(self.row), self.vectors)
        return F.normalize(total, dim=-1, eps=TINY)

    def members(self) -> Tensor:
        """One unit vector a recording (R, D), in the key in which it is most like the first recording of its work."""
        vectors, work = self.recording_vectors(), self.work
        first = np.arange(len(work))
        names, place, inverse = np.unique(work, return_index=True, return_inverse=True)
        first = np.where(work >= 0, place[inverse], first) if len(names) else first
        turned = self.turned(vectors)  # (turns, R, D)
        best = (turned * vectors[torch.from_numpy(first)]).sum(-1).argmax(0)  # (R,)
        return turned[best, torch.arange(len(vectors))]

    def centroids(self) -> Centroids:
        """The works' spherical means. One whose recordings cancel out is its first recording, with coherence 0."""
        if self._centroids is None:
            self._centroids = self._average()
        return self._centroids

    def _average(self) -> Centroids:
        known = np.flatnonzero(self.work >= 0)
        code = torch.from_numpy(self.work[known])
        works, members = self.works, self.members()[torch.from_numpy(known)]
        count = torch.bincount(code, minlength=len(works))
        mean = torch.zeros(len(works), members.shape[1]).index_add_(0, code, members) / count[:, None]
        coherence = mean.norm(dim=1)
        first = torch.from_numpy(np.unique(code.numpy(), return_index=True)[1])
        lost = coherence < 1e-6
        vectors = torch.where(lost[:, None], members[first], F.normalize(mean, dim=-1, eps=TINY))
        distance = 1 - (members * vectors[code]).sum(-1)
        one = torch.zeros(len(works)).index_add_(0, code, distance) / count
        two = torch.zeros(len(works)).index_add_(0, code, (distance - one[code]) ** 2) / count
        radius = one + 1.5 * two.sqrt()
        return Centroids(works, vectors, coherence.where(~lost, 0.0), radius.clamp(min=0), count.numpy())

    def centroid_distances(self, queries: Tensor, valid: Tensor) -> Tensor:
        """Cosine distances (Q, W) of the mean of each query's unit vectors to the centroids."""
        centroids = self.centroids()
        if not centroids.works:
            raise UserError(f"{self.folder}: no recording has a work; give job.works=FILE.csv, or job.mode=recordings")
        return 1 - (self.turned(mean_vectors(queries, valid)) @ centroids.vectors.T).amax(0)

    def cut(self, first: np.ndarray, count: np.ndarray) -> tuple[Tensor, Tensor]:
        """Runs of windows as queries (Q, S, D) with their mask."""
        vectors, valid = gather(self.vectors, first, count)
        if self.facts["distance"] != "cosine":
            vectors = vectors * gather(self.norms, first, count)[0][..., None]
        return vectors, valid

    def calibration(self, windows: int, mode: str = "recordings") -> Calibration | None:
        """What distances of queries of so many windows mean; None when fewer than two works are there."""
        level = CENTROIDS if mode == "centroids" else level_of(self, windows)
        if level not in self._calibrations:
            stored = self.nulls if level in (WHOLE, CENTROIDS) else calibrate(self, level)
            self._calibrations[level] = Calibration.of(stored, level)
        return self._calibrations[level]


def mean_vectors(queries: Tensor, valid: Tensor) -> Tensor:
    """Unit means (Q, D) of the unit vectors of queries (Q, S, D)."""
    unit = F.normalize(queries.float(), dim=-1, eps=TINY) * valid[..., None]
    return F.normalize(unit.sum(1), dim=-1, eps=TINY)


def _best(distance: np.ndarray, rows: np.ndarray | None, code: np.ndarray | None, top: int) -> Found:
    """The `top` smallest of distances (Q, C) to `rows` (Q, C); with `code` (R,) only the nearest of each work."""
    order = np.argsort(distance, axis=1, kind="stable")
    distance = np.take_along_axis(distance, order, 1)
    place = order if rows is None else np.take_along_axis(rows, order, 1)
    if code is not None:
        distance = np.where(_repeated(code, place), np.inf, distance)
        order = np.argsort(distance, axis=1, kind="stable")
        distance, place = (np.take_along_axis(values, order, 1) for values in (distance, place))
    distance, place = distance[:, :top], place[:, :top]
    return Found(np.where(np.isfinite(distance), place, -1), distance)


def _repeated(code: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Which recordings (Q, C) come after another of their work; those of unknown work never do."""
    work = code[place]
    order = np.argsort(work, axis=1, kind="stable")
    inorder = np.take_along_axis(work, order, 1)
    again = np.zeros(work.shape, bool)
    again[:, 1:] = (inorder[:, 1:] == inorder[:, :-1]) & (inorder[:, 1:] >= 0)
    result = np.empty_like(again)
    np.put_along_axis(result, order, again, 1)
    return result


def _counter(code: np.ndarray, groups: int) -> np.ndarray:
    """Place of each entry in its group, from sorted codes."""
    first, _ = extents(code, groups)
    return np.arange(len(code)) - first[code]


def _nothing(dim: int) -> dict[str, Tensor]:
    empty = torch.zeros(0)
    return {"vectors": torch.zeros(0, dim), "norms": empty, "start": empty.clone(), "length": empty.clone()}


def _line(facts: dict[str, Any]) -> str:
    return json.dumps(facts, sort_keys=True)
