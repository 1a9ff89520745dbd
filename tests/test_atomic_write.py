from pathlib import Path

import pytest

from core.atomic_write import written_whole


def test_a_finished_file_takes_its_place(tmp_path: Path) -> None:
    target = tmp_path / "new folder" / "a.bin"
    with written_whole(target) as file:
        file.write(b"1")
        assert not target.exists()
    with written_whole(target) as file:
        file.write(b"22")
        assert target.read_bytes() == b"1"
    assert target.read_bytes() == b"22"
    assert list(target.parent.iterdir()) == [target]


def test_a_failed_one_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")

    def fail() -> None:
        with written_whole(target) as file:
            file.write(b"half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]
