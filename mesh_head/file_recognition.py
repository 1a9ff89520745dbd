"""Body models, joint regressors and data sets among a folder's files: known by what is in them, not by their names.

No pickle is opened: its keys stand as plain text between its arrays, and are looked for there. A body model, whose
numbers matter more than its keys, is read by the reader that executes nothing.
"""

import json
import mmap
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from core.folders import walk

_HEAD_BYTES = 1 << 20
# What tools/prepare_data.py leaves in a folder that it has prepared.
_RECORDS = ("manifest.json", "preparation.json")
# What keypoints come in, beside npz; larger ones are not read for a table's sake.
_KEYPOINT_FILES = {".json", ".csv", ".pbtxt", ".txt"}
_MOST_KEYPOINT_BYTES = 1 << 26
# From so many files on, a folder is a video's frames.
_FRAME_FILES = 5


@dataclass(frozen=True)
class Kind:
    """What a file can be.

    Attributes:
        title: In a table.
        unlocks: What the project can do with it.
        where_to_get: Where to register and which file to take.
    """

    title: str
    unlocks: str
    where_to_get: str


@dataclass(frozen=True)
class Finding:
    """One recognised file, or one prepared folder; `problem` says why it cannot be used."""

    kind: str
    path: Path
    detail: str = ""
    problem: str = ""


_PREPARE = "tools/prepare_data.py dataset="
KINDS: dict[str, Kind] = {
    "smpl": Kind(
        "SMPL body model",
        "body_model=smpl body_model.path=…; 3DPW (neutral; male and female for all protocols but two)",
        "smpl.is.tue.mpg.de (SMPL for Python 1.1.0) after registration",
    ),
    "smplx": Kind("SMPL-X or SMPL+H body model", "nothing here: the body is SMPL", "smpl-x.is.tue.mpg.de"),
    "h36m_regressor": Kind(
        "Human3.6M joint regressor",
        "the 14 and 17 joints of the protocols, with SMPL",
        "J_regressor_h36m.npy of SPIN's data (github.com/nkolot/SPIN, fetch_data.sh)",
    ),
    "extra_regressor": Kind("SPIN's extra joint regressor", "nothing here", "SPIN's data, with the above"),
    "h36m": Kind(
        "Human3.6M, MotionBERT's 2D and 3D",
        f"{_PREPARE}h36m",
        "github.com/Walter0807/MotionBERT, docs/pose3d.md",
    ),
    "videopose3d_3d": Kind(
        "Human3.6M, VideoPose3D's 3D joints",
        f"{_PREPARE}h36m_videopose3d",
        "made by github.com/facebookresearch/VideoPose3D, DATASETS.md",
    ),
    "videopose3d_2d": Kind(
        "Human3.6M, VideoPose3D's 2D keypoints", "the same, with the 3D joints", "VideoPose3D's DATASETS.md"
    ),
    "3dhp": Kind("MPI-INF-3DHP, P-STMO's npz", f"{_PREPARE}3dhp", "github.com/paTRICK-swk/P-STMO, README.md"),
    "3dpw": Kind(
        "3DPW sequence",
        f"{_PREPARE}3dpw, then tools/eval_mesh.py data=3dpw",
        "virtualhumans.mpi-inf.mpg.de/3DPW",
    ),
    "motionbert_mesh": Kind(
        "MotionBERT's mesh set",
        f"{_PREPARE}h36m_mesh (coco_mesh, 3dpw)",
        "github.com/Walter0807/MotionBERT, docs/mesh.md",
    ),
    "amass": Kind(
        "motion in the AMASS layout",
        f"experiment=motion data.root=…, of a folder with train/, val/ and test/; else {_PREPARE}amass first",
        "amass.is.tue.mpg.de (SMPL+H G or SMPL-X N)",
    ),
    "keypoints": Kind(
        "2D keypoints of a video",
        "tools/predict_mesh.py input=…, tools/predict_pose.py input=…",
        "a detector: AlphaPose, OpenPose, Ultralytics, … (docs/keypoints.md)",
    ),
    "archive": Kind("archive that is not unpacked", "nothing until it is unpacked", "–"),
    "unreadable": Kind("damaged file", "nothing until it is fetched again", "–"),
    "prepared": Kind(
        "prepared data set", "training and evaluation (docs/datasets.md)", "tools/prepare_data.py"
    ),
}


def find_files(roots: Iterable[Path]) -> list[Finding]:
    """All that is recognised below the folders; hidden folders are left out.

    Raises:
        ValueError: If there is no such folder.
    """
    findings = []
    for root in roots:
        if not root.exists():
            raise ValueError(f"There is no folder {root}; name one that holds files, or leave it out.")
        for path in [root] if root.is_file() else _files_below(root):
            findings.extend(recognise(path))
    return _frames_as_folders(findings)


def _frames_as_folders(findings: list[Finding]) -> list[Finding]:
    """Many keypoint files of one format in a folder are the frames of a video: one finding, of the folder."""

    def place(finding: Finding) -> tuple[Path, str]:
        return finding.path.parent, finding.detail

    num_files = Counter(place(finding) for finding in findings if finding.kind == "keypoints")
    merged, seen = [], set()
    for finding in findings:
        if finding.kind != "keypoints" or num_files[place(finding)] < _FRAME_FILES:
            merged.append(finding)
        elif place(finding) not in seen:
            seen.add(place(finding))
            folder, detail = place(finding)
            merged.append(Finding("keypoints", folder, f"{detail}, {num_files[place(finding)]:,} files"))
    return merged


def _files_below(root: Path) -> Iterator[Path]:
    for folder, folders, names in walk(root, skip_unreadable=True):
        records = [folder / name for name in _RECORDS if name in names and _prepared(folder / name)]
        # The parts of a prepared data set are not told apart.
        folders[:] = [] if records else [name for name in folders if not name.startswith(".")]
        yield from records or (folder / name for name in names)


def recognise(path: Path) -> list[Finding]:
    """What a file is: one finding, or none."""
    try:
        if path.name in _RECORDS:
            return _prepared(path)
        with path.open("rb") as file:
            magic = file.read(6)
        if magic.startswith(b"PK\x03\x04"):
            return _zip(path)
        if magic.startswith(b"\x93NUMPY"):
            return _npy(path)
        if magic.startswith((b"\x80", b"(dp", b"(lp")) or path.suffix in (".pkl", ".pickle"):
            return _pickle(path)
        if path.suffix.lower() in _KEYPOINT_FILES and path.stat().st_size <= _MOST_KEYPOINT_BYTES:
            return _keypoints(path)
    except (OSError, ImportError) as error:
        return [Finding("unreadable", path, problem=str(error))]
    return []


def _zip(path: Path) -> list[Finding]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            keys = {name.removesuffix(".npy") for name in names}
            head = b""
            if "data.npy" in names:
                with archive.open("data.npy") as member:
                    head = member.read(_HEAD_BYTES)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as error:
        return [Finding("unreadable", path, problem=f"damaged ({error})")]
    if {"v_template", "weights", "kintree_table"} <= keys:
        return [_body_model(path)]
    if {"poses", "trans"} <= keys and any("mocap_frame" in key for key in keys):
        return [Finding("amass", path)]
    if "positions_3d" in keys:
        return [Finding("videopose3d_3d", path)]
    if "positions_2d" in keys:
        is_users = path.name.startswith("data_2d_custom")  # of videos of one's own
        return _keypoints(path) if is_users else [Finding("videopose3d_2d", path)]
    if {"keypoints_px", "frame_ids"} <= keys:
        return _keypoints(path)
    if b"data_3d" in head or b" Seq1" in head or b"TS1" in head:
        return [Finding("3dhp", path, "train" if b" Seq1" in head else "test")]
    if any(name.endswith("/data.pkl") for name in names) and any(name.endswith("/version") for name in names):
        return []  # torch's own format: a checkpoint
    inside = [name for name in names if name.endswith((".pkl", ".npz"))]
    if inside:
        return [
            Finding(
                "archive", path, f"holds {inside[0]}" + f" and {len(inside) - 1} more" * (len(inside) > 1)
            )
        ]
    return []


def _keypoints(path: Path) -> list[Finding]:
    try:  # what reads them needs packages that may not be there yet
        from core.keypoints.detections import KeypointFileError
        from core.keypoints.formats import recognise as format_of
        from core.keypoints.loading import load
    except ImportError:
        return []
    try:
        return [Finding("keypoints", path, format_of(load(path)))]
    except KeypointFileError:
        return []


def _npy(path: Path) -> list[Finding]:
    import numpy as np

    try:
        shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
    except (ValueError, EOFError):
        return []
    if len(shape) == 2 and shape[0] == 17 and shape[1] >= 1000:
        return [Finding("h36m_regressor", path, f"{shape[1]} vertices")]
    if shape == (9, 6890):
        return [Finding("extra_regressor", path)]
    return []


def _pickle(path: Path) -> list[Finding]:
    if path.stat().st_size == 0:
        return []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:

        def has(*keys: str) -> bool:
            return all(content.find(key.encode()) >= 0 for key in keys)

        if has("v_template", "kintree_table", "posedirs"):
            is_model = True
        elif has("cam_poses", "poses2d", "jointPositions"):
            return [Finding("3dpw", path)]
        elif has("joint3d_image", "camera_name", "joint_2d"):
            return [Finding("h36m", path)]
        elif has("smpl_pose", "smpl_shape", "joint_2d"):
            return [Finding("motionbert_mesh", path, "Human3.6M" if has("joint_cam", "camera_name") else "")]
        else:
            is_model = False
    return [_body_model(path)] if is_model else []


def _body_model(path: Path) -> Finding:
    import numpy as np

    from body_models.model_files import read_model_arrays
    from core.refusing_unpickler import read_npz, read_pickle

    try:
        arrays = read_model_arrays(path)
    except (ValueError, OSError) as error:
        try:
            content = read_npz(path) if zipfile.is_zipfile(path) else read_pickle(path)
            num_joints = np.asarray(content["kintree_table"]).shape[1]
        except (ValueError, OSError, KeyError, TypeError, IndexError):
            return Finding("smpl", path, problem=str(error))
        if num_joints in (52, 55):
            return Finding("smplx", path, "SMPL+H" if num_joints == 52 else "SMPL-X")
        return Finding("smpl", path, problem=str(error))
    num_vertices, num_betas = len(arrays["v_template"]), arrays["shapedirs"].shape[-1]
    return Finding("smpl", path, f"{num_vertices} vertices, {num_betas} betas")


def _prepared(path: Path) -> list[Finding]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if path.name == "manifest.json":
            parts = {split: len(names) for split, names in content["parts"].items()}
            return [Finding("prepared", path.parent, f"{content['dataset']} for lifting, {parts}")]
        detail = f"{content['settings']['dataset']}, from {len(content['done'])} files"
        if content.get("finished") is not True:
            problem = f"{detail}, does not say that it was finished; run tools/prepare_data.py again"
            return [Finding("prepared", path.parent, detail, problem)]
        return [Finding("prepared", path.parent, detail)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []  # another program's
