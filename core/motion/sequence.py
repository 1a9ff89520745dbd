"""Motion from files: one recorded or generated motion as values, read from and written to the AMASS layout.

World frame: z up, metres. Poses are SMPL-24 axis-angles; the root's rotation maps SMPL's rest frame (y up,
facing +z) into the world. With AMASS's convention `trans` is added to the posed vertices, so the pelvis lies
at `rest_pelvis(betas) + translation_world_m` (the root rotates about the rest pelvis, not about the origin).
"""

import tokenize
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float
from numpy.lib.npyio import NpzFile

from core.atomic_write import written_whole
from core.folders import files_below

Gender = Literal["female", "male", "neutral"]

NUM_JOINTS = 24
NUM_BETAS = 10

# Which of a file's joints become SMPL-24's, by the width of `poses`; None stands for "no rotation".
# SMPL+H: the hands (SMPL's joints 22 and 23) take the first joint of either index finger.
# SMPL-X: joints 22-24 are jaw and eyes, so the hands stay at rest.
SMPL_24_FROM_LAYOUT: dict[int, tuple[int | None, ...]] = {
    72: tuple(range(24)),
    156: (*range(22), 22, 37),
    165: (*range(22), None, None),
}

# In recorded motion the most turned tenth of the body's joints, the root apart, turns by 0.28 to 1.8 rad or more:
# 16 to 100 degrees.
_MOST_TURNED_RAD = 4 * np.pi
# Nobody moves or stands like this in metres; whoever walks does in millimetres and in centimetres.
_FASTEST_M_PER_S = 50.0
_FARTHEST_M = 1000.0
# No single frame is beyond this, nor any shape, nor any rate of a recording: such numbers are damage.
_MOST_M = 1e5
_MOST_BETA = 100.0
_RATES = (0.01, 10_000.0)

# What numpy and zipfile raise on broken archives: headers that do not parse, unknown compression, encryption, …
_DAMAGES = (
    *(ValueError, TypeError, LookupError, SyntaxError, EOFError, OSError, MemoryError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)


@dataclass(frozen=True, kw_only=True)
class MotionSequence:
    """One person's motion at a constant frame rate, in the z-up world."""

    poses_rotvec: Float[np.ndarray, "frame 24 3"]  # rad, SMPL-24 order, joint 0 is the root orientation
    translation_world_m: Float[np.ndarray, "frame 3"]  # AMASS's `trans`
    betas: Float[np.ndarray, "10"]
    gender: Gender
    fps: float
    name: str
    subject: str
    label: str
    body_model: str = "smpl"  # whose betas and rest pelvis these are
    first_frame: int = 0  # of the video or recording that it was taken from

    @property
    def num_frames(self) -> int:
        return len(self.poses_rotvec)

    @property
    def frames(self) -> range:
        """Their numbers in the video or recording."""
        return range(self.first_frame, self.first_frame + self.num_frames)

    @property
    def duration_s(self) -> float:
        return self.num_frames / self.fps


def read_motion_npz(path: str | Path) -> MotionSequence:
    """Read an AMASS-layout file: SMPL (T, 72), SMPL+H (T, 156) or SMPL-X (T, 165) axis-angle poses.

    Only the arrays that are needed are read, so a file may hold others of any kind. `betas` are cut to the
    first ten (absent: zeros, the mean shape); an unknown or absent gender is "neutral"; an absent subject is
    the name of the folder, as AMASS lays its files out. A file that does not name its body model has SMPL's
    betas, or SMPL-X's if it has SMPL-X's poses: they are handed on unchanged, and are no SMPL shape of that person.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged, needs pickle, lacks an array, or holds one of a wrong shape, no
            frames, values that are not finite, or angles and places that cannot be in radians and metres.

    Source: layouts of AMASS (https://amass.is.tue.mpg.de) as released for SMPL+H G and SMPL-X N.
    """
    path = Path(path)
    with _open_npz(path) as npz:
        poses = _read_numbers(npz, path, "poses")
        if poses.ndim != 2 or poses.shape[1] not in SMPL_24_FROM_LAYOUT:
            raise ValueError(
                f"{path} holds 'poses' of shape {poses.shape}, but motion in the AMASS layout has (T, 72) "
                "for SMPL, (T, 156) for SMPL+H or (T, 165) for SMPL-X; convert the file to one of these."
            )
        num_frames = len(poses)
        if num_frames == 0:
            raise ValueError(f"{path} holds a motion of zero frames; remove the file or export it again.")
        translation = _read_numbers(npz, path, "trans")
        if translation.shape != (num_frames, 3):
            raise ValueError(
                f"{path} holds 'trans' of shape {translation.shape}, but its 'poses' need ({num_frames}, 3): "
                "one translation per frame; export the file again."
            )
        betas = _read_numbers(npz, path, "betas") if "betas" in npz.files else np.zeros(NUM_BETAS)
        if betas.ndim != 1 or len(betas) < NUM_BETAS:
            raise ValueError(
                f"{path} holds 'betas' of shape {betas.shape}, but one vector of at least {NUM_BETAS} "
                "numbers is needed; export the file with the shape of the whole sequence."
            )
        largest = float(np.abs(betas[:NUM_BETAS]).max())
        if not largest <= _MOST_BETA:
            raise ValueError(
                f"{path} holds 'betas' of up to {largest:.3g}, which is nobody's shape; export the file again."
            )
        fps = _read_frame_rate(npz, path)
        _check_units(poses, translation, fps, path)
        gender = _parse_gender(_read_text(npz, path, "gender"))
        subject = _read_text(npz, path, "subject") or path.parent.name
        label = _read_text(npz, path, "label")
        body_model = _read_text(npz, path, "body_model") or ("smplx" if poses.shape[1] == 165 else "smpl")
        first_frame = _read_first_frame(npz, path)

    return MotionSequence(
        poses_rotvec=_to_smpl_24(poses),
        translation_world_m=translation.astype(np.float32),
        betas=betas[:NUM_BETAS].astype(np.float32),
        gender=gender,
        fps=fps,
        name=path.stem,
        subject=subject,
        label=label,
        body_model=body_model,
        first_frame=first_frame,
    )


def write_motion_npz(
    path: str | Path, sequence: MotionSequence, *, seen: Bool[np.ndarray, "frame"] | None = None
) -> None:
    """Write a sequence as an AMASS-layout npz (SMPL, `poses` (T, 72)), replacing `path` once complete.

    `seen`: of recovered motion, in which frames anybody was; the others lie between those.
    """
    arrays: dict[str, Any] = {
        "poses": sequence.poses_rotvec.reshape(sequence.num_frames, 3 * NUM_JOINTS),
        "trans": sequence.translation_world_m,
        "betas": sequence.betas,
        "gender": np.array(sequence.gender),
        "mocap_framerate": np.array(sequence.fps),
        "subject": np.array(sequence.subject),
        "label": np.array(sequence.label),
        "body_model": np.array(sequence.body_model),
        "first_frame": np.array(sequence.first_frame),
    }
    if seen is not None:
        arrays["seen"] = seen
    with written_whole(path) as file:
        np.savez(file, **arrays)


def find_motion_files(root: str | Path, split: str | None) -> list[Path]:
    """All motion files below `root/split` (below `root` when split is None), at any depth, sorted by path.

    Linked folders are followed, as data sets are often put together from links. AMASS's `shape.npz` and
    `*stagei.npz` hold a shape and no motion and are left out.

    Raises:
        ValueError: the folder does not exist or holds no motion.
    """
    root = Path(root)
    folder = root if split is None else root / split
    if not folder.is_dir():
        present = sorted(entry.name for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []
        beside = f" ({root} holds the folders {', '.join(present)})" if present else ""
        raise ValueError(
            f"There is no folder {folder}{beside}; name a root with one sub-folder of .npz files per split."
        )
    files = sorted(path for path in files_below(folder, "*.npz") if _may_hold_motion(path))
    if not files:
        raise ValueError(
            f"The folder {folder} holds no motion; put .npz files in the AMASS layout there, or name another."
        )
    return files


def resample(sequence: MotionSequence, fps: float) -> MotionSequence:
    """The same motion at another frame rate: rotations slerped, the translation interpolated linearly.

    The first frame stays the first; the last one is the last sample inside the recorded time. At an equal
    rate the sequence itself is returned.

    Raises:
        ValueError: `fps` is not a positive number.
    """
    if not (np.isfinite(fps) and fps > 0):
        raise ValueError(f"A motion cannot be resampled to {fps} frames per second; give a positive rate.")
    if np.isclose(fps, sequence.fps, rtol=1e-6):
        return sequence

    import torch  # here, not above: reading files needs neither torch nor roma
    from roma import quat_conjugation, quat_product, rotvec_to_unitquat, unitquat_to_rotvec

    last = sequence.num_frames - 1
    # The small addition keeps the last frame when the ratio of the rates is not exact in floating point.
    num_frames = int(np.floor(last * fps / sequence.fps + 1e-6)) + 1
    position = np.minimum(np.arange(num_frames) * (sequence.fps / fps), last)
    before = np.minimum(position.astype(np.int64), max(last - 1, 0))
    after = np.minimum(before + 1, last)
    fraction = position - before

    quat = rotvec_to_unitquat(torch.from_numpy(sequence.poses_rotvec.astype(np.float64)))
    step = unitquat_to_rotvec(quat_product(quat_conjugation(quat[before]), quat[after]))
    part = rotvec_to_unitquat(torch.from_numpy(fraction)[:, None, None] * step)
    poses = unitquat_to_rotvec(quat_product(quat[before], part)).numpy()

    translation = sequence.translation_world_m.astype(np.float64)
    translation = translation[before] + fraction[:, None] * (translation[after] - translation[before])
    return replace(
        sequence,
        poses_rotvec=poses.astype(sequence.poses_rotvec.dtype),
        translation_world_m=translation.astype(sequence.translation_world_m.dtype),
        fps=float(fps),
        first_frame=round(sequence.first_frame * fps / sequence.fps),
    )


def _open_npz(path: Path) -> NpzFile:
    if path.is_dir():
        there = sorted(file.name for file in path.glob("*.npz") if file.name != "pose.npz")
        hint = f", as in {path / there[0]}" if there else ""
        if not there and (path / "pose.npz").is_file():
            hint = " of predict_mesh.py; here are joints alone, by predict_pose.py"
        raise ValueError(f"{path} is a folder; name one motion file{hint}.")
    try:
        npz = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise
    except _DAMAGES as error:
        # np.load takes everything that is neither zip nor npy for a pickle, which is never executed here.
        raise ValueError(
            f"{path} cannot be read as an .npz archive: it is truncated or of another kind; fetch it again."
        ) from error
    if not isinstance(npz, NpzFile):
        raise ValueError(f"{path} holds a bare array, not an .npz archive with 'poses' and 'trans'.")
    return npz


def _read_array(npz: NpzFile, path: Path, key: str) -> np.ndarray:
    try:
        return np.asarray(npz[key])
    except _DAMAGES as error:
        if "allow_pickle" in str(error):
            raise ValueError(
                f"{path} holds '{key}' as an object array, which only pickle could read, and pickle may "
                "execute code; save it as a plain numeric or text array."
            ) from error
        raise ValueError(f"{path} is damaged at '{key}' ({error}); fetch or export it again.") from error


def _read_numbers(npz: NpzFile, path: Path, key: str) -> np.ndarray:
    if key not in npz.files:
        raise ValueError(
            f"{path} lacks '{key}' (it holds {', '.join(sorted(npz.files)) or 'nothing'}); motion in the "
            "AMASS layout has 'poses', 'trans' and a 'mocap_framerate'."
        )
    array = _read_array(npz, path, key)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{path} holds '{key}' of type {array.dtype}; save it as an array of numbers.")
    if not np.isfinite(array).all():
        raise ValueError(
            f"{path} holds values in '{key}' that are not finite (NaN or infinite); cut those frames out."
        )
    return array.astype(np.float64)


def _read_frame_rate(npz: NpzFile, path: Path) -> float:
    # AMASS writes mocap_framerate with SMPL+H and mocap_frame_rate with SMPL-X.
    key = next((key for key in npz.files if "mocap_frame" in key), None)
    if key is None:
        raise ValueError(
            f"{path} names no frame rate; add 'mocap_framerate', in frames per second, to the file."
        )
    rate = _read_numbers(npz, path, key)
    if rate.size != 1 or not _RATES[0] <= rate.item() <= _RATES[1]:
        raise ValueError(
            f"{path} holds '{key}' = {rate.tolist()}; it must be one number of frames a second, {_RATES[0]:g} to "
            f"{_RATES[1]:g}."
        )
    return float(rate.item())


def _check_units(
    poses: Float[np.ndarray, "frame channel"],
    translation: Float[np.ndarray, "frame 3"],
    fps: float,
    path: Path,
) -> None:
    """Refuses what cannot be radians or metres; who stands still at the origin may have any unit."""
    require_radians(poses[:, 3:66].reshape(len(poses), -1, 3), f"{path} holds 'poses'")
    with np.errstate(over="ignore", invalid="ignore"):
        distance = float(np.median(np.linalg.norm(translation, axis=-1)))
        speeds = np.linalg.norm(np.diff(translation, axis=0), axis=-1) * fps
        speed = float(np.median(speeds)) if len(speeds) else 0.0
        farthest = float(np.linalg.norm(translation, axis=-1).max())
    if speed > _FASTEST_M_PER_S or distance > _FARTHEST_M:
        found = (
            f"moves by {speed:.3g} in a second"
            if speed > _FASTEST_M_PER_S
            else f"lies {distance:.3g} away from the origin"
        )
        raise ValueError(
            f"{path} holds 'trans' that {found}; metres are expected, so convert it, from millimetres perhaps."
        )

    if not farthest <= _MOST_M:
        raise ValueError(
            f"{path} holds 'trans' with a frame {farthest:.3g} m away from the origin; cut it out, or mend it."
        )


def require_radians(body_rotvec: Float[np.ndarray, "frame joint 3"], what: str) -> None:
    """Refuses axis-angles of a body's joints, the root apart, by which no body can be posed.

    Args:
        what: Which file holds what; begins the sentence.

    Raises:
        ValueError: They are in another unit.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        largest = float(np.percentile(np.linalg.norm(body_rotvec, axis=-1), 90))
    if not largest <= _MOST_TURNED_RAD:
        raise ValueError(
            f"{what} in which a tenth of the joints turn by {largest:.3g} or more; axis-angles in radians are "
            "expected, so convert them, from degrees perhaps."
        )


def _read_first_frame(npz: NpzFile, path: Path) -> int:
    if "first_frame" not in npz.files:
        return 0
    number = _read_numbers(npz, path, "first_frame")
    if number.size != 1 or number.item() < 0 or number.item() % 1:
        raise ValueError(f"{path} holds 'first_frame' = {number.tolist()}; it must be one frame of a video.")
    return int(number.item())


def _read_text(npz: NpzFile, path: Path, key: str) -> str:
    if key not in npz.files:
        return ""
    array = _read_array(npz, path, key)
    if array.size != 1:
        return ""
    value = array.item()
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)


def _parse_gender(text: str) -> Gender:
    # Files in the wild read "b'female'"; "female" contains "male", so it is looked for first.
    text = text.lower()
    if "female" in text:
        return "female"
    return "male" if "male" in text else "neutral"


def _to_smpl_24(poses: Float[np.ndarray, "frame channel"]) -> Float[np.ndarray, "frame 24 3"]:
    joints = poses.reshape(len(poses), -1, 3)
    smpl = np.zeros((len(poses), NUM_JOINTS, 3), np.float32)
    for target, source in enumerate(SMPL_24_FROM_LAYOUT[poses.shape[1]]):
        if source is not None:
            smpl[:, target] = joints[:, source]
    return smpl


def _may_hold_motion(path: Path) -> bool:
    hidden = path.name.startswith(".")  # among them the unfinished files of write_motion_npz
    return not hidden and path.name != "shape.npz" and not path.name.endswith("stagei.npz")
