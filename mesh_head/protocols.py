"""Evaluation protocols as data: every number the project prints is one of these, by name.

"MPJPE" and "MPVE" are measured in several ways that differ by millimetres: which joints count, about which
point joints and vertices are compared, and in what unit accelerations stand. Here they are values to read.
"""

from dataclasses import dataclass
from typing import Literal

from core.skeleton import H36M_17

Root = Literal["mean_of_hips", "regressed_pelvis"]

# The 14 joints in common use: limbs, thorax and head top of Human3.6M's 17, as regressed from vertices.
_FOURTEEN_JOINTS = tuple(
    name for name in H36M_17.joint_names if name not in ("pelvis", "spine", "nose")
)  # joints 1–6, 8, 10–16


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How predictions are compared with ground truth.

    Attributes:
        name: what results are labelled with.
        joints: names in H36M_17; the joints are regressed from the posed vertices.
        joint_root: the point joints are relative to for MPJPE and acceleration error.
        vertex_root: the point vertices are relative to for MPVE.
        source: where the definition comes from.
    """

    name: str
    joints: tuple[str, ...]
    joint_root: Root
    vertex_root: Root
    source: str

    def describe(self) -> str:
        """One paragraph for people."""
        words = {"mean_of_hips": "the mean of the two hips", "regressed_pelvis": "the regressed pelvis"}
        return (
            f"{self.name}: {len(self.joints)} joints regressed from the posed vertices; MPJPE about "
            f"{words[self.joint_root]}; PA-MPJPE after a similarity (rotation, scale, translation) per frame; "
            f"MPVE about {words[self.vertex_root]}; acceleration error of the same joints, in mm/s² (times "
            f"fps²) and in mm/frame². Source: {self.source}."
        )


WHAM = Protocol(
    name="wham",
    joints=_FOURTEEN_JOINTS,
    joint_root="mean_of_hips",
    vertex_root="mean_of_hips",
    source="yohanshin/WHAM, lib/eval (also zju3dv/GVHMR)",
)
MOTIONBERT = Protocol(
    name="motionbert",
    joints=_FOURTEEN_JOINTS,
    joint_root="regressed_pelvis",
    vertex_root="regressed_pelvis",
    source="Walter0807/MotionBERT, lib/utils/utils_mesh.py",
)

PROTOCOLS = {protocol.name: protocol for protocol in (WHAM, MOTIONBERT)}


def find_protocol(name: str) -> Protocol:
    """The protocol of that name; ValueError lists the known ones."""
    if name not in PROTOCOLS:
        raise ValueError(f"There is no protocol {name!r}; known are {', '.join(sorted(PROTOCOLS))}.")
    return PROTOCOLS[name]
