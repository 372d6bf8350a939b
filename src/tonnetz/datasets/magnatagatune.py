"""MagnaTagATune (Law et al. 2009): 25,863 clips of 29 s with tags, in the two splits that results are published for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from tonnetz.datasets.assets import Asset, DownloadableList
from tonnetz.datasets.files import find_table, stream_csv
from tonnetz.errors import UserError

ANNOTATIONS, CLIPS = "annotations_final.csv", "clip_info_final.csv"
PROTOCOLS = ("pons", "clean")
TAGS = (  # the 50 most frequent ones, most frequent first
    *("guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast", "piano"),
    *("ambient", "beat", "violin", "vocal", "synth", "female", "indian", "opera", "male", "singing", "vocals"),
    *("no vocals", "harpsichord", "loud", "quiet", "flute", "woman", "male vocal", "no vocal", "pop", "soft"),
    *("sitar", "solo", "man", "classic", "choir", "voice", "new age", "dance", "male voice", "female vocal"),
    *("beats", "harp", "cello", "no voice", "weird", "country", "metal", "female voice", "choral"),
)
CORRUPT = frozenset(["35644", "55753", "57881"])  # clips whose file holds nothing
SPLITS = {**dict.fromkeys("0123456789ab", "train"), "c": "valid", **dict.fromkeys("def", "test")}  # by folder
SEGMENT = re.compile(r"-\d+-\d+$")  # seconds of the clip within its recording, at the end of a file's name


class MagnaTagATune(DownloadableList):
    """``annotations_final.csv``, ``clip_info_final.csv`` and the clips, in any sub-folder and any format.

    Labels are the 50 most frequent tags, without merging synonyms. The folder that a clip is published in (0 to f)
    says its split. Columns: group (the recording), artist and title. Without clip_info_final.csv, group is taken
    from the file's name, and artist is unknown.

    Args:
        root: the folder.
        protocol: ``pons`` has all clips: 18,706 train, 1,825 valid and 5,329 test, three broken files left out;
            ``clean`` leaves out those without any of the tags: 15,247, 1,529 and 4,332. Their results do not compare.
        download: fetch what is not there yet: five files, 3 GB.
        url: address of the folder that holds them under their published names; null = `home`.
        missing: ``skip`` or ``fail``, for clips without a file.
        split: put every clip into this split.
    """

    name = "magnatagatune"
    multilabel = True
    home = "https://mirg.city.ac.uk/datasets/magnatagatune"
    assets = (
        Asset({ANNOTATIONS: "99b94e95825d4fa576386a5367b9c96e0ec636e9f9c240aceb492f4728f68c3c"}),
        Asset({CLIPS: "cb6108a10d3a91f0bfd7d2fbec2382559d15f20c8d28093f14e12162a47a3e78"}),
        Asset(
            {
                "mp3.zip.001": "f857fe185968773058cc71662c2ef5d8f2d4b7338e3c122cfd52f82dcb9760b9",
                "mp3.zip.002": "fc2e1ec441755556ed1398b1808f1b08b6034372f8bc27394510c0c58cdb52ce",
                "mp3.zip.003": "83a689824c17e82f6eb81cdbc4e4ca239a4cfc1fb41f1a5c80b861caec90450f",
            },
            into="mp3",
        ),
    )

    def __init__(
        self,
        root: str | Path,
        *,
        protocol: str = "pons",
        download: bool = False,
        url: str | None = None,
        missing: str = "skip",
        split: str | None = None,
    ) -> None:
        super().__init__(root, download=download, url=url, missing=missing, split=split)
        if protocol not in PROTOCOLS:
            raise UserError(f"data.corpus.protocol={protocol}: known are {', '.join(PROTOCOLS)}")
        self.protocol = protocol

    def listed(self) -> Iterator[dict[str, Any]]:
        """Yield one row a clip of the protocol. Raises UserError for a missing or damaged table."""
        annotations = find_table(self.root, ANNOTATIONS, "download it beside the clips (it holds the tags)")
        known = self._recordings(annotations.with_name(CLIPS))
        for line, cells in stream_csv(annotations, ("clip_id", "mp3_path", *TAGS), "\t"):
            place = PurePosixPath(cells["mp3_path"])
            tags = [tag for tag in TAGS if cells[tag] == "1"]
            if cells["clip_id"] in CORRUPT or (self.protocol == "clean" and not tags):
                continue
            if place.parts[:1] == () or place.parts[0] not in SPLITS:
                raise UserError(f"{annotations} line {line}: mp3_path '{place}' lies in no folder 0 to f; restore it")
            facts = known.get(cells["clip_id"], {"group": str(place.parent / SEGMENT.sub("", place.stem))})
            split = SPLITS[place.parts[0]]
            yield {"id": cells["clip_id"].zfill(5), "audio": place.stem, "labels": tags, "split": split, **facts}

    def _recordings(self, path: Path) -> dict[str, dict[str, Any]]:
        """Recording, artist and title by clip; a recording is a track of an album. Nothing without the table."""
        if not path.is_file():
            return {}
        columns = ("clip_id", "track_number", "title", "artist", "url")
        return {
            cells["clip_id"]: {
                "group": f"{cells['url']}#{cells['track_number']}",
                "artist": cells["artist"] or None,
                "title": cells["title"] or None,
            }
            for _, cells in stream_csv(path, columns, "\t")
        }

    def facts(self, found: list[dict[str, Any]]) -> dict[str, Any]:
        """The protocol, and how many recordings and artists there are."""
        counts = {f"{name}s": len({row[name] for row in found if row.get(name)}) for name in ("group", "artist")}
        return {"protocol": self.protocol, **counts}
