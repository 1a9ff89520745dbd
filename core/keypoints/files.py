"""Reads 2D keypoint files into tracks; docs/keypoints.md lists the formats and the rules."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from core.atomic_write import written_whole
from core.keypoints.detections import Detection, Detections, KeypointFileError
from core.keypoints.formats import FORMATS, known_formats, recognise, refuse_nobody
from core.keypoints.loading import load
from core.keypoints.people import told_apart
from core.keypoints.plausibility import (
    look_like_shares,
    require_frames_of_one_video,
    require_people_of_one_picture,
    require_pixels,
    require_shares,
)
from core.keypoints.track import LARGEST_FPS, Track
from core.settings import require_number
from core.video import read_video_facts, require_video_of

_DEFAULT_FPS = 30.0
_LEAST_FPS = 0.1  # slower is no motion
_SAME_FPS = 0.005  # 29.97 and 30 are
# Confidences are read as [0, 1] unless more than 1 % of those above 0 exceed this.
_LARGEST_UNIT_CONFIDENCE = 1.5
# … or 95 % of them lie below this: training shows a model detectors that are sure of what they see.
_LEAST_HIGH_CONFIDENCE = 0.6


@dataclass(frozen=True)
class KeypointFileReport:
    """What was read, and what had to be decided.

    Attributes:
        video_name: What the keypoints are of, where the file says it; else the file's own name.
        format: Name of the format.
        skeleton: Name of the skeleton.
        num_detections: In the file.
        num_frames: Different frames in which anyone was detected.
        num_persons: Tracks.
        missing_frames: Per person, the frames between first and last without a detection.
        doubles: (person, frame) that were detected more than once; the best-scored detection was kept.
        shared_ids: ids that several people had; they were told apart by where they are.
        confidence_scale: Confidences were divided by this before they were clipped to [0, 1].
        num_clipped: Confidences that were clipped.
        taken_for_shares: Coordinates too small for pixels were taken for shares of the picture.
        fps_is_assumed: Nobody said the frame rate.
        are_stills: Every person is of a picture, and of a camera, of their own.
        other_rates: (of the keypoints, of the video), frames a second, where they are not the same.
    """

    video_name: str
    format: str
    skeleton: str
    num_detections: int
    num_frames: int
    num_persons: int
    missing_frames: dict[str, int]
    doubles: tuple[tuple[str, int], ...]
    shared_ids: tuple[str, ...]
    confidence_scale: float
    num_clipped: int
    taken_for_shares: bool = False
    fps_is_assumed: bool = False
    are_stills: bool = False
    other_rates: tuple[float, float] | None = None

    def __str__(self) -> str:
        parts = [
            f"{self.format} ({self.skeleton}): {_counted(self.num_detections, 'detection')} of "
            f"{_counted(self.num_persons, 'person', 'people')} in {_counted(self.num_frames, 'frame')}",
            _counted(sum(self.missing_frames.values()), "missing frame"),
            f"{len(self.doubles)} doubles resolved",
        ]
        if self.fps_is_assumed and self.num_frames > 1:
            parts.append(f"{_DEFAULT_FPS:g} frames a second assumed (say fps=…)")
        if self.other_rates is not None:
            given, of_video = self.other_rates
            parts.append(f"{given:g} frames a second, while the video plays at {of_video:g}")
        if self.taken_for_shares:
            parts.append("coordinates taken for shares of the picture")
        if self.shared_ids:
            parts.append(f"people with the same id ({', '.join(self.shared_ids)}) told apart by place")
        if self.confidence_scale != 1.0:
            parts.append(f"confidences divided by {self.confidence_scale:.3g}")
        if self.num_clipped:
            parts.append(f"{self.num_clipped} confidences clipped to [0, 1]")
        return ", ".join(parts)


def _counted(number: int, one: str, several: str | None = None) -> str:
    return f"{number} {one if number == 1 else several or one + 's'}"


class KeypointFile(NamedTuple):
    """The people of a file, the one with most frames first."""

    tracks: list[Track]
    report: KeypointFileReport


def read_keypoints(
    path: str | Path,
    *,
    format: str = "auto",
    fps: float | int | None = None,
    image_size: Sequence[int] | None = None,
    counts_from: int | None = None,
    video: str | Path | None = None,
) -> KeypointFile:
    """Reads a file of 2D keypoints.

    Frame ids are kept, but for counting from 0, so that a missed detection never shifts time. People with one id
    are told apart by place; where a person is detected twice in one frame, the higher score wins. Confidences end
    in [0, 1].

    Args:
        path: A keypoint file, or a folder of them, as OpenPose, MMPose and Ultralytics leave.
        format: "auto", or the name of a format in docs/keypoints.md.
        fps: Frame rate of the video. Default: the file's own, else the video's, else 30.
        image_size: (height, width) of the video in pixels. Default: likewise, else unknown.
        counts_from: The number that the file gives the video's first frame. Default 0, or 1 for formats that
            count from 1.
        video: What the keypoints are from: says `fps` and `image_size` where neither the file nor the caller does.

    Raises:
        ValueError: If the file is missing, broken, in no known format, or says another `fps` or `image_size`
            itself; the message is one sentence that names it. Or if `fps`, `image_size` or `counts_from` are
            impossible, or the size or the video are not those of the pictures that the keypoints are from.
        FileNotFoundError: If there is no such video.
    """
    path = Path(path)
    is_number = isinstance(fps, int | float) and not isinstance(fps, bool)
    if fps is not None and not (is_number and _LEAST_FPS <= fps <= LARGEST_FPS):
        raise ValueError(
            f"fps={fps} is no frame rate; give frames per second, {_LEAST_FPS} to {LARGEST_FPS}."
        )
    require_number("counts_from", counts_from, least=0, whole=True, may_be_null=True)
    size = None if image_size is None else _checked_image_size(image_size)
    if format != "auto" and format not in FORMATS:
        raise ValueError(f"There is no keypoint format {format!r}; these are read: {known_formats()}.")
    facts = None if video is None else read_video_facts(video)
    try:
        content = load(path)
        refuse_nobody(content)
        name = format if format != "auto" else recognise(content)
        detections = FORMATS[name].read(content)
        _require_no_other(detections, fps, size)
        if facts is not None:
            fps, size = fps or facts.fps, size or facts.image_size
        if counts_from is not None:
            detections = detections._replace(counts_from=counts_from)
        taken_for_shares = not detections.in_image_shares and name != "npz" and look_like_shares(detections)
        if taken_for_shares:
            detections = detections._replace(in_image_shares=True)
        file = _to_tracks(path.stem, name, detections, fps, size)
        file = file._replace(report=replace(file.report, taken_for_shares=taken_for_shares))
        if not detections.in_image_shares:
            require_pixels(file.tracks, size_is_the_files=detections.image_size is not None)
    except KeypointFileError as problem:
        raise ValueError(f"Cannot read keypoints from {path}: {problem}.") from None
    if video is not None and facts is not None:
        last_frame = max(int(track.frame_ids[-1]) for track in file.tracks)
        size = file.tracks[0].assumed_image_size()  # known: if by nothing else, then by the video
        require_video_of(video, facts, name=str(path), image_size=size, last_frame=last_frame)
        rates = (file.tracks[0].fps, facts.fps)
        if abs(rates[0] - rates[1]) > _SAME_FPS * rates[1]:
            file = file._replace(report=replace(file.report, other_rates=rates))
    return file


def write_keypoints_npz(path: str | Path, track: Track) -> None:
    """Writes a track in the project's own format, which `read_keypoints` gives back unchanged."""
    arrays: dict[str, Any] = {
        "keypoints_px": track.keypoints_px,
        "confidence": track.confidence,
        "frame_ids": track.frame_ids,
        "fps": np.array(track.fps),
        "skeleton": np.array(track.skeleton.name),
        "person_id": np.array(track.person_id),
    }
    if track.image_size is not None:
        arrays["image_size"] = np.array(track.image_size)
    with written_whole(path) as file:
        np.savez_compressed(file, **arrays)


def _require_no_other(file: Detections, fps: float | int | None, size: tuple[int, int] | None) -> None:
    """KeypointFileError if a file says something else of its video than whoever reads it."""
    if file.fps is not None and fps is not None and abs(file.fps / fps - 1) > _SAME_FPS:
        raise KeypointFileError(
            f"it is of {file.fps:g} frames a second itself, and fps={fps:g} was given; leave it out"
        )
    if file.image_size is not None and size is not None and file.image_size != size:
        raise KeypointFileError(
            f"it is of pictures of {file.image_size[0]} × {file.image_size[1]} (height × width) itself, and "
            f"image_size=[{size[0]},{size[1]}] was given; leave it out"
        )


def _checked_image_size(image_size: Sequence[int]) -> tuple[int, int]:
    numbers = list(image_size) if isinstance(image_size, Sequence) else []
    if len(numbers) != 2 or not all(type(number) is int and number > 0 for number in numbers):
        raise ValueError(f"image_size={image_size} is no size; give [height,width] in pixels.")
    return numbers[0], numbers[1]


# Detections to tracks.


def _to_tracks(
    file_name: str,
    format_name: str,
    file: Detections,
    fps: float | int | None,
    image_size: tuple[int, int] | None,
) -> KeypointFile:
    if not file.detections:
        raise KeypointFileError("it holds no detection")
    earliest = min(detection.frame_id for detection in file.detections)
    if earliest < file.counts_from:
        raise KeypointFileError(
            f"it has a frame {earliest}, and frame {file.counts_from} is taken for the video's first; give "
            "counts_from=0"
        )
    require_frames_of_one_video(file.detections)
    rate = float(next(rate for rate in (file.fps, fps, _DEFAULT_FPS) if rate is not None))
    if file.in_image_shares:
        require_shares(file)
        file = _in_pixels(file, file.image_size or image_size)
    kept: dict[tuple[str, int], Detection] = {}
    told, shared_ids, strays = told_apart(file.detections)
    doubles: dict[tuple[str, int], None] = dict.fromkeys(strays)
    for detection in told:
        key = (detection.person_id, detection.frame_id)
        if key in kept:
            doubles[key] = None
        if key not in kept or detection.score > kept[key].score:
            kept[key] = detection
    if file.is_one_picture:
        require_people_of_one_picture(len(file.detections), len(kept))

    scale = _confidence_scale(np.stack([detection.keypoints[:, 2] for detection in kept.values()]))
    num_clipped = 0
    by_person: dict[str, list[Detection]] = {}
    for detection in kept.values():
        by_person.setdefault(detection.person_id, []).append(detection)
    tracks = []
    for person_id, detections in by_person.items():
        detections.sort(key=lambda detection: detection.frame_id)
        keypoints = np.stack([detection.keypoints for detection in detections])
        confidence = keypoints[..., 2] / scale
        num_clipped += int(((confidence < 0) | (confidence > 1)).sum())
        try:
            track = Track(
                person_id=person_id,
                skeleton=file.skeleton,
                frame_ids=np.array([detection.frame_id - file.counts_from for detection in detections]),
                keypoints_px=keypoints[..., :2].astype(np.float32),
                confidence=confidence.clip(0.0, 1.0).astype(np.float32),
                fps=rate,
                image_size=file.image_size or image_size,
            )
        except ValueError as error:
            raise KeypointFileError(str(error).rstrip(".")) from None
        tracks.append(track)
    tracks.sort(key=lambda track: -track.num_frames)

    report = KeypointFileReport(
        video_name=file.video_name or file_name,
        format=format_name,
        skeleton=file.skeleton.name,
        num_detections=len(file.detections),
        num_frames=len({frame_id for _, frame_id in kept}),
        num_persons=len(tracks),
        missing_frames={t.person_id: sum(last - first + 1 for first, last in t.gaps) for t in tracks},
        doubles=tuple((person, frame - file.counts_from) for person, frame in doubles),
        shared_ids=shared_ids,
        confidence_scale=scale,
        num_clipped=num_clipped,
        fps_is_assumed=file.fps is None and fps is None,
        are_stills=file.are_stills,
    )
    return KeypointFile(tracks, report)


def _in_pixels(file: Detections, image_size: tuple[int, int] | None) -> Detections:
    if image_size is None:
        raise KeypointFileError(
            "its coordinates are shares of the picture's width and height; give image_size=[height,width], or the "
            "video that they are from"
        )
    to_pixels = np.array([image_size[1], image_size[0], 1.0])
    return file._replace(
        detections=[
            detection._replace(keypoints=detection.keypoints * to_pixels) for detection in file.detections
        ],
        in_image_shares=False,
    )


def _confidence_scale(confidence: Float[np.ndarray, "detection joint"]) -> float:
    """1 where confidences span [0, 1], a little over included; else their 95th percentile.

    AlphaPose's COCO models add up heatmaps: their confidences reach 6, and no fixed number is "certain".
    Detectron2's are peaks of a softmax over places: certain is a fraction of 1.
    """
    seen = confidence[confidence > 0]
    if seen.size == 0:
        return 1.0
    high = float(np.percentile(seen, 95))
    is_unit = (seen > _LARGEST_UNIT_CONFIDENCE).mean() <= 0.01 and high >= _LEAST_HIGH_CONFIDENCE
    return 1.0 if is_unit else high
