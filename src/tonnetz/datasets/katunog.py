"""Katunog, the Philippine Indigenous Instrument Sounds Database (DOST-ASTI): a folder, or its web interface."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tonnetz.atomic import replacing
from tonnetz.audio import EXTENSIONS
from tonnetz.datasets.base import Corpus, Progress
from tonnetz.datasets.files import audio_by_id
from tonnetz.errors import UserError

URL = "https://katunog.asti.dost.gov.ph"
TABLE = "instruments.json"
QUERY = (
    "{instruments(page: %d, limit: 100) {page, pages, hasNext, objects "
    "{id, controlNumber, localName, englishName, hornbostel {name}}}}"
)
TIMEOUT = 60  # seconds without an answer


class Katunog(Corpus):
    """``root/CLASS/**/*.mp3`` (wav, ...); or, as downloaded, ``root/CONTROL_NUMBER/**`` and ``instruments.json``.

    Labels are cleaned names (see `clean`). With instruments.json there are the columns family (by Hornbostel and
    Sachs), local (the local name) and group: recordings of one instrument stay together.

    Args:
        root: the folder.
        names: ``english`` or ``local`` names as labels, of instruments that instruments.json knows.
        download: fetch what is not there yet from the web interface.
        url: where that is; null takes the institute's address.
        split: put every recording into this split.
    """

    name = "katunog"
    free = Corpus.free | {"download", "url"}

    def __init__(
        self,
        root: str | Path,
        *,
        names: str = "english",
        download: bool = False,
        url: str | None = None,
        split: str | None = None,
    ) -> None:
        super().__init__(root, split=split)
        if names not in ("english", "local"):
            raise UserError(f"data.corpus.names={names}: known are english, local")
        url = url or URL
        if not url.startswith(("https://", "http://")):
            raise UserError(f"data.corpus.url={url}: must begin with https:// or http://")
        self.names, self.download, self.url = names, download, url.rstrip("/")

    def fetch(self, progress: Progress | None = None) -> None:
        """Refuse a missing folder, or download what it lacks, instrument by instrument; a later call goes on.

        Raises UserError when the interface does not answer.
        """
        if not self.download:
            super().fetch(progress)
            return
        if not (self.root / TABLE).is_file():
            found = query_instruments(self.url)
            with replacing(self.root / TABLE) as part:
                part.write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")
        todo = [entry["control"] for entry in self._instruments() if not (self.root / entry["control"]).is_dir()]
        failed: dict[str, str] = {}
        for done, control in enumerate(todo, 1):
            try:
                download_instrument(self.url, control, self.root)
            except (urllib.error.HTTPError, zipfile.BadZipFile) as error:  # of this one alone
                failed[control] = str(error)
            except (OSError, http.client.HTTPException) as error:
                left = f"{len(todo) - done + 1} of {len(todo)} instruments are left; run the same command to go on"
                raise UserError(f"{self.url}: the download of {control} broke off ({error}); {left}") from None
            if progress:
                progress(done, len(todo))
        if failed:
            first, reason = next(iter(failed.items()))
            print(f"{self.name}: {len(failed)} of {len(todo)} downloads failed, the first: {first} ({reason})")

    def tracks(self) -> Iterator[dict[str, Any]]:
        """Yield one row a file. Raises UserError for a file in no folder, or of an instrument without a name."""
        known = {entry["control"]: entry for entry in self._instruments()}
        nameless = {key for key, entry in known.items() if not clean(entry[self.names] or "")}
        rows, left_out = [], set()
        for name, path in audio_by_id(self).items():
            folder, *inner = path.relative_to(self.root).parts
            if folder.endswith(".part"):  # of a download that was killed
                continue
            if not inner:
                raise UserError(f"{path}: lies in no class folder; put it into one")
            if folder in nameless:
                left_out.add(folder)
                continue
            entry = known.get(folder, {})
            label = clean(entry.get(self.names) or folder)
            if not label:
                raise UserError(f"{self.root / folder}: the name of the folder is empty without brackets; rename it")
            facts = {"family": clean(entry.get("family") or "") or None, "local": entry.get("local")}
            rows.append({"id": name, "path": str(path), "labels": [label], "group": entry.get("control"), **facts})
        if left_out:
            other = "local" if self.names == "english" else "english"
            print(
                f"{self.name}: left out {len(left_out)} instruments without a name in {self.names}, the first: "
                f"{min(left_out)}; data.corpus.names={other} takes the others"
            )
        return iter(rows)

    def _instruments(self) -> list[dict[str, Any]]:
        """What instruments.json holds, nothing when it is not there."""
        path = self.root / TABLE
        if not path.is_file():
            return []
        try:
            found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
            return [{key: entry[key] for key in ("control", "english", "local", "family")} for entry in found]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: not the list of instruments ({error}); delete it to fetch it anew") from None


def clean(name: str) -> str:
    """A label: without brackets and punctuation, lower case, ``_`` for spaces, ``-`` for slashes; may be empty."""
    bare = re.sub(r"\(.*?\)|\[.*?\]", "", name).lower()
    bare = re.sub(r"\s*/\s*", "-", re.sub(r"[^\w\s/\-]", "", bare))
    return re.sub(r"\s+", "_", bare.strip(" \t\n-_"))


def query_instruments(url: str) -> list[dict[str, Any]]:
    """All instruments that have a control number: that, English and local name, family.

    Raises UserError when the interface does not answer, or answers something else.
    """
    found: list[dict[str, Any]] = []
    page: dict[str, Any] = {"hasNext": True}
    while page["hasNext"]:
        body = json.dumps({"query": QUERY % (page.get("page", 0) + 1)}).encode()
        request = urllib.request.Request(f"{url}/api/", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                page = json.loads(answer.read())["data"]["instruments"]
            found += [_entry(item) for item in page["objects"] if _digits(item["controlNumber"])]
            page = {"page": int(page["page"]), "hasNext": bool(page["hasNext"])}
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            remedy = "fetch the recordings by hand into data.root/CLASS/, data.corpus.download=false"
            raise UserError(f"{url}/api/: not reachable ({reason}); {remedy}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{url}/api/: not an answer of Katunog ({error}); check data.corpus.url") from None
    return found


def _entry(item: dict[str, Any]) -> dict[str, Any]:
    family = (item.get("hornbostel") or {}).get("name")
    return {
        "control": f"PIISD{int(_digits(item['controlNumber'])):05d}",
        "english": item.get("englishName"),
        "local": item.get("localName"),
        "family": family,
    }


def _digits(control: str | None) -> str:
    return re.sub(r"\D", "", control or "")


def download_instrument(url: str, control: str, root: Path) -> None:
    """Fetch the recordings of an instrument into ``root/CONTROL``, which appears when all of them are there.

    Raises OSError when the connection fails, HTTPError and BadZipFile when this instrument cannot be had.
    """
    place = f"{url}/instruments/download_all_files?instrument_id={int(_digits(control))}&file_type=audio"
    with replacing(root / control) as part:
        try:
            with tempfile.TemporaryFile(dir=root) as archive:
                with urllib.request.urlopen(place, timeout=TIMEOUT) as answer:
                    shutil.copyfileobj(answer, archive)
                    expected = answer.headers.get("Content-Length")
                if expected and archive.tell() < int(expected):
                    raise ConnectionError(f"{archive.tell()} of {expected} bytes")
                part.mkdir()
                unpack(archive, part)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise


def unpack(archive: IO[bytes], folder: Path) -> None:
    """Unpack audio files of a zip archive, and of those in it, into a folder. Raises BadZipFile."""
    with zipfile.ZipFile(archive) as members:
        for member in members.infolist():
            name = PurePosixPath(member.filename)
            parts = [part for part in name.parts if part not in ("/", "..", ".")]
            if member.is_dir() or not parts or any(part.startswith((".", "__")) for part in parts):
                continue
            target = folder.joinpath(*parts)
            if name.suffix.lower() == ".zip":
                with members.open(member) as packed, tempfile.TemporaryFile() as inner:
                    shutil.copyfileobj(packed, inner)
                    unpack(inner, target.with_suffix(""))
            elif name.suffix.lower() in EXTENSIONS:
                target.parent.mkdir(parents=True, exist_ok=True)
                with members.open(member) as packed, target.open("wb") as file:
                    shutil.copyfileobj(packed, file)
