"""Checkpoints hold data; what else a file may be is said in one line."""

import argparse
import pickle
import re

import pytest
import torch

from tonnetz.checkpoint import load_checkpoint, load_plain
from tonnetz.errors import UserError


@pytest.mark.parametrize("content", [b"", b"RIFF....WAVE", b"just some words\n"])
def test_a_file_that_torch_did_not_write(tmp_path, content):
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.ckpt: is not a file that torch wrote"):
        load_checkpoint(tmp_path / "a.ckpt")


def test_a_torn_file(tmp_path):
    torch.save({"weight": torch.arange(1000)}, tmp_path / "a.ckpt")
    (tmp_path / "a.ckpt").write_bytes((tmp_path / "a.ckpt").read_bytes()[:900])
    with pytest.raises(UserError, match="cannot be read as a checkpoint; is it complete"):
        load_checkpoint(tmp_path / "a.ckpt")


def test_code_is_never_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "run"), "w"))

    torch.save({"weight": Evil()}, tmp_path / "a.ckpt")
    (tmp_path / "b.ckpt").write_bytes(pickle.dumps(Evil()))
    for name in ("a.ckpt", "b.ckpt"):
        with pytest.raises(UserError, match=r"refused, nothing was run; ask first$"):
            load_plain(tmp_path / name, remedy="ask first")
        assert not (tmp_path / "run").exists()
    load_plain(tmp_path / "a.ckpt", trust=True)
    assert (tmp_path / "run").exists()


def test_named_classes_are_let_through(tmp_path):
    torch.save(argparse.Namespace(lr=1.0), tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="holds objects"):
        load_plain(tmp_path / "a.ckpt")
    assert load_plain(tmp_path / "a.ckpt", known=[argparse.Namespace]).lr == 1.0


def test_files_of_others(tmp_path):
    torch.save({"weight": torch.ones(1)}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="not a checkpoint of this framework"):
        load_checkpoint(tmp_path / "a.ckpt")
    torch.save({"tonnetz": {"format": 7}}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="format 7 is not known"):
        load_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'none.ckpt'}: no such checkpoint")):
        load_checkpoint(tmp_path / "none.ckpt")
