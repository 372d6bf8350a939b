"""Da-TACOS (Yesiler et al. 2019): the benchmark of 15,000 recordings and the cover-analysis subset, by metadata."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tonnetz.datasets.covers import Covers
from tonnetz.errors import UserError

SUBSETS = {"benchmark": "test", "coveranalysis": None}


class DaTacos(Covers):
    """``da-tacos_SUBSET_subset_metadata.json``: work id -> performance id -> facts.

    The benchmark is the split test; the cover analysis stays open. Audio files are named by the performance id
    (``P_123``, or 123), or by work and performance (``W_1_P_123``), in any sub-folder.

    Args:
        root: the folder, or one metadata file.
        subset: ``benchmark``, ``coveranalysis`` or ``all`` that is there.
        audio: folder of the audio files, relative to the root.
        missing: ``skip`` or ``fail``, for recordings without a file.
        split: put every recording into this split.
    """

    name = "datacos"

    def __init__(
        self,
        root: str | Path,
        *,
        subset: str = "all",
        audio: str | None = None,
        missing: str = "skip",
        split: str | None = None,
    ) -> None:
        super().__init__(root, audio=audio, missing=missing, split=split)
        if subset not in ("all", *SUBSETS):
            raise UserError(f"data.corpus.subset={subset}: known are all, {', '.join(SUBSETS)}")
        self.subset = subset

    def listed(self) -> Iterator[dict[str, Any]]:
        """Yield one row a performance. Raises UserError when there is no metadata, or what there is makes no sense."""
        files = [self.root] if self.root.is_file() else sorted(self.root.rglob("*metadata*.json"))
        wanted = SUBSETS if self.subset == "all" else {self.subset: SUBSETS[self.subset]}
        named = [(path, subset) for path in files for subset in wanted if subset in path.name]
        if not named:
            names = ", ".join(f"da-tacos_{subset}_subset_metadata.json" for subset in wanted)
            raise UserError(f"{self.root}: no {names}; check data.root and data.corpus.subset")
        for path, subset in named:
            yield from self._subset(path, subset)

    def _subset(self, path: Path, subset: str) -> Iterator[dict[str, Any]]:
        try:
            works = json.loads(path.read_text(encoding="utf-8"))
            performances = [(work, key, facts) for work, found in works.items() for key, facts in found.items()]
        except (ValueError, AttributeError) as error:
            raise UserError(f"{path}: not the metadata of Da-TACOS ({error}); restore it") from None
        for work, key, facts in performances:
            facts = facts if isinstance(facts, dict) else {}
            yield {
                "id": key,
                "audio": [key, f"{work}_{key}", key.removeprefix("P_")],
                "work": work,
                "group": key,
                "artist": facts.get("perf_artist"),
                "split": SUBSETS[subset],
                "title": facts.get("perf_title"),
                "work_title": facts.get("work_title"),
                "year": str(facts["release_year"]) if facts.get("release_year") else None,
                "instrumental": facts.get("instrumental"),
                "subset": subset,
            }
