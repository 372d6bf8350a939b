"""IRMAS (Bosch et al. 2012): predominant instruments in mixes; 3 s training excerpts, longer test ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tonnetz.datasets.base import Corpus
from tonnetz.datasets.files import audio_by_id
from tonnetz.errors import UserError, suggest

CODES = ("cel", "cla", "flu", "gac", "gel", "org", "pia", "sax", "tru", "vio", "voi")
DRUMS = {"dru": "present", "nod": "absent"}
TRAINING_NAME = re.compile(r"(?P<prefix>.*?)(?P<tags>(\[\w+\])+)(?P<rest>.*)")  # 008__[cel][nod][cla]0058__1


class Irmas(Corpus):
    """Training folders cel ... voi, test files with a ``.txt`` of codes beside each, or both, at any depth.

    Excerpts of one song stay together (column group). Test files are the split test; training files are open.
    Columns drums (present | absent | unknown) and genre are read from the names of training files.

    Args:
        root: the folder.
        split: put every file into this split.
    """

    name = "irmas"

    def __init__(self, root: str | Path, *, split: str | None = None) -> None:
        super().__init__(root, split=split)

    @property
    def multilabel(self) -> bool:  # type: ignore[override]
        """Whether the test files, which may have several instruments, are there."""
        return any(not _is_training(path) for path in self.audio_files())

    def tracks(self) -> Iterator[dict[str, Any]]:
        """Yield one row a file. Raises UserError for a test file without labels or with an unknown code."""
        for name, path in audio_by_id(self).items():
            row = _training(path) if _is_training(path) else _test(path)
            yield {"id": name, "path": str(path), **row}


def _is_training(path: Path) -> bool:
    return path.parent.name in CODES and not path.with_suffix(".txt").exists()


def _training(path: Path) -> dict[str, Any]:
    """Parse ``prefix__[instrument][dru|nod][genre]song__n``; the second tag may be absent."""
    row = {"labels": [path.parent.name], "split": None, "group": None, "drums": "unknown", "genre": None}
    match = TRAINING_NAME.fullmatch(path.stem)
    if match:
        _, *tags = re.findall(r"\[(\w+)\]", match["tags"])  # the first repeats the instrument
        drums = [tag for tag in tags if tag in DRUMS]
        genres = [tag for tag in tags if tag not in DRUMS]
        row["drums"] = DRUMS[drums[0]] if drums else "unknown"
        row["genre"] = genres[0] if genres else None
        row["group"] = match["rest"].split("__")[0] or None
    return row


def _test(path: Path) -> dict[str, Any]:
    labels = path.with_suffix(".txt")
    if not labels.is_file():
        raise UserError(
            f"{path}: {labels} is missing; a test file has its labels beside it, a training file lies in a"
            f" folder named {', '.join(CODES)}"
        )
    codes = list(dict.fromkeys(labels.read_text(encoding="utf-8-sig", errors="replace").split()))
    if not codes:
        raise UserError(f"{labels}: names no instrument; write one code a line")
    for code in codes:
        if code not in CODES:
            raise UserError(f"{labels}: '{code}' is not an IRMAS instrument{suggest(code, CODES)}")
    song = re.sub(r"-\d+$", "", path.stem)
    return {"labels": codes, "split": "test", "group": song, "drums": "unknown", "genre": None}
