"""Downloads of corpora: resumed, checked against a checksum, in place when they are whole."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

from tonnetz.atomic import replacing
from tonnetz.datasets.base import Corpus, Progress
from tonnetz.datasets.listed import Listed
from tonnetz.errors import UserError

TIMEOUT = 60  # seconds without an answer
BLOCK = 2**20  # bytes
ALGORITHMS = {32: "md5", 40: "sha1", 64: "sha256"}  # by hexadecimal digits


class Absent(UserError):
    """A server does not have a file, or does not give it away."""


@dataclass(frozen=True)
class Asset:
    """Files that a corpus is published as.

    Args:
        files: their names, and the checksum (MD5, SHA-1 or SHA-256 in hexadecimal digits) of each; null = unknown.
        into: folder that they are unpacked to: one archive (tar, zip), or the parts of one. Null keeps the files.
    """

    files: Mapping[str, str | None]
    into: str | None = None


class Downloadable(Corpus):
    """A corpus whose files can be fetched from where its publishers, or others, keep them.

    Args:
        root: the folder.
        download: fetch what is not there yet.
        url: address of the folder that holds the files of the corpus under their published names; null = `home`.
        options: of the corpus.
    """

    home: ClassVar[str]  # where they were when this was written
    assets: ClassVar[tuple[Asset, ...]] = ()
    free = Corpus.free | {"download", "url"}

    def __init__(self, root: str | Path, *, download: bool = False, url: str | None = None, **options: Any) -> None:
        super().__init__(root, **options)
        if url is not None and not url.startswith(("https://", "http://")):
            raise UserError(f"data.corpus.url={url}: must begin with https:// or http://")
        self.download, self.url = download, url

    def wanted(self) -> Sequence[Asset]:
        """What is fetched. The default are all of `assets`."""
        return self.assets

    def fetch(self, progress: Progress | None = None) -> None:
        """Refuse a missing folder, or download what it lacks; a later call goes on. Raises UserError."""
        if self.download:
            fetch(self.url or self.home, self.wanted(), self.root, progress)
        super().fetch(progress)


class DownloadableList(Downloadable, Listed):
    """A listed corpus whose files can be fetched."""

    free = Downloadable.free | Listed.free


def fetch(base: str, assets: Sequence[Asset], folder: Path, progress: Progress | None = None) -> None:
    """Bring what is not in `folder` yet from the address `base`. Raises UserError when it cannot be had or is wrong."""
    for asset in assets:
        if asset.into is not None and (folder / asset.into).is_dir():
            continue
        paths = [
            download(f"{base.rstrip('/')}/{name}", folder / name, checksum, progress)
            for name, checksum in asset.files.items()
        ]
        if asset.into is not None:
            unpack(paths, folder / asset.into)
            for path in paths:
                path.unlink()


def download(url: str, target: Path, checksum: str | None = None, progress: Progress | None = None) -> Path:
    """Return `target`, fetched from `url` when it is not there; bytes of a broken download are kept and continued.

    Raises Absent when the server answers that it has no such file, UserError when the address does not answer, the
    connection breaks off, or the checksum is another.
    """
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")  # not `replacing`: it stays when the download breaks off
    try:
        _receive(url, part, progress)
    except urllib.error.HTTPError as error:
        raise Absent(f"{url}: {error.code} {error.reason}; check data.corpus.url, or put {target} there") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        done = f"broke off ({reason}); run the same command to go on" if part.is_file() else f"not reachable ({reason})"
        raise UserError(f"{url}: {done}; or put {target} there by hand, data.corpus.download=false") from None
    found = digest(part, checksum) if checksum else None
    if found != (checksum.lower() if checksum else None):
        part.unlink()
        raise UserError(f"{url}: its checksum is {found}, not {checksum}: damaged, or another version; fetch it anew")
    os.replace(part, target)
    return target


def _receive(url: str, part: Path, progress: Progress | None) -> None:
    """Append to `part` what it lacks of the file at `url`; begin anew where the server knows no ranges."""
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is left to send: the checksum decides
            return
        raise
    with answer:
        if answer.status != 206:
            have = 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        with part.open("ab" if have else "wb") as file:
            while block := answer.read(BLOCK):
                file.write(block)
                have += len(block)
                if progress and total:
                    progress(have, total)
    if total is not None and have < total:
        raise ConnectionError(f"{have} of {total} bytes")


def digest(path: Path, like: str) -> str:
    """Checksum of a file by the algorithm that writes as many digits as `like`: MD5, SHA-1 or SHA-256."""
    algorithm = ALGORITHMS.get(len(like))
    if algorithm is None:
        raise UserError(f"'{like}': no MD5, SHA-1 or SHA-256 in hexadecimal digits; correct the checksum")
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def unpack(paths: Sequence[Path], folder: Path) -> None:
    """Unpack an archive (tar, zip), or one cut into several files, to `folder`, which appears when it is whole.

    Members that would lie outside of it are refused. Raises UserError, naming the file, when it is no archive.
    """
    for old in folder.parent.glob(f"{folder.name}.*.part"):  # of a process that was killed
        shutil.rmtree(old)
    with replacing(folder) as part:
        try:
            part.mkdir()
            with _joined(paths) as whole:
                _unpack(whole, part)
        except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            shutil.rmtree(part)
            raise UserError(f"{paths[0]}: cannot be unpacked ({error}); delete it and fetch it anew") from None
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise


@contextmanager
def _joined(paths: Sequence[Path]) -> Iterator[IO[bytes]]:
    """The file, or the files one after the other."""
    if len(paths) == 1:
        with paths[0].open("rb") as file:
            yield file
        return
    with tempfile.TemporaryFile(dir=paths[0].parent) as whole:
        for path in paths:
            with path.open("rb") as piece:
                shutil.copyfileobj(piece, whole, BLOCK)
        whole.seek(0)
        yield whole


def _unpack(file: IO[bytes], folder: Path) -> None:
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as members:
            members.extractall(folder)  # which takes roots and .. out of names
        return
    file.seek(0)
    with tarfile.open(fileobj=file) as archive:
        archive.extractall(folder, filter="data")
