"""3DPW (von Marcard et al., ECCV 2018) as its owners distribute it: sequenceFiles/{train,validation,test}/*.pkl.

A file holds one sequence of one or two people: SMPL parameters in the world at 30 Hz, one row per image, and at
60 Hz; the moving camera per image; 2D keypoints of OpenPose where at least six joints were found. Images are
numbered by row; `img_frame_ids` are the images' places in the 60 Hz arrays.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from core.datasets.joint_checks import check_detections
from core.datasets.mesh_sequences import Gender, MeshSequence, as_floats, write_mesh_sequence
from core.datasets.preparation import OnProgress, PreparationReport
from core.datasets.resumable_jobs import JobResult, run_jobs
from core.keypoints.boxes import box_overlap, boxes_around
from core.keypoints.files import read_keypoints
from core.motion.sequence import require_radians
from core.refusing_unpickler import read_pickle
from core.skeleton import COCO_18, H36M_17, convert_keypoints

_SPLITS = ("train", "validation", "test")
# Sequences of the complete set, and person-frames with a valid camera where they are known.
_EXPECTED = {
    "train sequences": 24,
    "validation sequences": 12,
    "test sequences": 24,
    "train valid person-frames": 22_732,
    "test valid person-frames": 35_515,
}
_WHERE_TO_GET = "Get sequenceFiles.zip from https://virtualhumans.mpi-inf.mpg.de/3DPW and unpack it."
_GENDERS: dict[str, Gender] = {"m": "male", "f": "female"}
# Where SMPL's pelvis rests, within some centimetres, whatever the shape.
_REST_PELVIS_M = np.array([0.0, -0.23, 0.03])
# Of a person's own size in the picture: the pelvis lies in the box, or twice its size below that of a head alone.
_FARTHEST_FROM_KEYPOINTS = 4.0
# From a head alone to an adult with a margin.
_SIZES_M = (0.1, 4.0)
# A detection belongs to a person if their boxes overlap at least so much (intersection over union).
_LEAST_OVERLAP = 0.3


def prepare_three_dpw(
    root: Path,
    out: Path,
    *,
    on_progress: OnProgress,
    workers: int,
    rate: int = 30,
    keypoints: str | Path | None = None,
) -> PreparationReport:
    """Writes `<out>/<split>/<sequence>_<person>.npz` for every person of every sequence.

    Args:
        root: Holds `sequenceFiles`, or its three folders; or is (or holds) MotionBERT's mesh_det_pw3d.pkl.
        rate: 30 takes the arrays that go with the images. 60 takes those at 60 Hz: cameras between two images
            are interpolated, keypoints are there at the images alone, and so is what is evaluated.
        keypoints: A folder with a detector's file per sequence, `<sequence>.*`, of any format of
            core.keypoints.files, its frames numbered like the images from 0. None: 3DPW's own `poses2d`.

    Raises:
        ValueError: Something is missing or is not as described; one sentence says what.
    """
    folder = root / "sequenceFiles" if (root / "sequenceFiles").is_dir() else root
    sources = {
        f"{split}/{path.stem}": path for split in _SPLITS for path in sorted((folder / split).glob("*.pkl"))
    }
    if not sources:
        if root.suffix == ".pkl" or list(root.glob("mesh_det_pw3d*.pkl")):
            from core.datasets.motionbert_mesh import prepare_motionbert_mesh

            if rate != 30 or keypoints is not None:
                raise ValueError(
                    f"{root} holds MotionBERT's file of 3DPW, which comes at 30 Hz and with its detector's "
                    "keypoints; leave rate and keypoints out, or name the folder with sequenceFiles."
                )
            return prepare_motionbert_mesh("3dpw", root, out, on_progress=on_progress, workers=workers)
        raise ValueError(
            f"There is no sequenceFiles/{{train,validation,test}}/*.pkl in {root}. {_WHERE_TO_GET}"
        )
    if rate not in (30, 60):
        raise ValueError(f"3DPW comes at 30 and at 60 Hz; rate={rate} is neither.")
    # Resolved, as it is kept in the record: from another folder the same words name another one.
    keypoints_folder = None if keypoints is None else Path(str(keypoints)).resolve()
    if keypoints_folder is not None and not keypoints_folder.is_dir():
        raise ValueError(f"keypoints={keypoints} is no folder; name one with a keypoint file per sequence.")
    detections = {
        name: [] if keypoints_folder is None else _files_of(keypoints_folder, path.stem)
        for name, path in sources.items()
    }
    report = run_jobs(
        partial(_prepare_sequence, rate=rate, keypoints=keypoints_folder),
        sources,
        out,
        settings={
            "dataset": "3dpw",
            "rate": rate,
            "keypoints": None if keypoints_folder is None else str(keypoints_folder),
        },
        workers=workers,
        on_progress=on_progress,
        also_read=detections,
    )
    counts = {key: report.counts[key] for key in sorted(report.counts)}
    warnings = [] if rate != 30 else differing_counts("3DPW", _EXPECTED, counts)
    return PreparationReport(counts, warnings + report.warnings)


def differing_counts(dataset: str, expected: Mapping[str, int], found: Mapping[str, int]) -> list[str]:
    """A sentence for every count that the complete set does not have."""
    return [
        f"The complete {dataset} has {count} {name}; {found.get(name, 0)} were found."
        for name, count in expected.items()
        if found.get(name, 0) != count
    ]


def _prepare_sequence(name: str, source: Path, out: Path, *, rate: int, keypoints: Path | None) -> JobResult:
    split = name.split("/")[0]
    sequences = read_three_dpw(source, rate=rate, keypoints=keypoints)
    counts = {f"{split} sequences": 1, f"{split} people": len(sequences)}
    for kind in ("", "valid ", "evaluated "):
        counts[f"{split} {kind}person-frames"] = 0
    outputs, warnings = [], []
    for person, sequence in enumerate(sequences):
        outputs.append(f"{split}/{sequence.name}.npz")
        write_mesh_sequence(out / outputs[-1], sequence)
        counts[f"{split} person-frames"] += sequence.num_frames
        counts[f"{split} valid person-frames"] += int(sequence.valid_frames.sum())
        counts[f"{split} evaluated person-frames"] += int(sequence.evaluated.sum())
        undetected = sequence.evaluated & ~sequence.confidence.any(axis=1)
        if keypoints is not None and undetected.any():
            warnings.append(
                f"{source.stem}: {undetected.sum()} of {sequence.evaluated.sum()} evaluated frames of person "
                f"{person} have no detection; they are evaluated without keypoints."
            )
    return JobResult(outputs, counts, warnings)


def read_three_dpw(path: Path, *, rate: int = 30, keypoints: Path | None = None) -> list[MeshSequence]:
    """The people of one sequence file; see `prepare_three_dpw` for `rate` and `keypoints`.

    Raises:
        ValueError: The file is missing, damaged, or not laid out like 3DPW's.
    """
    content = _Content(path, read_pickle(path))
    try:
        return _read_people(content, rate, keypoints)
    except ValueError as error:
        if str(path) in str(error) or (keypoints is not None and str(keypoints) in str(error)):
            raise
        raise ValueError(f"{path} cannot be used: {error}") from error


def _read_people(content: "_Content", rate: int, keypoints: Path | None) -> list[MeshSequence]:
    K = content.array("cam_intrinsics", (3, 3))
    num_images = len(content.array("img_frame_ids", (None,)))
    valid = [
        content.array("campose_valid", (num_images,), person) > 0 for person in range(content.num_people)
    ]
    T_cam_world = content.array("cam_poses", (num_images, 4, 4), may_be_nan=~np.any(valid, axis=0))
    # 3DPW tells no image size; its principal points are the middles of its pictures.
    width, height = (2 * K[:2, 2]).round().astype(int).tolist()
    people = []
    for person in range(content.num_people):
        poses2d = content.array("poses2d", (num_images, 3, 18), person)
        converted = convert_keypoints(
            torch.from_numpy(poses2d[:, :2].transpose(0, 2, 1).copy()),
            torch.from_numpy(poses2d[:, 2].clip(0.0, 1.0)),
            COCO_18,
            H36M_17,
        )
        people.append(
            MeshSequence(
                name=f"{content.path.stem}_{person}",
                dataset="3dpw",
                gender=content.gender(person),
                frame_ids=np.arange(num_images),
                fps=30.0,
                image_size=(height, width),
                K=K,
                keypoints_px=converted.keypoints.numpy().astype(np.float32),
                confidence=converted.confidence.numpy().astype(np.float32),
                poses_rotvec=content.array("poses", (num_images, 72), person).reshape(-1, 24, 3),
                translation_world_m=content.array("trans", (num_images, 3), person),
                R_cam_world=T_cam_world[:, :3, :3],
                t_cam_world_m=T_cam_world[:, :3, 3],
                betas=content.betas(person),
                joints_cam_m=None,
                evaluated=valid[person] & poses2d.any(axis=(1, 2)),
                valid=valid[person],
            )
        )
    if keypoints is None and not any(person.confidence.any() for person in people):
        raise ValueError(
            f"{content.path} holds no keypoint of anybody in 'poses2d'; fetch it again, or give a detector's with "
            "keypoints=FOLDER."
        )
    for number, one in enumerate(people):
        _check_person(one, f"{content.path}, person {number}")
    if keypoints is not None:
        people = _with_detections(people, _keypoint_file(keypoints, content.path.stem))
    if rate == 60:
        place = content.array("img_frame_ids", (num_images,)).astype(np.int64)
        people = [_at_60_hz(content, person, sequence, place) for person, sequence in enumerate(people)]
    return people


def _check_person(person: MeshSequence, what: str) -> None:
    """Raises ValueError if units or frames are not those of 3DPW, as far as keypoints, body and camera tell."""
    assert person.poses_rotvec is not None
    require_radians(person.poses_rotvec[:, 1:], f"{what}: the file holds 'poses'")
    check_detections(person.keypoints_px, person.confidence, person.image_size, f"{what}: 'poses2d'")
    frames = person.valid_frames & person.confidence.any(axis=1)
    if not frames.any():
        return
    problem = _misplacement(person, frames)
    if problem is not None:
        raise ValueError(
            f"{what}: 'trans' and 'cam_poses' put them {problem}; metres, a camera's pose from the world to the "
            "camera, and 'poses2d' in its pixels are expected. Fetch the original file."
        )


def _misplacement(person: MeshSequence, frames: Bool[np.ndarray, "frame"]) -> str | None:
    """How the keypoints contradict the place where the camera sees the body, in the median; None if they do not."""
    assert person.translation_world_m is not None
    boxes = boxes_around(person.keypoints_px[frames], person.confidence[frames])
    sizes_px = (boxes[:, 2:] - boxes[:, :2]).max(axis=-1).clip(min=1)
    pelvis_world_m = person.translation_world_m[frames] + _REST_PELVIS_M
    turned_m = np.einsum("fij,fj->fi", person.R_cam_world[frames], pelvis_world_m)
    pelvis_cam_m = turned_m + person.t_cam_world_m[frames]
    depths_m = pelvis_cam_m[:, 2]
    if np.median(depths_m) <= 0:
        return "behind the camera"
    size_m = float(np.median(sizes_px * depths_m)) / person.K[0, 0]
    if not _SIZES_M[0] <= size_m <= _SIZES_M[1]:
        return f"where what the keypoints show is {size_m:,.2f} m large"
    pelvis_px = (pelvis_cam_m @ person.K.T)[:, :2] / depths_m.clip(min=1e-6)[:, None]
    distances_px = np.linalg.norm(pelvis_px - (boxes[:, :2] + boxes[:, 2:]) / 2, axis=-1)
    away = float(np.median(distances_px / sizes_px))
    return f"{away:.0f} times their size away from the keypoints" if away > _FARTHEST_FROM_KEYPOINTS else None


@dataclass(frozen=True)
class _Content:
    """A sequence file's entries, every one checked when it is taken out."""

    path: Path
    entries: Any

    def _entry(self, key: str) -> Any:
        if not isinstance(self.entries, dict) or key not in self.entries:
            raise ValueError(f"{self.path} is no sequence file of 3DPW: it has no '{key}'. {_WHERE_TO_GET}")
        return self.entries[key]

    @property
    def num_people(self) -> int:
        return len(self._list("poses"))

    def betas(self, person: int) -> Float[np.ndarray, "10"]:
        betas = self.array("betas", (None,), person)
        if len(betas) < 10:
            raise ValueError(f"{self.path} holds {len(betas)} 'betas', but at least ten are needed.")
        return betas[:10]

    def gender(self, person: int) -> Gender:
        text = self._person("genders", person)
        text = text.decode("latin1") if isinstance(text, bytes) else str(text)
        if text not in _GENDERS:
            raise ValueError(f"{self.path} holds 'genders' with {text!r}, which is neither 'm' nor 'f'.")
        return _GENDERS[text]

    def array(
        self,
        key: str,
        shape: tuple[int | None, ...],
        person: int | None = None,
        may_be_nan: Bool[np.ndarray, "frame"] | None = None,
    ) -> Float[np.ndarray, "..."]:
        """Numbers as float64, of the given shape (None: any length); NaN becomes 0 where it `may_be_nan`."""
        try:
            array = as_floats(self._entry(key) if person is None else self._person(key, person), np.float64)
        except (TypeError, ValueError) as error:
            if str(self.path) in str(error):
                raise
            raise ValueError(f"{self.path} holds '{key}' that are no numbers. {_WHERE_TO_GET}") from error
        fits = len(array.shape) == len(shape) and all(
            length in (None, found) for length, found in zip(shape, array.shape, strict=True)
        )
        if not fits:
            expected = str(shape).replace("None", "any")
            raise ValueError(f"{self.path} holds '{key}' of shape {array.shape}, not {expected}.")
        if may_be_nan is not None:
            array[may_be_nan] = np.nan_to_num(array[may_be_nan], posinf=0, neginf=0)
        if not np.isfinite(array).all():
            raise ValueError(f"{self.path} holds '{key}' that are not finite. {_WHERE_TO_GET}")
        return array

    def _list(self, key: str) -> list[Any]:
        """An entry per person."""
        values = self._entry(key)
        if isinstance(values, np.ndarray) and values.ndim > 0:
            values = list(values)
        if not isinstance(values, list | tuple) or not values:
            raise ValueError(
                f"{self.path} holds no list with an entry per person in '{key}'. {_WHERE_TO_GET}"
            )
        return list(values)

    def _person(self, key: str, person: int) -> Any:
        values = self._list(key)
        if len(values) != self.num_people:
            raise ValueError(
                f"{self.path} holds '{key}' of {len(values)} people, but 'poses' of {self.num_people}."
            )
        return values[person]


# Another detector's keypoints.


def _files_of(folder: Path, sequence: str) -> list[Path]:
    return sorted(path for path in folder.glob(f"{sequence}.*") if not path.name.startswith("."))


def _keypoint_file(folder: Path, sequence: str) -> Path:
    found = _files_of(folder, sequence)
    if len(found) != 1:
        raise ValueError(
            f"{folder} holds {len(found)} files named {sequence}.*; one keypoint file per sequence is needed."
        )
    return found[0]


def _with_detections(people: list[MeshSequence], path: Path) -> list[MeshSequence]:
    """The same people with a detector's keypoints, by overlap with their own in each frame.

    Where a person has no keypoints of 3DPW's, the track follows that is most often theirs elsewhere.

    Raises:
        ValueError: Nobody's keypoints overlap with any of the detector's, in any frame.
    """
    from scipy.optimize import linear_sum_assignment

    num_images = people[0].num_frames
    tracks = [track.to_skeleton(H36M_17).track for track in read_keypoints(path).tracks]
    keypoints_px = np.zeros((len(tracks), num_images, 17, 2), np.float32)
    confidence = np.zeros((len(tracks), num_images, 17), np.float32)
    for number, track in enumerate(tracks):
        inside = (track.frame_ids >= 0) & (track.frame_ids < num_images)
        keypoints_px[number, track.frame_ids[inside]] = track.keypoints_px[inside]
        confidence[number, track.frame_ids[inside]] = track.confidence[inside]
    overlap = box_overlap(
        np.stack([boxes_around(person.keypoints_px, person.confidence) for person in people])[:, None],
        np.stack([boxes_around(*pair) for pair in zip(keypoints_px, confidence, strict=True)])[None],
    )  # (person, track, frame)

    chosen = np.full((len(people), num_images), -1)
    for frame in range(num_images):
        for person, index in zip(*linear_sum_assignment(-overlap[..., frame]), strict=True):
            if overlap[person, index, frame] >= _LEAST_OVERLAP:
                chosen[person, frame] = index
    if (chosen < 0).all() and any(person.confidence.any() for person in people):
        raise ValueError(
            f"{path} holds no detection that overlaps anybody of 3DPW's {path.stem}; give the detections of this "
            "sequence's own images, in their pixels, with frames numbered from 0."
        )
    votes = np.stack([(chosen == track).sum(axis=1) for track in range(len(tracks))])  # (track, person)
    owner = np.where(votes.any(axis=1), votes.argmax(axis=1), -1)
    for person, sequence in enumerate(people):
        unknown = ~sequence.confidence.any(axis=1) & (chosen[person] < 0)
        for index in np.nonzero(owner == person)[0]:
            chosen[person, unknown & confidence[index].any(axis=1)] = index
    found = np.where(chosen >= 0, chosen, 0)
    frames = np.arange(num_images)
    return [
        replace(
            sequence,
            keypoints_px=keypoints_px[found[person], frames],
            confidence=confidence[found[person], frames] * (chosen[person] >= 0)[:, None],
        )
        for person, sequence in enumerate(people)
    ]


# 60 Hz.


def _at_60_hz(
    content: _Content, person: int, sequence: MeshSequence, place: Int[np.ndarray, "image"]
) -> MeshSequence:
    """The person at 60 Hz; `place` is where the images are in the 60 Hz arrays."""
    from core.rotations import chordal_mean

    num_frames = len(content.array("poses_60Hz", (None, 72), person))
    if not (np.diff(place) > 0).all() or place[0] < 0 or place[-1] >= num_frames:
        raise ValueError(
            f"{content.path} holds 'img_frame_ids' that do not lead through its {num_frames} frames at 60 Hz."
        )
    frames = np.arange(
        place[0], place[-1] + 1
    )  # no camera is known before the first and after the last image
    after = np.searchsorted(place, frames)
    before = np.maximum(after - 1, 0)
    share = (frames - place[before]) / np.maximum(place[after] - place[before], 1)
    weights = torch.from_numpy(np.stack([1 - share, share]))
    R_cam_world = torch.from_numpy(sequence.R_cam_world)
    R = chordal_mean(torch.stack([R_cam_world[before], R_cam_world[after]]), dim=0, weights=weights).numpy()
    # The camera's centre moves on a line, not its translation.
    centre = -np.einsum("fji,fj->fi", sequence.R_cam_world, sequence.t_cam_world_m)
    centre = (1 - share)[:, None] * centre[before] + share[:, None] * centre[after]

    def at_images(values: np.ndarray) -> np.ndarray:
        spread = np.zeros((len(frames), *values.shape[1:]), values.dtype)
        spread[place - place[0]] = values
        return spread

    # At an image its own camera alone is used.
    valid: Bool[np.ndarray, frame] = sequence.valid_frames[after] & (
        sequence.valid_frames[before] | (share == 1)
    )
    return replace(
        sequence,
        frame_ids=frames,
        fps=60.0,
        keypoints_px=at_images(sequence.keypoints_px),
        confidence=at_images(sequence.confidence),
        poses_rotvec=content.array("poses_60Hz", (num_frames, 72), person)[frames].reshape(-1, 24, 3),
        translation_world_m=content.array("trans_60Hz", (num_frames, 3), person)[frames],
        R_cam_world=R,
        t_cam_world_m=-np.einsum("fij,fj->fi", R, centre),
        evaluated=at_images(sequence.evaluated),
        valid=valid,
    )
