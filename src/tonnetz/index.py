"""An index of recordings: the unit vectors of all their windows in a folder, with what they belong to.

`meta.json` names the files of the current generation (`vectors-G.safetensors`, `tracks-G.jsonl`); writing it is the
commit, so an index is the old one or the new one and never half of each. What is embedded before the commit waits in
`pending/`: an interrupted job=index goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tonnetz.atomic import replacing
from tonnetz.calibration import CENTROIDS, WHOLE, Calibration, calibrate, level_of
from tonnetz.centroids import Centroids, average
from tonnetz.errors import UserError, suggest
from tonnetz.manifest import write_json
from tonnetz.matching import Matching
from tonnetz.reductions import TINY
from tonnetz.shortlist import Shortlist
from tonnetz.windows import Windows, gather, own_tempo, stacked

FORMAT = 1
BATCH = 32  # recordings embedded between two saves

COLUMNS: dict[str, Any] = {
    "id": pl.String,
    "path": pl.String,
    "work": pl.String,
    "duration": pl.Float64,
    "mark": pl.String,  # changes when the file does
    "corpus": pl.String,  # that names the id and the work; null: they are named by hand, and mean what they say
    "windows": pl.Int64,  # at all tempi
}
Progress = Callable[[int, int], None]
# Rows of the table -> vectors (m, D), row, start, length and, where there are several, tempo (m,).
Embed = Callable[[pl.DataFrame], Mapping[str, Tensor]]


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
    """Recordings by their vectors: `windows` are those that answer, `asked` those that ask, at each of the `tempi`.

    Args:
        folder: where it lives.
        facts: encoder and frontend (fingerprints), window and hop in seconds, pad, normalize, distance, reduction,
            the `tempi` at which queries are read and, for vectors with the pitch class innermost, in how many keys
            (`transpositions`) a query is tried.
    """

    def __init__(self, folder: str | Path, facts: dict[str, Any]) -> None:
        self.folder, self.facts, self.generation = Path(folder), facts, 0
        self.tempi = [float(tempo) for tempo in facts.get("tempi", (1.0,))]
        self.tempo = own_tempo(self.tempi)
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
        self.arrays = {k: v for k, v in arrays.items() if not k.startswith("null_")}
        self.row = np.repeat(np.arange(table.height), table["windows"].to_numpy())  # (M,) of windows at all tempi
        self.asked = [Windows.of(self.arrays, self.row, table.height, tempo) for tempo in self.tempi]
        self.windows = self.asked[self.tempi.index(self.tempo)]
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
                table = _read(index._tracks)
            arrays = load_file(index._vectors)
        except (OSError, ValueError, KeyError, SafetensorError, pl.exceptions.PolarsError) as error:
            raise UserError(f"{folder}: the index cannot be read ({error}); build it anew") from None
        if table["windows"].sum() != len(arrays["vectors"]):
            raise UserError(f"{folder}: the table and the vectors do not fit together; build the index anew")
        index._set(table, {"tempo": torch.ones(len(arrays["vectors"])), **arrays})  # older ones knew no tempo
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
        more = {"vectors": len(self.row), "works": len(self.works), "dimensions": arrays["vectors"].shape[1]}
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

        `tracks` has id, path, work, duration, mark and, from a corpus, its name (see `distinct`). A recording whose
        mark has changed is embedded anew, and one with another work is moved. Rows that `embed` gives no vector for
        are left out. Returns how many were added, kept, left out and moved.
        """
        if tracks["id"].n_unique() < tracks.height:
            name = tracks["id"].filter(tracks["id"].is_duplicated())[0]
            raise UserError(f"{name}: this recording is given twice; ids must differ")
        tracks = tracks if "corpus" in tracks.columns else tracks.with_columns(corpus=pl.lit(None))
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

    def distinct(self, tracks: pl.DataFrame) -> pl.DataFrame:
        """Rows of a corpus with the name of the corpus before an id or work that recordings of another one have here.

        Two corpora that both have a work 0001 do not mean the same one.
        """
        for name in ("id", "work"):
            there = self.table.select(name, other="corpus").drop_nulls().unique()
            both = tracks.join(there, on=name, how="inner").filter(pl.col("other") != pl.col("corpus"))[name].unique()
            full = pl.concat_str("corpus", name, separator="/")
            tracks = tracks.with_columns(
                pl.when(pl.col(name).is_in(both.implode())).then(full).otherwise(name).alias(name)
            )
        return tracks

    def _pending(self, wanted: pl.DataFrame) -> Iterator[tuple[pl.DataFrame, dict[str, Tensor]]]:
        """Parts that an interrupted run has embedded, if all their recordings are wanted as they are."""
        for path in sorted((self.folder / "pending").glob("*.safetensors")):
            with safe_open(path, "pt") as file:
                head = file.metadata()
                table = _read(head["tracks"].encode())
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
        tempo = found.get("tempo", torch.full_like(found["start"], self.tempo)).float()
        order = torch.from_numpy(np.lexsort((found["start"].numpy(), tempo.numpy(), found["row"].numpy())))
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
            "tempo": tempo[order],
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
        mask = torch.from_numpy(keep[self.row])
        return self.table.filter(pl.Series(keep)), {name: value[mask] for name, value in self.arrays.items()}

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

    # For searching

    def raw(self, vectors: Tensor, norms: Tensor) -> Tensor:
        """What distances are taken of: unit vectors for cosine, the embeddings themselves otherwise."""
        return vectors if self.facts["distance"] == "cosine" else vectors * norms[..., None]

    def cut(self, first: np.ndarray, count: np.ndarray, windows: Windows | None = None) -> tuple[Tensor, Tensor]:
        """Runs of windows, of those at the own tempo unless others are given, as (R, S, D) with their mask."""
        windows = windows or self.windows
        vectors, valid = gather(windows.vectors, first, count)
        return self.raw(vectors, gather(windows.norms, first, count)[0]), valid

    def asking(self, row: np.ndarray, first: np.ndarray, count: np.ndarray) -> tuple[Tensor, Tensor]:
        """What recordings `row` (Q,) ask with a run of their windows: (T, Q, S, D) at all tempi, and the mask.

        `first`, `count` (Q,) say which, at the own tempo; at others the same part of the recording is taken.
        """
        own = self.windows
        begin, share = (first - own.first[row]) / own.count[row], count / own.count[row]
        parts = []
        for there in self.asked:
            size = np.clip(np.round(share * there.count[row]), 1, there.count[row]).astype(np.int64)
            offset = np.minimum(np.round(begin * there.count[row]), there.count[row] - size).astype(np.int64)
            parts.append(self.cut(there.first[row] + offset, size, there))
        vectors, real = zip(*parts, strict=True)
        return stacked(vectors), stacked(real)

    def shortlist(self) -> Shortlist:
        """The approximate index of all windows, made when it is first needed and kept in the folder."""
        if self._shortlist is None:
            path = self.folder / f"vectors-{self.generation}.faiss"
            vectors = self.raw(self.windows.vectors, self.windows.norms)
            self._shortlist = Shortlist.load_or_build(path, vectors, self.facts["distance"])
        return self._shortlist

    def centroids(self) -> Centroids:
        """The works' spherical means, computed once."""
        if self._centroids is None:
            self._centroids = average(self)
        return self._centroids

    def calibration(self, windows: int, mode: str = "recordings") -> Calibration | None:
        """What distances of queries of so many windows mean; None when fewer than two works are there."""
        level = CENTROIDS if mode == "centroids" else level_of(self, windows)
        if level not in self._calibrations:
            stored = self.nulls if level in (WHOLE, CENTROIDS) else self._measured(level)
            self._calibrations[level] = Calibration.of(stored, level)
        return self._calibrations[level]

    def _measured(self, level: int) -> dict[str, Tensor]:
        """What `calibrate` finds for shorter queries. It takes a while, so it is kept beside the vectors."""
        path = self.folder / f"scale-{self.generation}-{level}-{self.matching.reduction}.safetensors"
        if path.is_file():
            try:
                return load_file(path)
            except SafetensorError as error:
                raise UserError(f"{path}: cannot be read ({error}); delete it") from None
        found = calibrate(self, level)
        if found and self.generation and os.access(self.folder, os.W_OK):  # else it is measured anew
            with replacing(path) as part:
                save_file(found, part)
        return found


def _nothing(dim: int) -> dict[str, Tensor]:
    empty = {name: torch.zeros(0) for name in ("norms", "start", "length", "tempo")}
    return {"vectors": torch.zeros(0, dim), **empty}


def _read(source: Path | bytes) -> pl.DataFrame:
    """A table of recordings; a column that an older version did not write is null."""
    table = pl.read_ndjson(source, infer_schema_length=None)
    here = table.columns
    return table.select(
        (pl.col(name) if name in here else pl.lit(None)).cast(kind).alias(name) for name, kind in COLUMNS.items()
    )


def _line(facts: dict[str, Any]) -> str:
    return json.dumps(facts, sort_keys=True)
