"""A local folder, and the web interface as a small server on this machine answers it."""

from __future__ import annotations

import io
import json
import zipfile
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest
import soundfile
import yaml

from tests.conftest import serving
from tonnetz.datasets.katunog import Katunog, clean, unpack
from tonnetz.errors import UserError
from tonnetz.taxonomy import Taxonomy
from tonnetz.tracks import table
from tonnetz.tree_files import FOLDER


def wav():
    file = io.BytesIO()
    soundfile.write(file, 0.5 * np.sin(np.arange(400) / 5), 8000, format="WAV")
    return file.getvalue()


def archive(**files):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as members:
        for name, content in files.items():
            members.writestr(name.replace("__", "/"), content)
    return file.getvalue()


INSTRUMENTS = [
    {"controlNumber": "PIISD00002", "localName": "Gangsa", "englishName": "Flat gong", "hornbostel": "Idiophones"},
    {"controlNumber": "PIISD02596", "localName": "Tongali", "englishName": "Nose-flute (bamboo)", "hornbostel": None},
    {"controlNumber": "PIISD00007", "localName": "Kudyapi", "englishName": " (?) ", "hornbostel": "Chordophones"},
    {"controlNumber": None, "localName": "?", "englishName": "Ghost", "hornbostel": None},
]
AUDIO = {
    "2": archive(**{"a__one.wav": wav(), "notes.txt": b"x", "__MACOSX__a__._one.wav": b"x"}),
    "2596": archive(**{"deep.zip": archive(**{"b__two.wav": wav(), "three.wav": wav()})}),
    "7": archive(**{"four.wav": wav()}),
}


class Server(BaseHTTPRequestHandler):
    """Two pages of instruments, a zip archive each. `server.fate` says what goes wrong with one of them."""

    def log_message(self, *_):
        pass

    def do_POST(self):
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["query"]
        page = 1 if "page: 1," in query else 2
        chosen = INSTRUMENTS[:2] if page == 1 else INSTRUMENTS[2:]
        objects = [{**x, "hornbostel": x["hornbostel"] and {"name": x["hornbostel"]}} for x in chosen]
        answer = {"page": page, "pages": 2, "hasNext": page == 1, "objects": objects}
        self.reply(json.dumps({"data": {"instruments": answer}}).encode())
        self.server.queries += 1

    def do_GET(self):
        query = parse_qs(urlparse(self.path).query)
        [number] = query["instrument_id"]
        assert query["file_type"] == ["audio"]
        self.server.fetched.append(number)
        fate = self.server.fate.get(number)
        if fate == "gone":
            self.send_error(404)
        elif fate == "cut":
            self.reply(AUDIO[number], len(AUDIO[number]) + 1000)
            self.close_connection = True
        else:
            self.reply(b"<html>" if fate == "page" else AUDIO[number])

    def reply(self, body, length=None):
        self.send_response(200)
        self.send_header("Content-Length", str(length or len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server():
    with serving(Server, fate={}, fetched=[], queries=0) as server:
        yield server


@pytest.fixture
def online(server, tmp_path):
    """Make a corpus that downloads from the server."""

    def make(**options):
        return Katunog(tmp_path / "katunog", download=True, url=f"{server.url}/", **options)

    return make


def test_download(online, server, capsys):
    corpus = online()
    steps = []
    corpus.fetch(lambda done, total: steps.append((done, total)))
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert server.queries == 2
    frame = table(corpus.tracks()).sort("id")
    assert frame["id"].to_list() == ["PIISD00002/a/one", "PIISD02596/deep/b/two", "PIISD02596/deep/three"]
    assert frame["labels"].to_list() == [["flat_gong"], ["nose-flute"], ["nose-flute"]]
    assert frame["group"].to_list() == ["PIISD00002", "PIISD02596", "PIISD02596"]
    assert frame["family"].to_list() == ["idiophones", None, None]
    assert frame["local"].to_list() == ["Gangsa", "Tongali", "Tongali"]
    out = capsys.readouterr().out
    assert "left out 1 instruments without a name in english, the first: PIISD00007; data.corpus.names=local" in out
    assert not list(corpus.root.rglob("*.part"))
    local = table(online(names="local").tracks())
    assert set(local["labels"].explode()) == {"gangsa", "tongali", "kudyapi"}


def test_second_run_asks_for_nothing(online, server):
    online().fetch()
    server.fetched.clear()
    online().fetch()
    assert (server.fetched, server.queries) == ([], 2)
    assert online().key == Katunog(online().root).key


def test_broken_connection_goes_on_later(online, server):
    server.fate["2596"] = "cut"
    with pytest.raises(UserError, match=r"PIISD02596 broke off .* 2 of 3 instruments are left; run the same command"):
        online().fetch()
    assert sorted(path.name for path in online().root.iterdir()) == ["PIISD00002", "instruments.json"]
    server.fate.clear()
    server.fetched.clear()
    online().fetch()
    assert server.fetched == ["2596", "7"]


@pytest.mark.parametrize(("fate", "reason"), [("gone", "404"), ("page", "not a zip file")])
def test_one_bad_archive_is_passed_over(online, server, capsys, fate, reason):
    server.fate["2"] = fate
    corpus = online()
    corpus.fetch()
    out = capsys.readouterr().out
    assert "1 of 3 downloads failed, the first: PIISD00002" in out
    assert reason in out
    assert len(list(corpus.tracks())) == 2


def test_archive_stays_in_its_folder(tmp_path):
    unpack(io.BytesIO(archive(**{"..__..__up.wav": wav(), "__root.wav": wav(), "x.exe": b"x"})), tmp_path / "in")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["root.wav", "up.wav"]
    assert all(path.parent == tmp_path / "in" for path in tmp_path.rglob("*.wav"))


def test_unreachable(tmp_path, server):
    port = server.server_port
    server.server_close()
    corpus = Katunog(tmp_path / "new", download=True, url=f"http://127.0.0.1:{port}")
    with pytest.raises(UserError, match=rf"^http://127\.0\.0\.1:{port}/api/: not reachable") as caught:
        corpus.fetch()
    assert "\n" not in str(caught.value)


def test_other_server(online, monkeypatch):
    monkeypatch.setattr(Server, "do_POST", lambda self: self.reply(b"<html>"))
    with pytest.raises(UserError, match="not an answer of Katunog"):
        online().fetch()
    assert not (online().root / "instruments.json").exists()


def test_local_folder(tone, tmp_path):
    for name in ("Flat gong/a.wav", "Flat gong/x/b.mp3", "Jew\u2019s Harp [kubing]/c.wav", "PIISD9.12.part/d.wav"):
        tone(name)
    frame = table(Katunog(tmp_path).tracks())
    assert frame["labels"].to_list() == [["flat_gong"], ["flat_gong"], ["jews_harp"]]
    assert frame["family"].null_count() == frame["group"].null_count() == 3


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Bossed Gong", "bossed_gong"),
        ("Nose flute (bamboo) [x]", "nose_flute"),
        ("Polychordal zither, bamboo zither", "polychordal_zither_bamboo_zither"),
        ("drum / gong", "drum-gong"),
        ("chip-on tube  flute.", "chip-on_tube_flute"),
        ("'Shawm'\n", "shawm"),
        ("(none)", ""),
        ("", ""),
    ],
)
def test_clean(name, label):
    assert clean(name) == label
    assert clean(label) == label


def test_aliases_are_cleaned_names_and_resolve():
    tree = Taxonomy.load("hornbostel_sachs")
    aliases = yaml.safe_load((FOLDER / "aliases.yaml").read_text())["katunog"]
    for name in aliases:
        assert clean(name) == name
        assert tree.resolve(name, "katunog") in tree.nodes
    for name in ("Jew\u2019s harp", "Panpipes", "Banjo", "Xylophone", "Lip-valley flute; deep-notch flute"):
        assert tree.resolve(clean(name), "katunog") in tree.nodes


def test_mistakes(tone, tmp_path):
    with pytest.raises(UserError, match="known are english, local"):
        Katunog(tmp_path, names="latin")
    with pytest.raises(UserError, match="must begin with https:// or http://"):
        Katunog(tmp_path, url="file:///etc")
    with pytest.raises(UserError, match="no such file or folder"):
        Katunog(tmp_path / "nowhere").fetch()
    (tmp_path / "a").mkdir()
    tone("a/(?)/b.wav")
    with pytest.raises(UserError, match=r"\(\?\): the name of the folder is empty without brackets"):
        Katunog(tmp_path / "a").tracks()
    tone("c.wav")
    with pytest.raises(UserError, match=r"c\.wav: lies in no class folder"):
        Katunog(tmp_path).tracks()
    (tmp_path / "instruments.json").write_text("[1]")
    with pytest.raises(UserError, match=r"instruments\.json: not the list of instruments"):
        Katunog(tmp_path).tracks()
