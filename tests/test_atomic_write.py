import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from core.atomic_write import folder_written_whole, remove_abandoned, written_whole


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


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    def fail(error: OSError) -> None:
        with written_whole(tmp_path / "a.bin"):
            raise error

    with pytest.raises(OSError, match=r"No space left.*/a\.bin'$"):
        fail(OSError(28, "No space left"))
    with pytest.raises(OSError, match=r"gone: 'b'$"):
        fail(OSError(2, "gone", "b"))
    with pytest.raises(OSError, match=r"^no such mode$"):
        fail(OSError("no such mode"))


def test_a_name_that_is_too_long_is_the_users(tmp_path: Path) -> None:
    name = "x" * 250 + ".npz"
    with pytest.raises(OSError, match=r"File name too long") as caught, written_whole(tmp_path / name):
        pass
    assert Path(caught.value.filename).name == name


def test_folders_are_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder"
    with folder_written_whole(target) as folder:
        (folder / "a").write_text("1")
        assert not target.exists()

    def fail() -> None:
        with folder_written_whole(target) as folder:
            (folder / "b").write_text("2")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail()
    assert [path.name for path in target.iterdir()] == ["a"]
    with folder_written_whole(target) as folder:
        (folder / "b").write_text("2")
    assert [path.name for path in target.iterdir()] == ["b"]
    assert list(target.parent.iterdir()) == [target]


def test_a_linked_folder_is_filled_where_it_is(tmp_path: Path) -> None:
    link, target = tmp_path / "link", tmp_path / "elsewhere" / "target"
    target.mkdir(parents=True)
    link.symlink_to(target)
    with folder_written_whole(link) as folder:
        (folder / "a").write_text("1")
    assert link.is_symlink()
    assert (target / "a").read_text() == "1"


@pytest.mark.skipif(os.name != "posix", reason="elsewhere nothing is removed")
def test_what_a_killed_process_had_begun_is_removed(tmp_path: Path) -> None:
    write = (
        "import os, signal, sys; from pathlib import Path; "
        "from core.atomic_write import folder_written_whole, written_whole; out = Path(sys.argv[1])\n"
        "with written_whole(out / 'a.npz'), folder_written_whole(out / 'test' / 'S9') as folder:\n"
        "    (folder / 'b').write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", write, str(tmp_path)], cwd=Path(__file__).parents[1])
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.rglob("*.unfinished"))) == 2
    (tmp_path / "own.unfinished").touch()
    with written_whole(tmp_path / "of a living process"):
        remove_abandoned(tmp_path)
        assert len(list(tmp_path.rglob(".*.unfinished"))) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "of a living process",
        "own.unfinished",
        "test",
    ]
