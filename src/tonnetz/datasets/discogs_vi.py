"""Discogs-VI-YT (Araz et al. 2024): 98,000 works (cliques) and 493,000 versions with official YouTube ids."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tonnetz.datasets.covers import Covers, youtube_id
from tonnetz.errors import UserError

SPLIT = re.compile(r"[._-](train|val|valid|test)(?:\.jsonl?)?$")
NAMES = {"train": "train", "val": "valid", "valid": "valid", "test": "test"}
VIDEOS = ("youtube_id", "youtube_ids", "youtube_url", "youtube_urls", "youtube_video")


class DiscogsVI(Covers):
    """The metadata in any of its forms; audio files are named by the YouTube id, in any sub-folder.

    JSON (clique -> versions) or JSON Lines (clique_id, versions), the light files or the full ones. Files that end in
    train, val and test give the splits; without them the light file is taken, else the full one, and all is open.
    A version with several videos is the first that is there.

    Args:
        root: the folder, or one metadata file.
        file: name of the metadata file in the folder, when the choice above is not the wanted one.
        audio: folder of the audio files, relative to the root.
        missing: ``skip`` or ``fail``, for recordings without a file.
        split: put every recording into this split.
    """

    name = "discogs_vi"

    def __init__(
        self,
        root: str | Path,
        *,
        file: str | None = None,
        audio: str | None = None,
        missing: str = "skip",
        split: str | None = None,
    ) -> None:
        super().__init__(root, audio=audio, missing=missing, split=split)
        self.file = file

    def listed(self) -> Iterator[dict[str, Any]]:
        """Yield one row a version. Raises UserError, naming the file, for what cannot be read."""
        for path in self._files():
            part = SPLIT.search(path.name)
            for clique, versions in read_cliques(path):
                for version in versions:
                    yield self._row(path, clique, version, NAMES[part[1]] if part else None)

    def _files(self) -> list[Path]:
        """The metadata files to read."""
        if self.file or self.root.is_file():
            return [self.root / self.file if self.file else self.root]
        files = sorted(path for path in self.root.glob("*") if re.search(r"\.jsonl?(\.|$)", path.name))
        parts = [path for path in files if SPLIT.search(path.name)]
        light = [path for path in files if "light" in path.name]
        chosen = parts or light or files
        if not chosen or (not parts and len(chosen) > 1):
            found = ", ".join(path.name for path in chosen) or "none"
            raise UserError(f"{self.root}: needs one metadata file (found: {found}); name it, data.corpus.file=NAME")
        return chosen

    def _row(self, path: Path, clique: str, version: Any, split: str | None) -> dict[str, Any]:
        if not isinstance(version, dict) or "version_id" not in version:
            raise UserError(f"{path}: clique {clique} has a version without version_id; restore the file")
        tracks = version.get("tracks")
        facts = {**version, **(tracks[0] if isinstance(tracks, list) and tracks else {})}
        videos = _videos([version, *(tracks or [])])
        artists = facts.get("track_artist_names") or facts.get("release_artist_names") or []
        return {
            "id": str(version["version_id"]),
            "audio": videos,
            "work": clique,
            "group": videos[0] if videos else str(version["version_id"]),
            "artist": artists if isinstance(artists, str) else ", ".join(map(str, artists)) or None,
            "split": split,
            "title": facts.get("track_title"),
        }


def _videos(nodes: list[dict[str, Any]]) -> list[str]:
    """Ids of all videos that a version or its tracks name: text, or objects with a url, alone or in lists."""
    found: list[str | None] = []
    for node in nodes:
        for key in VIDEOS:
            values = node.get(key) or []
            for value in values if isinstance(values, list) else [values]:
                found.append(youtube_id(str(value.get("url", "")) if isinstance(value, dict) else str(value)))
    return [video for video in dict.fromkeys(found) if video]


def read_cliques(path: Path) -> Iterator[tuple[str, list[Any]]]:
    """Yield (clique id, versions) of a JSON or a JSON Lines file, the latter line by line.

    Raises UserError, naming the line, for what is neither.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    content = json.loads(line)
                except ValueError:
                    if number > 1:
                        raise UserError(f"{path} line {number}: not JSON; restore the file") from None
                    content = json.loads(line + file.read())  # one object over many lines
                yield from _cliques(content, f"{path} line {number}")
    except OSError:
        raise UserError(f"{path}: no such file") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON in UTF-8 ({error})") from None


def _cliques(content: Any, place: str) -> Iterator[tuple[str, list[Any]]]:
    if isinstance(content, dict) and "clique_id" in content:
        content = {content["clique_id"]: content.get("versions", [])}
    if not isinstance(content, dict):
        raise UserError(f"{place}: not an object of cliques; restore the file")
    for clique, versions in content.items():
        yield str(clique), versions if isinstance(versions, list) else [versions]
