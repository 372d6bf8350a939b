"""What a corpus is: where its files are and what its labels mean. Nothing here decodes audio."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from tonnetz.audio import EXTENSIONS
from tonnetz.errors import UserError

Progress = Callable[[int, int], None]  # (done, total)


class Corpus(ABC):
    """A folder of recordings. A subclass sets `name`, keeps its arguments in attributes and yields rows.

    Args:
        root: the folder (or the file that lists the recordings).
        split: put every track of this corpus into one split (train | valid | test); null keeps its own.
    """

    name: ClassVar[str]
    multilabel: bool = False  # whether a track may carry several labels, or none of them
    coverage: dict[str, Any] | None = None  # of what a corpus lists, how much is there: set by `tracks`
    only: str | None = None  # of its own splits, the one to take: set where the corpus is one of several
    free: ClassVar[frozenset[str]] = frozenset(["split", "only", "coverage"])  # attributes that change no audio

    def __init__(self, root: str | Path, *, split: str | None = None) -> None:
        self.root = Path(root).expanduser()
        self.split = split

    def fetch(self, progress: Progress | None = None) -> None:
        """Make sure that the raw files exist. The default refuses a missing root."""
        if not self.root.exists():
            raise UserError(f"data.root={self.root}: no such file or folder; say where the corpus is, data.root=PATH")

    @abstractmethod
    def tracks(self) -> Iterator[dict[str, Any]]:
        """Yield one row a track (the columns of ``tracks.SCHEMA``; id, path and labels at least)."""

    @property
    def key(self) -> str:
        """Folder name of what is prepared from this corpus: its name, a fingerprint of root and arguments."""
        facts = {name: str(value) for name, value in vars(self).items() if name not in self.free}
        facts["root"] = str(self.root.resolve())
        digest = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=4).hexdigest()
        return f"{self.name}-{digest}"

    def audio_files(self, folder: Path | None = None) -> list[Path]:
        """All audio files under `folder` (default: the root), sorted; hidden ones are left out."""
        folder = folder or self.root
        return sorted(
            path
            for path in folder.rglob("*")
            if path.suffix.lower() in EXTENSIONS
            and path.is_file()
            and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        )
