"""MedleyDB (Bittner et al. 2014, 2016): multitrack recordings, a file an instrument (stem), with activations."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from tonnetz.datasets.base import Progress
from tonnetz.datasets.listed import Listed
from tonnetz.errors import UserError, suggest

VARIABLE = "MEDLEYDB_PATH"  # where the corpus's own tools look for it
FACTS = Path(__file__).with_suffix(".yaml")
VERSIONS = ("V1", "V2", "other")
FAMILIES = frozenset(["string section", "brass section", "horn section"])  # of no single instrument
NON_INSTRUMENTS = frozenset(["main system", "unlabeled", "fx/processed sound"])
METADATA, ACTIVATIONS = "_METADATA.yaml", "_ACTIVATION_CONF.lab"
THRESHOLD = 0.5  # of the confidence that a stem sounds
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class MedleyDB(Listed):
    """One row a stem of ``Audio/TRACK/TRACK_STEMS/*.wav``, as ``TRACK_METADATA.yaml`` names it; RAW is not used.

    Metadata and activations may lie anywhere in the folder: in ``Metadata/`` and ``Annotations/``, or beside the track.
    Stems of a song stay together (columns group and track). Column active lists the [start, end] seconds in which
    the stem sounds, where ``TRACK_ACTIVATION_CONF.lab`` is above 0.5 (null without that file). Further columns:
    version, ensemble, bleed, component, genre.

    Args:
        root: the folder; null takes the environment's MEDLEYDB_PATH.
        versions: V1 (122 tracks), V2 (74) and ``other`` multitracks of the same form.
        bleed: ``keep`` or ``drop`` tracks whose microphones hear other instruments, and the stems of ERRATA that do.
        ensembles: ``merge`` takes an X section for X and leaves out those of a whole family (string, brass, horn);
            ``keep`` leaves them classes of their own; ``drop`` leaves all out.
        non_instruments: keep main system, unlabeled and fx/processed sound.
        exclude: tracks and stems to leave out, by name.
        missing: ``skip`` or ``fail``, for stems without a file.
        split: put every stem into this split.
    """

    name = "medleydb"
    free = Listed.free | {"_left_out", "_without"}

    def __init__(
        self,
        root: str | Path | None,
        *,
        versions: Sequence[str] = VERSIONS,
        bleed: str = "keep",
        ensembles: str = "merge",
        non_instruments: bool = False,
        exclude: Sequence[str] = (),
        missing: str = "skip",
        split: str | None = None,
    ) -> None:
        root = root or os.environ.get(VARIABLE)
        if root is None:
            raise UserError(f"data.root is missing: say where MedleyDB is, data.root=FOLDER, or set {VARIABLE}")
        super().__init__(root, missing=missing, split=split)
        for name in versions:
            if name not in VERSIONS:
                raise UserError(f"data.corpus.versions: '{name}' is unknown; known are {', '.join(VERSIONS)}")
        for key, value, known in (
            ("bleed", bleed, ("keep", "drop")),
            ("ensembles", ensembles, ("merge", "keep", "drop")),
        ):
            if value not in known:
                raise UserError(f"data.corpus.{key}={value}: known are {', '.join(known)}")
        self.versions, self.bleed, self.ensembles = tuple(versions), bleed, ensembles
        self.non_instruments = non_instruments
        self.exclude = tuple(name.removesuffix(".wav") for name in exclude)
        self._left_out: Counter[str] = Counter()
        self._without: list[str] = []

    def fetch(self, progress: Progress | None = None) -> None:
        """Refuse a missing folder."""
        if not self.root.is_dir():
            raise UserError(
                f"data.root={self.root}: no such folder; say where MedleyDB is, data.root=FOLDER, or set {VARIABLE}"
            )

    def listed(self) -> Iterator[dict[str, Any]]:
        """Yield one row a stem that is wanted. Raises UserError when there is no metadata, or damaged."""
        metadata = {path.name.removesuffix(METADATA): path for path in self.root.rglob(f"*{METADATA}")}
        if not metadata:
            raise UserError(f"{self.root}: no TRACK{METADATA} under it; copy the corpus's metadata there")
        known = yaml.load(FACTS.read_text(encoding="utf-8"), LOADER)
        version = {track: name for name in ("V1", "V2") for track in known[name]}
        bleeding = set(known["bleeding"])
        self._left_out, self._without = Counter(), self._unknown(metadata)
        activations = self._activations()
        names: set[str] = set()
        for track, path in sorted(metadata.items()):
            facts = _read(path)
            regions = None
            for name, stem in _stems(facts, path):
                names |= {track, name}
                row = {
                    "id": name,
                    "audio": name,
                    "group": track,
                    "track": track,
                    "artist": str(facts.get("artist") or track.split("_")[0]),
                    "version": version.get(track, "other"),
                    "bleed": facts.get("has_bleed") == "yes" or name in bleeding,
                    "component": stem.get("component") or None,
                    "genre": facts.get("genre"),
                    **self._labels(stem),
                }
                reason = self._refused(row)
                if reason:
                    self._left_out[reason] += 1
                    continue
                if regions is None and track in activations:
                    regions = read_activations(activations[track])
                yield {**row, "active": (regions or {}).get(_number(name))}
        self._check_exclude(names)

    def _unknown(self, metadata: dict[str, Path]) -> list[str]:
        """Tracks whose stems are there and whose metadata is not."""
        homes = {path.name.removesuffix("_STEMS") for path in self.root.rglob("*_STEMS") if path.is_dir()}
        return sorted(homes - metadata.keys())

    def _activations(self) -> dict[str, Path]:
        """The file of activations of every track; of the corpus's two revisions the second."""
        files = sorted(self.root.rglob(f"*{ACTIVATIONS}"), key=lambda path: ("v2" in path.parts, path))
        return {path.name.removesuffix(ACTIVATIONS): path for path in files}

    def _labels(self, stem: dict[str, Any]) -> dict[str, Any]:
        """Labels of a stem, and whether a section plays."""
        written = stem.get("instrument") or "Unlabeled"
        words = [str(word) for word in (written if isinstance(written, list) else [written])]
        sections = [word.endswith(" section") for word in words]
        if self.ensembles == "merge":
            words = [word if word in FAMILIES else word.removesuffix(" section") for word in words]
        return {"labels": list(dict.fromkeys(words)), "ensemble": any(sections)}

    def _refused(self, row: dict[str, Any]) -> str | None:
        """Why a stem is left out, or None."""
        family = any(label in FAMILIES for label in row["labels"])
        reasons = {
            "version": row["version"] not in self.versions,
            "exclude": row["id"] in self.exclude or row["track"] in self.exclude,
            "bleed": self.bleed == "drop" and row["bleed"],
            "ensembles": row["ensemble"] and (self.ensembles == "drop" or (self.ensembles == "merge" and family)),
            "non_instruments": not self.non_instruments and any(x.lower() in NON_INSTRUMENTS for x in row["labels"]),
        }
        return next((name for name, applies in reasons.items() if applies), None)

    def _check_exclude(self, names: set[str]) -> None:
        for name in self.exclude:
            if name not in names:
                raise UserError(
                    f"data.corpus.exclude: '{name}' is no track or stem of {self.root}{suggest(name, names)}"
                )

    def facts(self, found: list[dict[str, Any]]) -> dict[str, Any]:
        """Tracks and stems of each version, stems without activations, tracks without metadata, what was left out."""
        versions = {
            name: {
                "tracks": len({row["track"] for row in found if row["version"] == name}),
                "stems": sum(row["version"] == name for row in found),
            }
            for name in self.versions
        }
        return {
            "versions": versions,
            "without_activations": sum(row["active"] is None for row in found),
            "without_metadata": self._without,
            "left_out": dict(self._left_out),
        }

    def remarks(self) -> str:
        """Counts of each version, and what was left out."""
        assert self.coverage is not None
        parts = [f"{name} {n['tracks']} tracks, {n['stems']} stems" for name, n in self.coverage["versions"].items()]
        if self.coverage["without_activations"]:
            parts.append(f"{self.coverage['without_activations']} stems without activations")
        if self._without:
            parts.append(f"no metadata of {len(self._without)} tracks, the first: {self._without[0]}")
        if self._left_out:
            parts.append(
                "left out by " + ", ".join(f"{name} {count}" for name, count in sorted(self._left_out.items()))
            )
        return "; " + "; ".join(parts)


def _read(path: Path) -> dict[str, Any]:
    """The metadata of a track."""
    try:
        facts = yaml.load(path.read_text(encoding="utf-8"), LOADER)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())}); restore it") from None
    if not isinstance(facts, dict):
        raise UserError(f"{path}: not the metadata of a track; restore it")
    return facts


def _stems(facts: dict[str, Any], path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and facts of every stem in the metadata."""
    stems = facts.get("stems")
    if not isinstance(stems, dict) or not all(isinstance(stem, dict) for stem in stems.values()):
        raise UserError(f"{path}: names no stems; restore it")
    for stem in stems.values():
        name = Path(str(stem.get("filename", ""))).stem
        if _number(name) is None:
            raise UserError(f"{path}: stem file '{stem.get('filename')}' is not named TRACK_STEM_NN.wav; restore it")
        yield name, stem


def _number(name: str) -> int | None:
    """The number in TRACK_STEM_07 or S07."""
    digits = name.rpartition("_STEM_")[2].removeprefix("S")
    return int(digits) if digits.isdigit() else None


def read_activations(path: Path) -> dict[int | None, list[list[float]]]:
    """The [start, end] seconds where the confidence of each stem, by number, is above 0.5.

    The file is CSV: time, S01, S02, ... Raises UserError for anything else.
    """
    try:
        frame = pl.read_csv(path, infer_schema=False).cast(pl.Float64)
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: not a table of activations ({reason}); restore or remove it") from None
    _, *names = frame.columns
    table = frame.to_numpy()  # (T, 1 + stems)
    if not len(table):
        raise UserError(f"{path}: not a table of activations (no line of numbers); restore or remove it")
    time = table[:, 0]
    step = float(np.median(np.diff(time))) if len(time) > 1 else 0.0
    edges = np.append(time, time[-1] + step).round(4)  # (T + 1,)
    on = np.pad(table[:, 1:] > THRESHOLD, ((1, 1), (0, 0))).astype(np.int8)  # (T + 2, stems)
    change = np.diff(on, axis=0)  # (T + 1, stems)
    return {
        _number(name): np.stack([edges[column == 1], edges[column == -1]], 1).tolist()
        for name, column in zip(names, change.T, strict=True)
    }
