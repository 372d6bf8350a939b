"""GTZAN (Tzanetakis and Cook 2002): 1,000 clips of 30 s, ten genres; without its faults, as Kereliuk et al. list."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from tonnetz.datasets.assets import Asset, DownloadableList
from tonnetz.errors import UserError
from tonnetz.tracks import SPLITS

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
FILTERED = "fault_filtered"


class Gtzan(DownloadableList):
    """Clips named ``GENRE.NNNNN`` (wav, au, ...) in any sub-folder; the label is the genre.

    Args:
        root: the folder.
        lists: ``fault_filtered``: the artist-filtered lists without repeated and broken clips, 443 train, 197 valid
            and 290 test, that come with torchaudio; or a folder with train*.txt, valid*.txt and test*.txt, a clip a
            line; or null: all clips, with data.valid and data.test taken from them.
        download: fetch the archive, 1.2 GB, when it is not there yet.
        url: address of the folder that holds genres.tar.gz; null = `home`.
        missing: ``skip`` or ``fail``, for listed clips without a file.
        split: put every clip into this split.
    """

    name = "gtzan"
    home = "https://huggingface.co/datasets/marsyas/gtzan/resolve/main/data"
    assets = (
        Asset(
            {"genres.tar.gz": "24347e0223d2ba798e0a558c4c172d9d4a19c00bb7963fe055d183dadb4ef2c6"},
            into="genres",
        ),
    )

    def __init__(
        self,
        root: str | Path,
        *,
        lists: str | None = FILTERED,
        download: bool = False,
        url: str | None = None,
        missing: str = "skip",
        split: str | None = None,
    ) -> None:
        super().__init__(root, download=download, url=url, missing=missing, split=split)
        self.lists = lists

    def listed(self) -> Iterator[dict[str, Any]]:
        """Yield one row a clip of the lists. Raises UserError for a list that is missing or names no clip of GTZAN."""
        if self.lists is None:
            names = dict.fromkeys(sorted(path.stem for path in self.audio_files()))
            if not names:
                raise UserError(f"{self.root}: no audio files under it; unpack genres.tar.gz there")
        elif self.lists == FILTERED:
            names = _filtered()
        else:
            names = _read(Path(self.lists).expanduser())
        for name, split in names.items():
            genre = name.partition(".")[0]
            if genre not in GENRES:
                where = f"data.corpus.lists={self.lists}" if self.lists else self.root
                raise UserError(f"{where}: '{name}' is not named GENRE.NNNNN, of {', '.join(GENRES)}; take it out")
            yield {"id": name, "audio": name, "labels": [genre], "split": split}


def _filtered() -> dict[str, str | None]:
    """Split by clip, of the lists that torchaudio keeps."""
    from torchaudio.datasets import gtzan

    lists = (gtzan.filtered_train, gtzan.filtered_valid, gtzan.filtered_test)
    return {name: split for split, names in zip(SPLITS, lists, strict=True) for name in names}


def _read(folder: Path) -> dict[str, str | None]:
    """Split by clip, of the three lists in a folder."""
    found: dict[str, str | None] = {}
    for split in SPLITS:
        paths = sorted(folder.glob(f"{split}*.txt"))
        if len(paths) != 1:
            raise UserError(f"data.corpus.lists={folder}: {len(paths)} files {split}*.txt in it; it needs one")
        for line, text in enumerate(paths[0].read_text(encoding="utf-8-sig").splitlines(), 1):
            path = PurePath(text.strip())
            name = path.name if path.suffix[1:].isdigit() else path.stem  # with an extension or without
            if not name:
                continue
            if name in found:
                raise UserError(f"{paths[0]} line {line}: {name} is in the list of {found[name]} already; remove one")
            found[name] = split
    return found
