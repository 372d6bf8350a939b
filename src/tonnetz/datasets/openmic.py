"""OpenMIC-2018 (Humphrey et al. 2018): 20 instruments, partial labels from a crowd."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tonnetz.datasets.base import Corpus
from tonnetz.datasets.files import read_csv
from tonnetz.errors import UserError

CLASSES = (
    *("accordion", "banjo", "bass", "cello", "clarinet", "cymbals", "drums", "flute", "guitar"),
    *("mallet_percussion", "mandolin", "organ", "piano", "saxophone", "synthesizer", "trombone", "trumpet"),
    *("ukulele", "violin", "voice"),
)
ARRAYS = "openmic-2018.npz"
TABLE = "openmic-2018-aggregated-labels.csv"


class OpenMIC(Corpus):
    """The unpacked archive: ``openmic-2018.npz``, ``audio/000/*.ogg``, ``partitions/``, ``class-map.json``.

    A class is positive where it was judged and its relevance is at least 0.5, unknown where nobody judged.
    The official test list is the split test; tracks of the training list stay open: validation comes
    out of them.

    Args:
        root: the folder, or the one that holds ``openmic-2018``.
        split: put every track into this split.
    """

    name = "openmic"
    multilabel = True

    def __init__(self, root: str | Path, *, split: str | None = None) -> None:
        super().__init__(root, split=split)

    @property
    def home(self) -> Path:
        """The folder of the archive."""
        inner = self.root / "openmic-2018"
        return inner if inner.is_dir() else self.root

    def tracks(self) -> Iterator[dict[str, Any]]:
        """Yield one row a clip. Raises UserError for a missing or damaged file of the archive."""
        classes = self._classes()
        keys, relevance, known = self._labels(classes)
        splits = self._splits()
        positive = known & (relevance >= 0.5)  # (N, K)
        names = np.array(classes)
        for key, yes, seen in zip(keys, positive, known, strict=True):
            yield {
                "id": key,
                "path": str(self.home / "audio" / key[:3] / f"{key}.ogg"),
                "labels": names[yes].tolist(),
                "unknown": names[~seen].tolist(),
                "split": splits.get(key),
            }

    def _classes(self) -> list[str]:
        """Class names in the order of the columns."""
        path = self.home / "class-map.json"
        if not path.is_file():
            return list(CLASSES)
        try:
            columns: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))
            order = sorted(columns, key=columns.__getitem__)
        except (ValueError, TypeError, AttributeError):
            raise UserError(f"{path}: not a JSON object of class: column; restore it") from None
        return order

    def _labels(self, classes: list[str]) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Return keys (N), relevance (N, K) in [0, 1] and whether it was judged (N, K)."""
        path = self.home / ARRAYS
        if not path.is_file():
            raise UserError(f"{path}: no such file; give the folder of the unpacked OpenMIC-2018, data.root=PATH")
        try:
            with np.load(path) as arrays:
                relevance, known = arrays["Y_true"], arrays["Y_mask"].astype(bool)
                keys = _strings(arrays)
        except (zipfile.BadZipFile, ValueError, KeyError, OSError, EOFError) as error:
            raise UserError(f"{path}: not the arrays of OpenMIC-2018 ({error}); restore it") from None
        if keys is None:
            return self._table(classes)
        if not len(keys) == len(relevance) == len(known) or relevance.shape[1:] != (len(classes),):
            raise UserError(f"{path}: {len(keys)} keys, labels {relevance.shape}, {len(classes)} classes; restore it")
        return keys, relevance, known

    def _table(self, classes: list[str]) -> tuple[list[str], np.ndarray, np.ndarray]:
        """The same from the table of labels, for archives whose keys are a pickle, which is not loaded."""
        path = self.home / TABLE
        if not path.is_file():
            raise UserError(f"{path}: no such file; it is needed since {ARRAYS} holds its keys as a pickle")
        _, lines = read_csv(path)
        try:
            cells = [(row["sample_key"], classes.index(row["instrument"]), float(row["relevance"])) for _, row in lines]
        except (KeyError, ValueError) as error:
            raise UserError(f"{path}: not the table of labels of OpenMIC-2018 ({error}); restore it") from None
        rows = {key: row for row, key in enumerate(sorted({key for key, _, _ in cells}))}
        relevance = np.full((len(rows), len(classes)), np.nan)
        where = np.array([(rows[key], column) for key, column, _ in cells]).T
        relevance[tuple(where)] = [value for _, _, value in cells]
        return list(rows), relevance, np.isfinite(relevance)

    def _splits(self) -> dict[str, str]:
        """Official split by key; the training list is checked and left open."""
        lists = {}
        for name in ("train", "test"):
            path = self.home / "partitions" / f"split01_{name}.csv"
            if not path.is_file():
                raise UserError(f"{path}: no such file; the official split is part of the archive, restore it")
            lists[name] = set(path.read_text(encoding="utf-8").split())
        both = lists["train"] & lists["test"]
        if both:
            raise UserError(f"{self.home / 'partitions'}: '{min(both)}' is in both lists, train and test; restore it")
        return dict.fromkeys(lists["test"], "test")


def _strings(arrays: Any) -> list[str] | None:
    """The keys, or None when they are pickled objects."""
    try:
        return [str(key) for key in arrays["sample_key"]]
    except ValueError:  # numpy refuses object arrays
        return None
