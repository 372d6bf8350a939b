"""A file appears complete or not at all, and nothing is left beside it."""

import pytest

from tonnetz.atomic import replacing


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
