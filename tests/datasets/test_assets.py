"""Downloads, answered by a small server on this machine."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import zipfile
from http.server import BaseHTTPRequestHandler

import pytest

from tests.conftest import serving
from tonnetz.datasets import assets
from tonnetz.datasets.assets import Asset, digest, download, fetch, unpack
from tonnetz.errors import DiskFull, UserError

DATA = bytes(range(256)) * 40_000  # ten megabytes


class Server(BaseHTTPRequestHandler):
    """Files with ranges. `server.cut` ends every answer after so many bytes; `server.ranges` = False ignores ranges."""

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Range")))
        data = self.server.files.get(self.path)
        if data is None:
            self.send_error(404)
            return
        start = 0
        if self.headers.get("Range") and self.server.ranges:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(data):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start:][: self.server.cut])

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture
def server():
    with serving(Server, files={"/set/a.bin": DATA}, asked=[], cut=None, ranges=True) as server:
        server.url += "/set"
        yield server


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256"])
def test_download_is_checked_and_not_repeated(server, tmp_path, algorithm):
    steps = []
    checksum = hashlib.new(algorithm, DATA).hexdigest()
    for _ in range(2):
        path = download(f"{server.url}/a.bin", tmp_path / "new/a.bin", checksum, lambda *step: steps.append(step))
    assert path.read_bytes() == DATA
    assert digest(path, checksum) == checksum
    assert steps[-1] == (len(DATA), len(DATA))
    assert len(server.asked) == 1
    assert os.listdir(tmp_path / "new") == ["a.bin"]


def test_broken_download_goes_on_where_it_was(server, tmp_path):
    server.cut = 3_000_000
    checksum = hashlib.sha256(DATA).hexdigest()
    with pytest.raises(UserError, match=r"broke off .*; run the same command to go on"):
        download(f"{server.url}/a.bin", tmp_path / "a.bin", checksum)
    assert not (tmp_path / "a.bin").exists()
    have = (tmp_path / "a.bin.part").stat().st_size
    assert 0 < have <= 3_000_000
    server.cut = None
    assert download(f"{server.url}/a.bin", tmp_path / "a.bin", checksum).read_bytes() == DATA
    assert server.asked[-1] == ("/set/a.bin", f"bytes={have}-")


def test_server_without_ranges_sends_all_again(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(b"x" * 1000)
    server.ranges = False
    assert download(f"{server.url}/a.bin", tmp_path / "a.bin").read_bytes() == DATA


def test_whole_part_is_only_checked(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(DATA)
    checksum = hashlib.md5(DATA).hexdigest()
    assert download(f"{server.url}/a.bin", tmp_path / "a.bin", checksum).read_bytes() == DATA


def test_wrong_content_is_refused_and_removed(server, tmp_path):
    with pytest.raises(UserError, match=r"a\.bin: its checksum is [0-9a-f]{32}, not 0{32}: damaged") as caught:
        download(f"{server.url}/a.bin", tmp_path / "a.bin", "0" * 32)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []
    with pytest.raises(UserError, match="'abc': no MD5, SHA-1 or SHA-256"):
        download(f"{server.url}/a.bin", tmp_path / "a.bin", "abc")


def test_unreachable(server, tmp_path):
    with pytest.raises(UserError, match=r"/b\.bin: 404 .*; check data\.corpus\.url, or put .*b\.bin there"):
        download(f"{server.url}/b.bin", tmp_path / "b.bin")
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9/b\.bin: not reachable .*data\.corpus\.download=false"):
        download("http://127.0.0.1:9/b.bin", tmp_path / "b.bin")
    assert os.listdir(tmp_path) == []


def packed(kind, names=("audio/a.wav", "audio/b.wav")):
    """An archive of files that hold their names."""
    memory = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(memory, "w") as archive:
            for name in names:
                archive.writestr(name, name)
    else:
        with tarfile.open(fileobj=memory, mode="w:gz") as archive:
            for name in names:
                entry = tarfile.TarInfo(name)
                entry.size = len(name)
                archive.addfile(entry, io.BytesIO(name.encode()))
    return memory.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("parts", [1, 3])
def test_archive_appears_whole(server, tmp_path, kind, parts):
    data = packed(kind)
    step = -(-len(data) // parts)
    pieces = {f"x.{i}": data[i * step : (i + 1) * step] for i in range(parts)}
    server.files = {f"/set/{name}": piece for name, piece in pieces.items()} | {"/set/table.csv": b"1"}
    sums = {name: hashlib.sha256(piece).hexdigest() for name, piece in pieces.items()}
    wanted = (Asset({"table.csv": None}), Asset(sums, into="mp3"))
    (tmp_path / "mp3.77.part/old").mkdir(parents=True)  # of a process that was killed
    for _ in range(2):
        fetch(f"{server.url}/", wanted, tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["mp3", "table.csv"]
    assert (tmp_path / "mp3/audio/b.wav").read_text() == "audio/b.wav"
    assert len(server.asked) == 1 + parts


def test_bad_archives(tmp_path):
    (tmp_path / "bad").write_bytes(b"no archive")
    with pytest.raises(UserError, match="bad: cannot be unpacked"):
        unpack([tmp_path / "bad"], tmp_path / "out")
    (tmp_path / "bad").write_bytes(packed("tar", ("../../escape.wav",)))
    with pytest.raises(UserError, match=r"bad: cannot be unpacked .*outside the destination"):
        unpack([tmp_path / "bad"], tmp_path / "out")
    (tmp_path / "bad").write_bytes(packed("tar", [f"{i}.wav" for i in range(2000)])[:-500])
    with pytest.raises(UserError, match="bad: cannot be unpacked"):
        unpack([tmp_path / "bad"], tmp_path / "out")
    assert os.listdir(tmp_path) == ["bad"]


def test_disk_that_is_full_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    (tmp_path / "x.zip").write_bytes(packed("zip"))
    monkeypatch.setattr(assets, "_unpack", full)
    with pytest.raises(DiskFull, match="the disk is full; make room"):
        unpack([tmp_path / "x.zip"], tmp_path / "out")
    assert os.listdir(tmp_path) == ["x.zip"]
