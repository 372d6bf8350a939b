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
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tonnetz.atomic import replacing
from tonnetz.calibration import CENTROIDS, WHOLE, Calibration, calibrate, level_of, typical_windows
from tonnetz.collection import COLUMNS, Collection
from tonnetz.errors import UserError, near
from tonnetz.manifest import write_json
from tonnetz.pieces import tries
from tonnetz.reductions import TINY
from tonnetz.shortlist import Shortlist

FORMAT = 1
BATCH = 8  # recordings embedded between two saves: what a kill may cost

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


class Index(Collection):
    """A collection that lives in a folder.

    Args:
        folder: where it lives.
        facts: encoder and frontend (fingerprints), window and hop in seconds, pad, normalize, and what every
            `Collection` needs.
    """

    def __init__(self, folder: str | Path, facts: dict[str, Any]) -> None:
        self.folder, self.generation = Path(folder), 0
        super().__init__(facts, str(folder))

    def hold(self, table: pl.DataFrame, arrays: Mapping[str, Tensor]) -> None:
        """Take these recordings; `null_...` among the arrays is what `calibrate` has found."""
        super().hold(table, arrays)
        self.nulls = {k: v for k, v in arrays.items() if k.startswith("null_")}
        self._calibrations: dict[tuple[int, bool], Calibration | None] = {}

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
        index.hold(table, {"tempo": torch.ones(len(arrays["vectors"])), **arrays})  # older ones knew no tempo
        return index

    @property
    def _vectors(self) -> Path:
        return self.folder / f"vectors-{self.generation}.safetensors"

    @property
    def _tracks(self) -> Path:
        return self.folder / f"tracks-{self.generation}.jsonl"

    @property
    def _near(self) -> Path:
        """The shortlist, if one was made."""
        return self.folder / f"vectors-{self.generation}.faiss"

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
        self.generation += 1  # first: the shortlist that calibration makes is kept under this number, not the old one
        self._near.unlink(missing_ok=True)  # of a commit that was killed: it may be of other vectors
        self.hold(table, arrays)
        self.nulls = calibrate(self)
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
            if path not in (self._vectors, self._tracks, self._near):
                path.unlink()
        shutil.rmtree(self.folder / "pending", ignore_errors=True)

    # Growing and shrinking

    def add(self, tracks: pl.DataFrame, embed: Embed, progress: Progress | None = None) -> dict[str, int]:
        """Embed and add the recordings that are not there yet; the rest stays as it is.

        `tracks` has id, path, work, duration, mark and, from a corpus, its name (see `distinct`). A recording whose
        mark has changed is embedded anew, and one with another work or place is moved. Rows that `embed` gives no
        vector for are left out. Returns how many were added, kept, left out and moved.
        """
        if tracks["id"].n_unique() < tracks.height:
            name = tracks["id"].filter(tracks["id"].is_duplicated())[0]
            raise UserError(f"{name}: this recording is given twice; ids must differ")
        tracks = tracks if "corpus" in tracks.columns else tracks.with_columns(corpus=pl.lit(None))
        tracks = tracks.select([pl.col(name).cast(COLUMNS[name]) for name in COLUMNS if name != "windows"])
        here = tracks.join(self.table.select("id", "mark"), on=["id", "mark"], how="semi")
        wanted = tracks.join(here.select("id"), on="id", how="anti")
        was = self.table.select("id", was="work", place="path")
        renamed = pl.col("work").is_not_null() & pl.col("work").ne_missing(pl.col("was"))
        other = renamed | (pl.col("path") != pl.col("place"))
        moved = here.select("id", "work", "path").join(was, on="id").filter(other).select("id", "work", "path")
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
            self._join(parts, moved)
        return {"added": added, "kept": here.height, "left out": wanted.height - added, "moved": moved.height}

    def distinct(self, tracks: pl.DataFrame) -> pl.DataFrame:
        """Rows of a corpus with the name of the corpus before an id or work that recordings of another one have here.

        Two corpora that both have a work 0001 do not mean the same one. A corpus is named after its folder; one that
        has moved since is known by its recordings, and keeps the name that it has here.
        """
        names = {name: self._known(rows) for (name,), rows in tracks.group_by("corpus") if name is not None}
        tracks = tracks.with_columns(pl.col("corpus").replace(names))
        for name in ("id", "work"):
            there = self.table.select(name, other="corpus").drop_nulls().unique()
            both = tracks.join(there, on=name, how="inner").filter(pl.col("other") != pl.col("corpus"))[name].unique()
            full = pl.concat_str("corpus", name, separator="/")
            tracks = tracks.with_columns(
                pl.when(pl.col(name).is_in(both.implode())).then(full).otherwise(name).alias(name)
            )
        return tracks

    def _known(self, rows: pl.DataFrame) -> str:
        """The name that a corpus has here: that of one with half of whose ids it shares the durations, or its own.

        Durations tell nothing where they are all the same, so they count once each.
        """
        own = str(rows["corpus"][0])
        here = self.table.filter(pl.col("corpus").is_not_null()).select(
            "corpus", "duration", id=pl.col("id").str.strip_prefix(pl.concat_str("corpus", pl.lit("/")))
        )
        if own in here["corpus"]:
            return own
        alike = here.join(rows.select("id", was="duration"), on="id").filter(
            (pl.col("duration") - pl.col("was")).abs() < 0.01
        )
        size = here.group_by("corpus").len("size").with_columns(pl.col("size").clip(upper_bound=rows.height))
        count = (
            alike.group_by("corpus")
            .agg(alike=pl.len(), apart=pl.col("duration").n_unique())
            .join(size, on="corpus")
            .filter(2 * pl.col("apart") >= pl.col("size"))
        )
        return str(count.sort("alike", "corpus", descending=[True, False])["corpus"][0]) if count.height else own

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
                known = [*self.works, *self.table["id"], *self.table["path"]]
                raise UserError(f"{name}: no such recording or work in {self.folder}{near(name, known)}")
            drop |= hit.to_numpy()
        self._commit(*self._without(~drop))
        return int(drop.sum())

    # For searching

    def _make_shortlist(self, vectors: Tensor) -> Shortlist:
        """Kept in the folder."""
        return Shortlist.load_or_build(self._near, vectors, self.facts["distance"])

    def calibration(self, windows: int, mode: str = "recordings", faiss: bool | None = None) -> Calibration | None:
        """What distances of queries of so many windows mean; None when fewer than two works are there.

        `faiss` is how the queries are searched for, see `search`.
        """
        level = CENTROIDS if mode == "centroids" else level_of(self, windows)
        stored = level in (WHOLE, CENTROIDS)  # measured when the index was made
        quick = not stored and Shortlist.wanted(faiss, len(self.windows.row))
        if (level, quick) not in self._calibrations:
            nulls = self.nulls if stored else self._measured(level, quick)
            self._calibrations[level, quick] = Calibration.of(nulls, level)
        found = self._calibrations[level, quick]
        many = tries(windows, typical_windows(self)) if level == WHOLE else 1.0
        return replace(found, tries=many) if found and many != 1 else found

    def _measured(self, level: int, quick: bool) -> dict[str, Tensor]:
        """What `calibrate` finds for shorter queries. It takes a while, so it is kept beside the vectors."""
        how = self.matching.reduction + ("-faiss" if quick else "")
        path = self.folder / f"scale-{self.generation}-{level}-{how}.safetensors"
        if path.is_file():
            try:
                return load_file(path)
            except SafetensorError as error:
                raise UserError(f"{path}: cannot be read ({error}); delete it") from None
        found = calibrate(self, level, quick)
        if found and self.generation and os.access(self.folder, os.W_OK):  # else it is measured anew
            with replacing(path) as part:
                save_file(found, part)
        return found


def _read(source: Path | bytes) -> pl.DataFrame:
    """A table of recordings; a column that an older version did not write is null."""
    table = pl.read_ndjson(source, infer_schema_length=None)
    here = table.columns
    return table.select(
        (pl.col(name) if name in here else pl.lit(None)).cast(kind).alias(name) for name, kind in COLUMNS.items()
    )


def _line(facts: dict[str, Any]) -> str:
    return json.dumps(facts, sort_keys=True)
