"""Recordings at web addresses: fetched once into a temporary folder, read like files, removed when the job ends."""

from __future__ import annotations

import http.client
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from tonnetz.audio import EXTENSIONS
from tonnetz.errors import UserError
from tonnetz.progress import progress_bar

MOST = 2**30  # bytes of a recording
SECONDS = 900  # for one recording
TIMEOUT = 30  # seconds without an answer
BLOCK = 2**16  # bytes
KEPT = "!#$%&'()*+,/:;=?@[]~"  # characters of an address that stay as they are


class Downloads:
    """The files of the addresses that one job was given."""

    def __init__(self) -> None:
        self.files: dict[str, Path] = {}
        self.folder: tempfile.TemporaryDirectory[str] | None = None

    def fetch(self, address: str) -> None:
        """Fetch what is not here yet. Raises UserError when it cannot be had."""
        if address in self.files:
            return
        self.folder = self.folder or tempfile.TemporaryDirectory(prefix="tonnetz-")
        suffix = _name(address).suffix.lower()
        target = Path(self.folder.name) / f"{len(self.files)}{suffix if suffix in EXTENSIONS else ''}"
        download(address, target)
        self.files[address] = target

    def remove(self) -> None:
        """Delete all files."""
        self.files.clear()
        if self.folder is not None:
            self.folder.cleanup()


_open: list[Downloads] = []  # of the jobs that run, the innermost last


@contextmanager
def fetching() -> Iterator[None]:
    """Let inputs be web addresses while a block, or the function that this decorates, runs; then remove their files."""
    downloads = Downloads()
    _open.append(downloads)
    try:
        yield
    finally:
        _open.remove(downloads)
        downloads.remove()


def is_address(item: str | Path) -> bool:
    """Whether an input is a web address."""
    return str(item).lower().startswith(("https://", "http://"))


def fetch(address: str) -> str:
    """Have the recording at an address here, which stays its name. Raises UserError when it cannot be had."""
    if not _open:
        raise UserError(f"{address}: this job reads files alone; fetch it yourself and give the file")
    _open[-1].fetch(address)
    return address


@contextmanager
def opened(path: str) -> Iterator[str]:
    """The file to read for a path or a fetched address; what is wrong with the file is told of the address."""
    file = next((str(job.files[path]) for job in reversed(_open) if path in job.files), path)
    try:
        yield file
    except UserError as error:
        if file == path:
            raise
        raise UserError(str(error).replace(file, path)) from None


def _name(address: str) -> PurePosixPath:
    return PurePosixPath(address.partition("?")[0])


def download(address: str, target: Path, most: int | None = None, seconds: float | None = None) -> None:
    """Fetch an address to `target`, at most so many bytes (MOST) in so many seconds (SECONDS), with a progress bar.

    Raises UserError when the address does not answer, breaks off, or has more.
    """
    most, until = most or MOST, time.monotonic() + (seconds or SECONDS)
    try:
        with progress_bar(f"fetching {_name(address).name}") as advance:
            quoted = urllib.parse.quote(address, safe=KEPT)
            request = urllib.request.Request(quoted, headers={"User-Agent": "tonnetz"})
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer, target.open("wb") as file:
                total, have = int(answer.headers.get("Content-Length") or 0), 0
                while block := answer.read1(BLOCK):
                    file.write(block)
                    have += len(block)
                    if max(have, total) > most:
                        raise UserError(f"{address}: more than {most / 2**20:.0f} MB; fetch it yourself, give the file")
                    if time.monotonic() > until:
                        raise TimeoutError("it takes too long")
                    advance(have, total or have)
        if have < total:
            raise ConnectionError(f"{have:,} of {total:,} bytes came")
    except urllib.error.HTTPError as error:
        raise UserError(f"{address}: {error.code} {error.reason}; check the address") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = str(getattr(error, "reason", error)) or type(error).__name__
        raise UserError(f"{address}: cannot be had ({reason}); try again, or give a file") from None
