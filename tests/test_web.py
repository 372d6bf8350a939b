"""Recordings at web addresses, answered by a small server on this machine."""

import csv
import json
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import soundfile
from safetensors.numpy import load_file

from tests.conftest import RATE, tone
from tonnetz import web
from tonnetz.data.recordings import find_recordings
from tonnetz.errors import UserError


@pytest.fixture
def trained(fit):
    done = fit("trainer.max_epochs=1", "job.test=false", run="fit")
    assert done.status == 0, done.err
    return f"ckpt={done.folder / 'checkpoints' / 'last.ckpt'}"


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where temporary files go in this test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_predict_names_the_address_and_leaves_no_file(cli, trained, served, temporary, tmp_path):
    soundfile.write(served.folder / "long one.flac", tone("sine", 77, seconds=2.3), 22050)
    soundfile.write(tmp_path / "here.flac", tone("sine", 77, seconds=2.3), 22050)
    address = f"{served.url}/long%20one.flac?x=1"
    (tmp_path / "list.csv").write_text(f"file\n{address}\nhere.flac\n")
    inputs = f'job.inputs=["{address}",{tmp_path / "list.csv"}]'
    done = cli("job=predict", trained, inputs, "data.workers=2", run="predict")
    assert done.status == 0, done.err
    lines = [json.loads(line) for line in (done.folder / "predictions.jsonl").read_text().splitlines()]
    assert [line["path"] for line in lines] == [address, str(tmp_path / "here.flac")]
    assert lines[0]["probabilities"] == lines[1]["probabilities"]
    assert f"{address}: " in done.out
    assert len(served.asked) == 1
    assert not list(temporary.glob("tonnetz-*"))


@pytest.mark.parametrize("source", ["audio", "features"])
def test_embed(cli, fit, served, temporary, corpus, source):
    done = fit("trainer.max_epochs=1", "job.test=false", f"task.plan.source={source}", run="fit")
    assert done.status == 0, done.err
    ckpt = f"ckpt={done.folder / 'checkpoints' / 'last.ckpt'}"
    (served.folder / "a").write_bytes((corpus / "buzz" / "1.wav").read_bytes())  # a name without an ending will do
    done = cli("job=embed", ckpt, f"job.inputs=[{served.url}/a,{corpus / 'buzz' / '1.wav'}]", run="embed")
    assert done.status == 0, done.err
    vectors = load_file(done.folder / "embeddings.safetensors")["vectors"]
    np.testing.assert_array_equal(vectors[0], vectors[1])
    with (done.folder / "embeddings.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["path"] == f"{served.url}/a"
    assert not list(temporary.glob("tonnetz-*"))


def test_what_cannot_be_had_is_told_in_one_line(cli, trained, served, temporary):
    (served.folder / "page.wav").write_text("<html>no sound</html>")
    for name, text in (("absent.wav", "404 File not found"), ("page.wav", "cannot be decoded as audio")):
        done = cli("job=predict", trained, f"job.inputs=[{served.url}/{name}]", run=name)
        assert (done.status, done.err.count("\n")) == (2, 1), done.err
        assert f"{served.url}/{name}: {text}" in done.err
    done = cli("job=predict", trained, "job.inputs=[http://127.0.0.1:9/a.wav]", run="nobody")
    assert (done.status, done.err.count("\n")) == (2, 1), done.err
    assert "http://127.0.0.1:9/a.wav: cannot be had" in done.err
    assert not list(temporary.glob("tonnetz-*"))


def test_jobs_that_read_files_alone_say_so(served):
    soundfile.write(served.folder / "a.wav", tone("sine", 1), RATE)
    with pytest.raises(UserError, match="this job reads files alone"):
        find_recordings([f"{served.url}/a.wav"])
    with web.fetching():
        assert find_recordings([f"{served.url}/a.wav"] * 2) == [f"{served.url}/a.wav"]
        with web.opened(f"{served.url}/a.wav") as file:
            assert soundfile.info(file).samplerate == RATE
    assert len(served.asked) == 1


class Slow(BaseHTTPRequestHandler):
    """An endless trickle, or an answer that breaks off after 100 bytes."""

    def do_GET(self):
        self.send_response(200)
        if self.path == "/broken":
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(bytes(100))
            return
        self.end_headers()
        try:
            while not self.server.over:
                self.wfile.write(bytes(1000))
                time.sleep(0.01)
        except OSError:
            pass  # the reader has gone away, as it should

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture
def slow(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    server.over, server.url = False, f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.over = True
    server.shutdown()
    thread.join()
    server.server_close()


def test_size_and_time_have_limits(slow, served, tmp_path):
    with pytest.raises(UserError, match=r"/trickle: more than 0 MB; fetch it yourself"):
        web.download(f"{slow.url}/trickle", tmp_path / "a", most=5000)
    begin = time.monotonic()
    with pytest.raises(UserError, match=r"/trickle: cannot be had \(it takes too long\)"):
        web.download(f"{slow.url}/trickle", tmp_path / "a", seconds=0.3)
    assert time.monotonic() - begin < 5
    with pytest.raises(UserError, match=r"/broken: cannot be had"):
        web.download(f"{slow.url}/broken", tmp_path / "a")
    (served.folder / "big.wav").write_bytes(bytes(10_000))
    with pytest.raises(UserError, match="more than"):  # known from the header
        web.download(f"{served.url}/big.wav", tmp_path / "a", most=9999)
    for odd in ("http://", "https://[bad/a.wav"):
        with pytest.raises(UserError, match="cannot be had"):
            web.download(odd, tmp_path / "a")
