"""Biovision hierarchy (BVH): a skeleton and its motion as text, which animation programs retarget to characters.

There is no mesh in it. The rest pose is the T-pose of the person's own shape, every joint's axes parallel to the
world's (x to the person's left, y up, z to the front), so the rotations are SMPL's own. The format has no unit;
centimetres are what animation programs take its numbers for. Joints turn by R = R_z R_x R_y, the format's most
common order. Leaves end where the vertices that follow them do: fingertips, toes, the top of the head.

Source: Meredith and Maddock, "Motion Capture File Formats Explained", University of Sheffield, 2001.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from body_models.export.rigged import require_rigged_motion
from body_models.parameters import BodyParameters
from body_models.smpl import SmplBody
from core.atomic_write import written_whole
from core.rotations import rotmat_to_euler_zxy
from core.skeleton import SMPL_24

_CM_PER_M = 100.0


def write_bvh(
    path: str | Path,
    body: SmplBody,
    parameters: BodyParameters,
    *,
    fps: float,
    R_yup_frame: Float[Tensor, "3 3"],
) -> None:
    """Writes the 24 joints and their motion, a line per frame: degrees to 1e-5, centimetres to 1e-4.

    The file appears under its name only when it is complete.

    Args:
        parameters: batch shape (T,), with one shape for all frames: betas (1, beta).
        R_yup_frame: from the frame of the parameters to the file's, y up and z to the front.

    Raises:
        ValueError: no frame, a number that is not finite, or several shapes.
    """
    path = Path(path)
    require_rigged_motion(path, parameters, fps)
    with torch.no_grad():
        rest_joints_m = body.shape(parameters.betas).rest_joints_m[0].cpu().double().numpy()
        rest_vertices_m = body.rest_vertices(parameters.betas)[0].cpu().double().numpy()
    num_frames = len(parameters.root_rotmat)
    R_yup = R_yup_frame.detach().cpu().double()
    rotmat = parameters.rotmat.detach().cpu().double().clone()
    rotmat[:, 0] = R_yup @ rotmat[:, 0]
    pelvis_m = torch.from_numpy(rest_joints_m[0]) + parameters.translation_m.detach().cpu().double()
    pelvis_cm = _CM_PER_M * (pelvis_m @ R_yup.T).expand(num_frames, 3).numpy()
    angles_deg = _continuous(np.degrees(rotmat_to_euler_zxy(rotmat).numpy()))
    angles_deg = angles_deg.round(5) + 0.0  # no minus before a zero
    # Numbers stand in the order in which the hierarchy names their joints.
    lines, order = _hierarchy(body, rest_joints_m, rest_vertices_m)
    lines += ["MOTION", f"Frames: {num_frames}", f"Frame Time: {1 / fps:.8f}"]
    for position_cm, of_frame_deg in zip(pelvis_cm, angles_deg[:, order], strict=True):
        numbers = [f"{number:.4f}" for number in position_cm]
        lines.append(" ".join([*numbers, *(f"{angle:.5f}" for angle in of_frame_deg.flatten())]))
    with written_whole(path) as file:
        file.write(("\n".join(lines) + "\n").encode("ascii"))


def _hierarchy(
    body: SmplBody,
    rest_joints_m: Float[np.ndarray, "joint 3"],
    rest_vertices_m: Float[np.ndarray, "vertex 3"],
) -> tuple[list[str], list[int]]:
    """The lines that name the joints, and the joints in that order, which is depth first."""
    lines, order = ["HIERARCHY"], []
    follows = body.arrays.lbs_weights.argmax(axis=1)

    def add(joint: int, depth: int) -> None:
        order.append(joint)
        indent, inner = "\t" * depth, "\t" * (depth + 1)
        parent = body.parents[joint]
        is_root = parent < 0
        lines.append(f"{indent}{'ROOT' if is_root else 'JOINT'} {SMPL_24.joint_names[joint]}")
        lines.append(f"{indent}{{")
        # Of the root the motion says where it is, not how far it is from there.
        offset_m = np.zeros(3) if is_root else rest_joints_m[joint] - rest_joints_m[parent]
        lines.append(f"{inner}OFFSET {_in_cm(offset_m)}")
        rotations = "Zrotation Xrotation Yrotation"
        lines.append(
            f"{inner}CHANNELS 6 Xposition Yposition Zposition {rotations}"
            if is_root
            else f"{inner}CHANNELS 3 {rotations}"
        )
        children = [child for child, its_parent in enumerate(body.parents) if its_parent == joint]
        for child in children:
            add(child, depth + 1)
        if not children:
            end_m = _end(rest_vertices_m[follows == joint] - rest_joints_m[joint])
            lines.extend([f"{inner}End Site", f"{inner}{{", f"{inner}\tOFFSET {_in_cm(end_m)}", f"{inner}}}"])
        lines.append(f"{indent}}}")

    add(0, 0)
    return lines, order


def _end(reach_m: Float[np.ndarray, "vertex 3"]) -> Float[np.ndarray, "3"]:
    """Where a leaf ends: on the line to the middle of the vertices that follow it, as far as they reach."""
    middle_m = reach_m.mean(axis=0) if len(reach_m) else np.zeros(3)
    direction = middle_m / max(float(np.linalg.norm(middle_m)), 1e-9)
    return direction * (reach_m @ direction).max(initial=0.0)


def _in_cm(offset_m: Float[np.ndarray, "3"]) -> str:
    return " ".join(f"{number:.4f}" for number in (_CM_PER_M * offset_m).round(4) + 0.0)


def _continuous(angles_deg: Float[np.ndarray, "frame joint 3"]) -> Float[np.ndarray, "frame joint 3"]:
    """The same rotations by the angles nearest to those of the frame before, so that programs may interpolate.

    (z, x, y) and (z + 180°, 180° − x, y + 180°) are one rotation, and so is either with whole turns added.
    """
    near_deg = angles_deg.copy()
    for frame in range(1, len(near_deg)):
        before_deg = near_deg[frame - 1]
        one_deg = near_deg[frame]
        other_deg = np.array([180.0, 180.0, 180.0]) + one_deg * np.array([1.0, -1.0, 1.0])
        candidates_deg = np.stack([one_deg, other_deg])
        candidates_deg -= 360 * np.round((candidates_deg - before_deg) / 360)
        nearest = np.abs(candidates_deg - before_deg).sum(axis=-1).argmin(axis=0)
        near_deg[frame] = np.take_along_axis(candidates_deg, nearest[None, :, None], axis=0)[0]
    return near_deg
