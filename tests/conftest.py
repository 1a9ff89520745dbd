"""Fixtures of several test files: parts of benchmarks/, which is not installed, and predecessors to compare."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest
from command_fixtures import ROOT
from fake_predecessors import write_fake_predecessors


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, str]:
    """Of predecessors, by name."""
    return write_fake_predecessors(tmp_path)


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.comparison.peer_backbones")


@pytest.fixture
def harness(peers: ModuleType) -> ModuleType:
    return importlib.import_module("benchmarks.comparison.harness")
