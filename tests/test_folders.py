"""One writer a folder."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from core.folders import only_writer


def test_a_second_writer_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    folder.mkdir(parents=True)
    with only_writer(folder):
        refusal = pytest.raises(ValueError, match=r"Another process .* into .*run; .* another folder by out=")
        with refusal, only_writer(folder):
            pytest.fail("two writers")
        with only_writer(tmp_path / "other"):
            (tmp_path / "other" / "file").touch()
    assert list(folder.iterdir()) == []
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["file"]


def test_a_folder_that_stays_empty_goes_if_it_was_new(tmp_path: Path) -> None:
    for _ in range(2):
        with only_writer(tmp_path / "run"):
            pass
        assert not (tmp_path / "run").exists()


def test_a_killed_writer_keeps_nobody_out(tmp_path: Path) -> None:
    held = (
        "import sys, pathlib, time; from core.folders import only_writer\n"
        "with only_writer(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", held, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match="Another process"), only_writer(tmp_path):
        pytest.fail("two writers")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with only_writer(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
