import pytest

from core.skeleton import H36M_17
from mesh_head.protocols import PROTOCOLS, describe_protocols, find_protocol, find_protocols


def test_protocols_are_as_declared() -> None:
    """Pelvis for joints, alignment of vertices, ground-truth body and number of joints."""
    assert {
        name: (protocol.joint_root, protocol.vertex_root, protocol.true_body, len(protocol.joints))
        for name, protocol in PROTOCOLS.items()
    } == {
        "spin": ("regressed_pelvis", None, "gendered", 14),
        "vibe": ("mean_of_hips", "unaligned", "neutral", 14),
        "wham": ("mean_of_hips", "mean_of_hips", "gendered", 14),
        "motionbert": ("regressed_pelvis", "regressed_pelvis", "neutral", 14),
        "pose2mesh": ("regressed_pelvis", "pelvis_of_posed_vertices", "gendered", 14),
        "3dpw-eval": ("smpl_pelvis", None, "gendered", 24),
    }
    fourteen = [1, 2, 3, 4, 5, 6, 8, 10, 11, 12, 13, 14, 15, 16]
    assert [H36M_17.index(name) for name in PROTOCOLS["motionbert"].joints] == fourteen
    assert [name for name, protocol in PROTOCOLS.items() if protocol.correct is not None] == ["3dpw-eval"]


def test_protocols_are_named_and_described() -> None:
    assert "mean of the two hips" in find_protocol("wham").describe()
    assert "PCK within 50 mm and AUC over 0–199 mm" in find_protocol("3dpw-eval").describe()
    assert "vertices are not compared" in find_protocol("spin").describe()
    assert "neutral body" in find_protocol("motionbert").describe()
    paragraphs = describe_protocols().splitlines()
    assert [paragraph.partition(":")[0] for paragraph in paragraphs] == list(PROTOCOLS)
    with pytest.raises(ValueError, match="motionbert, pose2mesh, spin, vibe, wham"):
        find_protocol("whan")


def test_several_protocols() -> None:
    assert [protocol.name for protocol in find_protocols(["wham", "spin"])] == ["wham", "spin"]
    assert [protocol.name for protocol in find_protocols("vibe")] == ["vibe"]
    for names in ([], ["wham", "wham"]):
        with pytest.raises(ValueError, match="one protocol or several different"):
            find_protocols(names)
