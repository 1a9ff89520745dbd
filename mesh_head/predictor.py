"""Pixels in, bodies out: the model run over sequences of any length.

Shapes: T frames of one sequence, W windows of the model's clip length.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from body_models.export.ground import ground_offset_yup_m
from body_models.joint_regressors import JointRegressor
from body_models.parameters import BodyParameters
from body_models.smpl import SmplBody
from core.camera import R_YUP_YDOWN, assumed_intrinsics
from core.gravity import Level
from core.keypoints.clip import normalise_clip
from core.keypoints.frame_rate import at_other_rate
from core.keypoints.gaps import across_gaps
from core.keypoints.track import Track, TrackInput, naming_person
from core.keypoints.windows import blend_rotation_windows, split_windows
from core.rotations import chordal_mean
from core.settings import require_number
from core.skeleton import H36M_17
from core.trajectory import solve_translation_trajectory
from mesh_head.weights import load_model_for

# Windows run through the model together; bounds the memory of a long sequence.
_WINDOWS_AT_ONCE = 32
# Of whom less is detected, a remark is made.
_LEAST_DETECTED = 0.5
# Keypoints nearer to each other lie in one place, which tells no distance from the camera.
_LEAST_SPREAD_PX = 0.5


@torch.no_grad()
def recover_sequence(
    model: nn.Module,
    keypoints_px: Float[Tensor, "frame joint 2"],
    confidence: Float[Tensor, "frame joint"],
    K: Float[Tensor, "3 3"],
    *,
    window_frames: int,
) -> BodyParameters:
    """SMPL parameters of every frame in the camera frame, translation left at zero.

    The sequence is cut into windows that overlap by half and are blended with Hann weights; each has a crop
    of its own, as clips in training have. A sequence shorter than a window is held at its last frame.

    Args:
        model: normalised keypoints (B, T, J, 3) to `BodyParameters` in the crop frame.
        keypoints_px, confidence: in the model's skeleton; confidence 0 = unseen.
        K: intrinsics.
        window_frames: clip length the model is run with.

    Returns:
        Parameters of batch shape (T,), with one shape for all frames: betas (1, 10), the mean of the windows', each
        weighed by the number of its frames in which anything is seen.
    """
    num_frames = len(keypoints_px)
    missing = max(window_frames - num_frames, 0)
    held = torch.arange(num_frames + missing, device=K.device).clamp(max=num_frames - 1)
    windows = split_windows(num_frames + missing, window_frames, window_frames // 2)
    roots: list[Tensor] = []
    bodies: list[Tensor] = []
    betas: list[Tensor] = []
    for first in range(0, len(windows), _WINDOWS_AT_ONCE):
        frames = torch.stack([held[window] for window in windows[first : first + _WINDOWS_AT_ONCE]])
        clip = normalise_clip(keypoints_px[frames], confidence[frames], K.expand(len(frames), 3, 3))
        predicted = model(clip.keypoints)
        R_cam_crop = clip.R_crop_cam.transpose(-1, -2)
        roots += list(R_cam_crop[:, None] @ predicted.root_rotmat)
        bodies += list(predicted.body_rotmat)
        betas.append(predicted.betas[:, 0])
    rotmat = blend_rotation_windows(
        [torch.cat([root[:, None], body], dim=1) for root, body in zip(roots, bodies, strict=True)],
        windows,
        len(held),
    )[:num_frames]
    # Windows without anybody say nothing about the shape; if nobody is seen in any, they count alike.
    seen = (confidence > 0).any(dim=-1)[held]
    votes = torch.stack([seen[window].sum() for window in windows]).to(rotmat)
    votes = votes / votes.sum() if votes.any() else torch.full_like(votes, 1 / len(votes))
    return BodyParameters(
        root_rotmat=rotmat[:, 0],
        body_rotmat=rotmat[:, 1:],
        betas=votes[None] @ torch.cat(betas),
        translation_m=torch.zeros_like(rotmat[:, 0, 0]),
    )


def recover_at_rate(
    model: nn.Module,
    keypoints_px: Float[Tensor, "frame joint 2"],
    confidence: Float[Tensor, "frame joint"],
    K: Float[Tensor, "3 3"],
    *,
    window_frames: int,
    rate_factor: float,
) -> BodyParameters:
    """`recover_sequence` where the video's frame rate is `rate_factor` times that of the model's training.

    The model sees keypoints at the rate that it knows (`core.keypoints.frame_rate`), and straight lines through
    frames in which nothing was seen (`core.keypoints.gaps`); rotations are brought back to the video's frames.
    """
    keypoints_px, confidence = across_gaps(keypoints_px, confidence)
    other = at_other_rate(keypoints_px, confidence, rate_factor)
    if other is None:
        return recover_sequence(model, keypoints_px, confidence, K, window_frames=window_frames)
    found = recover_sequence(model, other.keypoints_px, other.confidence, K, window_frames=window_frames)
    weights = torch.stack([1 - other.back.share, other.back.share])

    def at_frames(rotmat: Tensor) -> Tensor:
        both = torch.stack([rotmat[other.back.before], rotmat[other.back.after]])
        by_joint = weights.reshape(2, len(keypoints_px), *[1] * (both.ndim - 4)).expand(both.shape[:-2])
        return chordal_mean(both, dim=0, weights=by_joint)

    root_rotmat = at_frames(found.root_rotmat)
    return BodyParameters(
        root_rotmat=root_rotmat,
        body_rotmat=at_frames(found.body_rotmat),
        betas=found.betas,
        translation_m=torch.zeros_like(root_rotmat[:, 0]),
    )


@dataclass(frozen=True)
class RecoveredMotion:
    """A person's bodies through a video, in the camera frame.

    Attributes:
        parameters: batch shape (T,); betas (1, 10).
        frame_ids: video frame of each.
        seen: whether the detector saw any joint in that frame; others are filled from their neighbours.
        K, image_size: the camera, assumed or given.
        fps: frames per second.
        level: how the camera stands.
        ground_offset_yup_m: moves positions, y up and z to the viewer, from a level camera's origin to the ground;
            zero where it has not been looked for.
    """

    parameters: BodyParameters
    frame_ids: np.ndarray
    seen: np.ndarray
    K: Float[Tensor, "3 3"]
    image_size: tuple[int, int]
    fps: float
    level: Level = field(default_factory=Level)
    ground_offset_yup_m: Float[Tensor, "3"] = field(default_factory=lambda: torch.zeros(3))


class MeshPredictor:
    """A trained model with the body it drives.

    Args:
        model: as in `recover_sequence`.
        window_frames: clip length the model is run with.
        fps: frame rate that the model was trained at.
        body, regressor: of the same body model; the regressor gives H36M_17.
        remark: what its user should know; None for nothing.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        window_frames: int,
        fps: float,
        body: SmplBody,
        regressor: JointRegressor,
        remark: str | None = None,
    ) -> None:
        self.model = model
        self.window_frames = window_frames
        self.fps = fps
        self.body = body
        self.regressor = regressor
        self.remark = remark

    @classmethod
    def from_file(
        cls,
        weights: str | Path,
        *,
        body: SmplBody,
        regressor: JointRegressor,
        device: torch.device,
        mirror_test: bool = True,
        body_gender: str | None = None,
    ) -> "MeshPredictor":
        """From a weights file (`mesh_head.weights`); ValueError says what is wrong with it.

        `mirror_test`: the model sees the keypoints' mirror image, too, and the mean of both answers counts.

        With a body model other than the one that the weights were trained with, bodies have the mean shape, and
        `remark` says so; it says, too, where `body_gender` is not the weights'.
        """
        model, clip, remark = load_model_for(weights, body, mirror_test=mirror_test, body_gender=body_gender)
        return cls(
            model=model.to(device),
            window_frames=int(clip["num_frames"]),
            fps=float(clip["fps"]),
            body=body.to(device),
            regressor=regressor.to(device),
            remark=remark,
        )

    def recover(self, track: Track, K: Float[Tensor, "3 3"] | None = None) -> RecoveredMotion:
        """Bodies for every frame from the track's first to its last, placed where the keypoints are.

        Args:
            track: in any skeleton; it is converted by name.
            K: intrinsics in edge-counted pixels; None assumes a focal length of the image's diagonal.

        Raises:
            ValueError: the keypoints say too little to place the person, whom it names, before the camera.
        """
        given = TrackInput.of(track, H36M_17, K, dtype=self.body.dtype, device=self.body.device)
        parameters = recover_at_rate(
            self.model,
            given.keypoints_px,
            given.confidence,
            given.K,
            window_frames=self.window_frames,
            rate_factor=track.fps / self.fps,
        )
        with naming_person(track):
            placed = self._placed(parameters, given, track.fps)
        return RecoveredMotion(
            parameters=placed,
            frame_ids=given.frame_ids,
            seen=given.seen,
            K=given.K,
            image_size=given.image_size,
            fps=track.fps,
        )

    def levelled(
        self,
        motions: Sequence[RecoveredMotion],
        camera_pitch_deg: int | float | None,
        *,
        one_camera: bool = True,
    ) -> list[RecoveredMotion]:
        """The motions of all people of one video, with how its camera stands.

        Args:
            motions: as recovered.
            one_camera: whether all are before one; else each is before one of their own.
            camera_pitch_deg: how far the camera looks down; None: that, and its roll, are judged by how they stand.

        Raises:
            ValueError: `camera_pitch_deg` is no number from -90 to 90.
        """
        joints_m = [self.joints_m(motion.parameters)[motion.seen].cpu() for motion in motions]
        levels = Level.of_people(camera_pitch_deg, joints_m, one_camera=one_camera)
        return [replace(motion, level=level) for motion, level in zip(motions, levels, strict=True)]

    def grounded(
        self, motions: Sequence[RecoveredMotion], *, one_camera: bool = True
    ) -> list[RecoveredMotion]:
        """The motions of all people of one video, with where the ground is under them; `levelled` before.

        Before one camera all are moved by the same, and the origin is below whoever comes first.
        """
        if not one_camera:
            return [self.grounded([motion])[0] for motion in motions]
        first = min(motions, key=lambda motion: int(motion.frame_ids[0]))
        offset_m = ground_offset_yup_m(
            self.body,
            [motion.parameters for motion in motions],
            above_origin=first.parameters,
            R_yup_frame=torch.tensor(R_YUP_YDOWN) @ first.level.R_level_cam.cpu(),
        )
        return [replace(motion, ground_offset_yup_m=offset_m) for motion in motions]

    def joints_m(self, parameters: BodyParameters) -> Float[Tensor, "frame 17 3"]:
        """H36M_17 joints of the bodies."""
        restricted = self.body.restricted_to(self.regressor.support).to(self.body.device)
        return self.regressor.restricted().to(self.body.device)(restricted(parameters).vertices_m)

    def _placed(self, parameters: BodyParameters, given: TrackInput, fps: float) -> BodyParameters:
        placed_m = solve_translation_trajectory(
            self.joints_m(parameters), given.keypoints_px, given.confidence, given.K, fps=fps
        )
        return BodyParameters(parameters.root_rotmat, parameters.body_rotmat, parameters.betas, placed_m)


class ChosenPeople(NamedTuple):
    """Whom a prediction is of.

    Attributes:
        tracks: with the image's size, known or assumed.
        facts: what prediction.json should say of the choice.
        remarks: what the user should know.
        one_camera: whether all are before one; else each is of a picture of their own.
    """

    tracks: list[Track]
    facts: dict[str, Any]
    remarks: list[str]
    one_camera: bool = True


def choose_people(
    tracks: Sequence[Track],
    person: str | int | None,
    *,
    source: str | Path,
    may_be_all: bool = True,
    one_camera: bool = True,
    min_frames: int = 1,
) -> ChosenPeople:
    """A file's people: the one that is named, "all" of them, or with None the one seen in most frames.

    Of all, those who never show two keypoints are left out, and a remark names them. Where the image's size is
    not known, all get the one that holds everybody's keypoints, or each their own, if each is of another picture.
    Remarks also say of whom less than half of the frames are detected.

    Args:
        tracks: of the file.
        source: the file, for sentences.
        may_be_all: whether the sentences may advise person=all.
        one_camera: whether all are before one; else each is of a picture of their own.
        min_frames: of all, those who are detected in fewer are left out, too.

    Raises:
        ValueError: there is no such person, or whoever is chosen never shows two keypoints.
    """
    require_number("min_frames", min_frames, least=1, whole=True)
    named = [track for track in tracks if str(person) in ("all", track.person_id)]
    if person is None:
        named = [max(tracks, key=lambda track: track.num_frames)]
    if not named:
        known = ", ".join(track.person_id for track in tracks)
        instead = " Or say person=all." if may_be_all and len(tracks) > 1 else ""
        raise ValueError(f"{source} has no person {person!r}; it has {known}.{instead}")
    remarks = []
    if str(person) == "all":
        brief = [track.person_id for track in named if track.num_frames < min_frames]
        named = [track for track in named if track.num_frames >= min_frames]
        if not named:
            longest = max(track.num_frames for track in tracks)
            raise ValueError(
                f"Nobody in {source} is detected in min_frames={min_frames} frames; the most is {longest}."
            )
        if brief:
            remarks.append(f"Left out, as detected in fewer than {min_frames} frames: {', '.join(brief)}.")
    left_out = [track.person_id for track in named if not _shows_two_keypoints(track)]
    chosen = [track for track in named if track.person_id not in left_out]
    if not chosen and str(person) == "all":
        raise ValueError(
            f"In no frame of {source} are two joints of a person seen that the model reads, so nobody can be "
            "placed before the camera."
        )
    if not chosen:
        instead = "; choose somebody else with person=ID" + (", or person=all" if may_be_all else "")
        raise ValueError(
            f"In no frame of {source} are two joints of person {left_out[0]!r} seen that the model reads, so they "
            f"cannot be placed before the camera{instead if len(tracks) > 1 else ''}."
        )
    if left_out:
        remarks.append(f"Left out, as no frame shows two of the model's joints: {', '.join(left_out)}.")
    size_is_assumed = chosen[0].image_size is None
    sizes = [track.assumed_image_size() for track in chosen]
    if one_camera:
        sizes = [(max(height for height, _ in sizes), max(width for _, width in sizes))] * len(sizes)
    if size_is_assumed:
        (height, width), differ = sizes[0], len(set(sizes)) > 1
        assumed = (
            "The images' sizes are not known; of each the least that holds all keypoints is assumed."
            if differ
            else f"The image's size is not known; {height} × {width} (height × width) is assumed, the least that "
            "holds all keypoints."
        )
        remarks.append(
            f"{assumed} Give it with image_size=[height,width] or video=FILE: the camera's focal length and middle "
            "follow from it."
        )
    remarks += [remark for track in chosen if (remark := _remark_on_gaps(track)) is not None]
    placed = [replace(track, image_size=size) for track, size in zip(chosen, sizes, strict=True)]
    return ChosenPeople(placed, {"image_size_is_assumed": size_is_assumed}, remarks, one_camera)


def _remark_on_gaps(track: Track) -> str | None:
    """On somebody of whom more is made up than was seen."""
    num_frames = int(track.frame_ids[-1] - track.frame_ids[0]) + 1
    if track.num_frames >= _LEAST_DETECTED * num_frames:
        return None
    step = int(np.median(np.diff(track.frame_ids)))
    numbered = "; if they follow each other, number them 0, 1, 2, …" if step > 1 else ""
    return (
        f"Person {track.person_id} is detected in {track.num_frames} of {num_frames} frames, in the median {step} "
        f"apart{numbered}. What lies between is drawn from the one to the next."
    )


Recovered = TypeVar("Recovered")


def of_each_person(
    tracks: Sequence[Track],
    recover: Callable[[Track], Recovered],
    shown_as: Callable[[str, int | None], AbstractContextManager[Callable[[], None]]],
    *,
    may_leave_out: bool,
) -> tuple[list[Track], list[Recovered], list[str]]:
    """Whom a prediction can be made of, what `recover` makes of each, and sentences about who is left out.

    Args:
        shown_as: shows what is done, and how much of it (`ProgressDisplay.task`).
        may_leave_out: whether people of whom it can make nothing are left out, as long as somebody is left.

    Raises:
        ValueError: as `recover`.
    """
    found, remarks, first_problem = [], [], None
    num_frames = sum(track.num_frames for track in tracks)
    who = f"person {tracks[0].person_id}" if len(tracks) == 1 else f"{len(tracks):,} people"
    what = f"Recovering {who}, {num_frames:,} frame{'s' * (num_frames != 1)}"
    with shown_as(what, len(tracks) if len(tracks) > 1 else None) as one_is_done:
        for track in tracks:
            try:
                found.append((track, recover(track)))
            except ValueError as problem:
                if not may_leave_out:
                    raise
                first_problem = first_problem or problem
                remarks.append(f"Left out. {problem}")
            one_is_done()
    if first_problem is not None and not found:
        raise first_problem
    return [track for track, _ in found], [person for _, person in found], remarks


def _shows_two_keypoints(track: Track) -> bool:
    """Whether a frame shows two of the model's joints in different places, without which nobody can be placed."""
    converted = track.to_skeleton(H36M_17).track
    is_seen = converted.confidence[..., None] > 0
    least = np.where(is_seen, converted.keypoints_px, np.inf).min(axis=1)
    most = np.where(is_seen, converted.keypoints_px, -np.inf).max(axis=1)
    return bool((most - least > _LEAST_SPREAD_PX).any())


def intrinsics(track: Track, focal_px: float | None) -> Float[Tensor, "3 3"]:
    """A camera with square pixels and the principal point in the middle of the track's image."""
    height, width = track.assumed_image_size()
    if focal_px is None:
        return assumed_intrinsics((height, width))
    require_number("focal_px", focal_px, above=0.0)
    return torch.tensor([[focal_px, 0.0, width / 2], [0.0, focal_px, height / 2], [0.0, 0.0, 1.0]])
