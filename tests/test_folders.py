"""One process a folder writes into it."""

from pathlib import Path

import pytest
from command_fixtures import written_by_another_process

from core.folders import only_writer


def test_a_second_writer_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    with written_by_another_process(folder):
        refusal = pytest.raises(ValueError, match=r"Another process .* into .*run; .* another folder by out=")
        with refusal, only_writer(folder):
            pytest.fail("two writers")
        with only_writer(tmp_path / "other"):
            (tmp_path / "other" / "file").touch()
    # It was killed, which keeps nobody out.
    with only_writer(folder):
        pass
    assert list(folder.iterdir()) == []
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["file"]


def test_blocks_may_be_nested(tmp_path: Path) -> None:
    with only_writer(tmp_path):
        with only_writer(tmp_path / "." / ".." / tmp_path.name):
            pass
        assert len(list(tmp_path.iterdir())) == 1  # the lock is still there
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_stays_empty_goes_if_it_was_new(tmp_path: Path) -> None:
    for _ in range(2):
        with only_writer(tmp_path / "run"):
            pass
        assert not (tmp_path / "run").exists()
