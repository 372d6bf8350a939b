"""What a checkpoint has learned from: recordings by their sound, so that a later test knows which it has seen."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from tonnetz.datasets.base import Corpus
from tonnetz.tracks import fingerprint

PLACES, SIZE = 8, 1024  # of the samples of a file that identify it, and their bytes


def sound_marks(frame: pl.DataFrame) -> Tensor:
    """A number (rows,) int64 for the prepared file of each row: of its size and some of its bytes, not of its name."""
    places = frame["audio"].unique().to_list()
    marks = {place: _mark(Path(place)) for place in places}
    return torch.tensor([marks[place] for place in frame["audio"]], dtype=torch.int64)


def _mark(path: Path) -> int:
    size = path.stat().st_size
    digest = hashlib.blake2b(size.to_bytes(8, "big"), digest_size=8)
    with path.open("rb") as file:
        for i in range(PLACES):
            file.seek(size * (2 * i + 1) // (2 * PLACES))
            digest.update(file.read(SIZE))
    return int.from_bytes(digest.digest(), "big", signed=True)


def learned(data: Any, task: str, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What training on a data module adds to what a checkpoint had learned `before`: plain values and one tensor.

    stages: task, corpora (name, and the split that all of it was put into), tracks and fingerprint of each training;
    recordings: marks (N,) of all that was trained on.
    """
    train = data.split("train")
    stage = {
        "task": task,
        "corpora": [{"name": corpus.name, "split": corpus.split} for corpus in data.corpora],
        "split": "train",
        "tracks": train.height,
        "fingerprint": fingerprint(train),
        "opened": opened(data.corpora),
    }
    marks = [sound_marks(train), *([before["recordings"]] if before else [])]
    return {"stages": [*(before["stages"] if before else []), stage], "recordings": torch.cat(marks).unique()}


def joined(found: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """What several checkpoints together have learned from, as their mean has; None when one does not say."""
    known = [each for each in found if each]
    if not known or len(known) < len(found):
        return None
    stages = [stage for each in known for stage in each["stages"]]
    once = [stage for i, stage in enumerate(stages) if stage not in stages[:i]]
    return {"stages": once, "recordings": torch.cat([each["recordings"] for each in known]).unique()}


def seen(frame: pl.DataFrame, found: Mapping[str, Any]) -> int:
    """How many rows of a table are of recordings that a checkpoint has learned from."""
    return int(torch.isin(sound_marks(frame), found["recordings"]).sum())


def opened(corpora: Sequence[Corpus]) -> list[str]:
    """Names of the corpora all of which is trained on, though they name tracks to validate or test."""
    whole = [corpus for corpus in corpora if corpus.split == "train"]
    taken = [{corpus.only} if corpus.only else {row.get("split") for row in corpus.tracks()} for corpus in whole]
    return [corpus.name for corpus, splits in zip(whole, taken, strict=True) if splits & {"valid", "test"}]
