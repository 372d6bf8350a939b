"""A file appears complete or not at all, and nothing is left beside it."""

import errno
import os
from pathlib import Path

import pytest

from tonnetz.atomic import replacing
from tonnetz.errors import DiskFull


def test_the_file_appears_at_the_end(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with replacing(path) as part:
        part.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def fail_halfway(path):
    with replacing(path) as part:
        part.write_text("half")
        raise ZeroDivisionError


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError):
        fail_halfway(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def fill(path, number):
    with replacing(path) as part:
        part.write_text("half")
        raise OSError(number, "no")


def test_a_full_disk_is_one_line(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(DiskFull, match=r"a\.txt: cannot be written, the disk is full"):
        fill(path, errno.ENOSPC)
    with pytest.raises(PermissionError):
        fill(path, errno.EACCES)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_ends_preparing(cli, corpus, tmp_path, monkeypatch):
    """It is not taken for bad recordings, which could be left out."""

    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    words = ["job=prepare", "data=folder", f"data.root={corpus}", "data.on_error=skip", "frontend.sample_rate=8000"]
    monkeypatch.setattr(Path, "write_bytes", full)
    done = cli(*words)
    assert done.status == 2
    assert done.err.count("\n") == 1
    assert ".wav: cannot be written, the disk is full; make room" in done.err
    monkeypatch.undo()
    assert not list((tmp_path / "data").rglob("*.part"))


def test_a_kill_while_a_checkpoint_is_written_leaves_the_old_one(tmp_path):
    import torch
    from fsspec.implementations.local import LocalFileOpener
    from lightning.pytorch.plugins.io import TorchCheckpointIO

    path = tmp_path / "last.ckpt"
    TorchCheckpointIO().save_checkpoint({"step": torch.tensor(1)}, path)
    child = os.fork()
    if not child:

        def half(self, data):
            self.f.write(data[: len(data) // 2])
            self.f.flush()
            os._exit(9)

        LocalFileOpener.write = half
        TorchCheckpointIO().save_checkpoint({"step": torch.tensor(2)}, path)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert torch.load(path, weights_only=True)["step"] == 1
