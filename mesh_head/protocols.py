"""Evaluation protocols as data: every number the project prints is one of these, by name.

"MPJPE" and "MPVE" are measured in several ways that differ by millimetres: against which body, which joints
count, about which point joints and vertices are compared, and in what unit accelerations stand. Here they are
values to read; `docs/evaluation.md` says how each was checked against the code it comes from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from core.skeleton import H36M_17, SMPL_24, Skeleton

# Where a body stands: the mean of its regressed hips; joint 0 of H36M_17 as regressed; SMPL's own joint 0, from
# its kinematic chain; and what SMPL's joint regressor, made for the rest pose, gives on the posed vertices.
Root = Literal["mean_of_hips", "regressed_pelvis", "smpl_pelvis", "pelvis_of_posed_vertices"]
# Vertices as the body model gives them at zero translation: about the model's origin.
Unaligned = Literal["unaligned"]

_ROOT_WORDS: dict[Root | Unaligned, str] = {
    "mean_of_hips": "about the mean of the two hips",
    "regressed_pelvis": "about the regressed pelvis",
    "smpl_pelvis": "about SMPL's pelvis joint",
    "pelvis_of_posed_vertices": "about SMPL's pelvis as its (neutral) joint regressor finds it on posed vertices",
    "unaligned": "unaligned, both bodies at zero translation",
}


@dataclass(frozen=True, kw_only=True)
class CorrectKeypoints:
    """Percentage of correct keypoints, and the area under its curve over thresholds.

    Attributes:
        joints: of the protocol's joints, those that are counted.
        threshold_mm: an error up to this is correct.
        auc_thresholds_mm: (first, last), every whole millimetre; the area is the curve's mean over this range,
            by the trapezoidal rule.
    """

    joints: tuple[str, ...]
    threshold_mm: float
    auc_thresholds_mm: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How predictions are compared with ground truth.

    Attributes:
        name: what results are labelled with.
        skeleton: H36M_17, regressed from the posed vertices, or SMPL_24, the body's own joints.
        joints: names in `skeleton`.
        joint_root: the point joints are relative to for MPJPE and acceleration error.
        vertex_root: the point vertices are relative to for MPVE; None: vertices are not compared.
        true_body: the ground-truth parameters on the body of the person's gender, or on the neutral one.
        frames: every frame, or those that the data set's owners evaluate. (Predictions see all of them.)
        correct: PCK and AUC; None: neither.
        dropped_accelerations: left out at either end of a sequence.
        source: where the definition comes from.
    """

    name: str
    skeleton: Skeleton = H36M_17
    joints: tuple[str, ...]
    joint_root: Root
    vertex_root: Root | Unaligned | None
    true_body: Literal["gendered", "neutral"]
    frames: Literal["all", "evaluated"] = "evaluated"
    correct: CorrectKeypoints | None = None
    dropped_accelerations: int = 0
    source: str

    def on_motion(self) -> "Protocol":
        """As it is on motion before virtual cameras, where one neutral body is truth and every frame counts."""
        return replace(self, true_body="neutral", frames="all")

    def describe(self) -> str:
        """One paragraph for people."""
        where = "regressed from the posed vertices" if self.skeleton == H36M_17 else "of SMPL's own"
        trim = f", {self.dropped_accelerations} left out at either end" if self.dropped_accelerations else ""
        sentences = [
            f"{self.name}: {len(self.joints)} joints {where}; MPJPE {_ROOT_WORDS[self.joint_root]}; PA-MPJPE "
            "after a similarity (rotation, scale, translation) per frame",
            "vertices are not compared"
            if self.vertex_root is None
            else f"MPVE {_ROOT_WORDS[self.vertex_root]}",
        ]
        if self.correct is not None:
            first, last = self.correct.auc_thresholds_mm
            sentences.append(
                f"PCK within {self.correct.threshold_mm:g} mm and AUC over {first}–{last} mm of "
                f"{len(self.correct.joints)} of the joints"
            )
        sentences += [
            f"acceleration error of the same joints, in mm/s² (times fps²) and in mm/frame²{trim}",
            f"ground truth on the {self.true_body} body",
            f"over {'the frames that the owners evaluate' if self.frames == 'evaluated' else 'all frames'}",
        ]
        return f"{'; '.join(sentences)}. Source: {self.source}."


# The 14 joints in common use: limbs, thorax and head top of Human3.6M's 17, as regressed from vertices.
_FOURTEEN_JOINTS = tuple(
    name for name in H36M_17.joint_names if name not in ("pelvis", "spine", "nose")
)  # joints 1–6, 8, 10–16
_TWELVE_LIMB_JOINTS = tuple(
    f"{side}_{joint}"
    for joint in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
    for side in ("left", "right")
)

SPIN = Protocol(
    name="spin",
    joints=_FOURTEEN_JOINTS,
    joint_root="regressed_pelvis",
    vertex_root=None,
    true_body="gendered",
    source="nkolot/SPIN, eval.py",
)
VIBE = Protocol(
    name="vibe",
    joints=_FOURTEEN_JOINTS,
    joint_root="mean_of_hips",
    vertex_root="unaligned",
    true_body="neutral",
    source="mkocabas/VIBE, lib/core/evaluate.py",
)
WHAM = Protocol(
    name="wham",
    joints=_FOURTEEN_JOINTS,
    joint_root="mean_of_hips",
    vertex_root="mean_of_hips",
    true_body="gendered",
    dropped_accelerations=1,
    source="yohanshin/WHAM, lib/eval (also zju3dv/GVHMR)",
)
MOTIONBERT = Protocol(
    name="motionbert",
    joints=_FOURTEEN_JOINTS,
    joint_root="regressed_pelvis",
    vertex_root="regressed_pelvis",
    true_body="neutral",
    source="Walter0807/MotionBERT, lib/utils/utils_mesh.py",
)
POSE2MESH = Protocol(
    name="pose2mesh",
    joints=_FOURTEEN_JOINTS,
    joint_root="regressed_pelvis",
    vertex_root="pelvis_of_posed_vertices",
    true_body="gendered",
    source="hongsukchoi/Pose2Mesh_RELEASE, data/PW3D/dataset.py",
)
OFFICIAL_3DPW = Protocol(
    name="3dpw-eval",
    skeleton=SMPL_24,
    joints=SMPL_24.joint_names,
    joint_root="smpl_pelvis",
    vertex_root=None,
    true_body="gendered",
    correct=CorrectKeypoints(joints=_TWELVE_LIMB_JOINTS, threshold_mm=50.0, auc_thresholds_mm=(0, 199)),
    source="aymenmir1/3dpw-eval, evaluate.py",
)

PROTOCOLS = {protocol.name: protocol for protocol in (SPIN, VIBE, WHAM, MOTIONBERT, POSE2MESH, OFFICIAL_3DPW)}


def find_protocol(name: str) -> Protocol:
    """The protocol of that name; ValueError lists the known ones."""
    if name not in PROTOCOLS:
        raise ValueError(f"There is no protocol {name!r}; known are {', '.join(sorted(PROTOCOLS))}.")
    return PROTOCOLS[name]


def find_protocols(names: str | Sequence[str]) -> list[Protocol]:
    """One or several, in the order given; ValueError as `find_protocol`, and where there is none or a double."""
    listed = [names] if isinstance(names, str) else list(names)
    if not listed or len(set(listed)) < len(listed):
        raise ValueError(f"Name one protocol or several different ones, not {', '.join(listed) or 'none'}.")
    return [find_protocol(name) for name in listed]


def require_own_body(protocols: Sequence[Protocol], gender: str, sequence: str) -> None:
    """ValueError if one of them needs the person's own body, but the truth is known of the neutral one alone."""
    gendered = [protocol.name for protocol in protocols if protocol.true_body == "gendered"]
    if gender == "neutral" and gendered:
        fitting = ",".join(name for name, protocol in PROTOCOLS.items() if protocol.true_body == "neutral")
        raise ValueError(
            f"The ground truth of {sequence} is of the neutral body, but protocol {gendered[0]} compares with the "
            f"body of the person's gender; use protocol=[{fitting}]."
        )


def describe_protocols() -> str:
    """The definition of every protocol, a paragraph each."""
    return "\n".join(protocol.describe() for protocol in PROTOCOLS.values())
