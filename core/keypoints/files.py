"""Reads 2D keypoint files into tracks; docs/keypoints.md lists the formats and the rules."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from core.atomic_write import written_whole
from core.keypoints.detections import Detection, Detections, KeypointFileError
from core.keypoints.formats import FORMATS, known_formats, recognise
from core.keypoints.loading import load
from core.keypoints.people import told_apart
from core.keypoints.track import LARGEST_FPS, Track
from core.settings import require_number
from core.video import read_video_facts, require_video_of

_DEFAULT_FPS = 30.0
_LEAST_FPS = 0.1  # slower is no motion
# Confidences are read as [0, 1] unless more than 1 % of those above 0 exceed this.
_LARGEST_UNIT_CONFIDENCE = 1.5
# Pixels do not all lie so near the corner: those are shares of the picture.
_LARGEST_SHARE = 2.0
# A keypoint beyond the picture by more than this share of its side lies clearly outside. Of keypoints, weighed by
# confidence, more than half there belong to no such picture; nor do so many that lie in the turned one.
_CLEARLY_OUTSIDE = 0.1
_MOST_OUTSIDE, _MOST_OUTSIDE_UNLESS_TURNED, _MOST_OUTSIDE_WHEN_TURNED = 0.5, 0.2, 0.02


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

    def __str__(self) -> str:
        parts = [
            f"{self.format} ({self.skeleton}): {self.num_detections} detections of {self.num_persons} "
            f"person{'s' * (self.num_persons != 1)} in {self.num_frames} frames",
            f"{sum(self.missing_frames.values())} missing frames",
            f"{len(self.doubles)} doubles resolved",
        ]
        if self.shared_ids:
            parts.append(f"people with the same id ({', '.join(self.shared_ids)}) told apart by place")
        if self.confidence_scale != 1.0:
            parts.append(f"confidences divided by {self.confidence_scale:.3g}")
        if self.num_clipped:
            parts.append(f"{self.num_clipped} confidences clipped to [0, 1]")
        return ", ".join(parts)


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
        fps: Frame rate of the video; a file that tells its own overrides it. Default 30.
        image_size: (height, width) of the video in pixels; likewise.
        counts_from: The number that the file gives the video's first frame. Default 0, or 1 for formats that
            count from 1.
        video: What the keypoints are from: says `fps` and `image_size` where neither the file nor the caller does.

    Raises:
        ValueError: If the file is missing, broken, or in no known format; the message is one sentence that
            names it. Or if `fps`, `image_size` or `counts_from` are impossible, or the size or the video are not
            those of the pictures that the keypoints are from.
        FileNotFoundError: If there is no such video.
    """
    path = Path(path)
    if fps is not None and not (isinstance(fps, int | float) and _LEAST_FPS <= fps <= LARGEST_FPS):
        raise ValueError(
            f"fps={fps} is no frame rate; give frames per second, {_LEAST_FPS} to {LARGEST_FPS}."
        )
    require_number("counts_from", counts_from, least=0, whole=True, may_be_null=True)
    size = None if image_size is None else _checked_image_size(image_size)
    if format != "auto" and format not in FORMATS:
        raise ValueError(f"There is no keypoint format {format!r}; these are read: {known_formats()}.")
    facts = None if video is None else read_video_facts(video)
    if facts is not None:
        fps, size = fps or facts.fps, size or facts.image_size
    try:
        content = load(path)
        name = format if format != "auto" else recognise(content)
        detections = FORMATS[name].read(content)
        if counts_from is not None:
            detections = detections._replace(counts_from=counts_from)
        file = _to_tracks(path.stem, name, detections, fps, size)
        if not detections.in_image_shares:
            _require_pixels(file.tracks, size_is_the_files=detections.image_size is not None)
    except KeypointFileError as problem:
        raise ValueError(f"Cannot read keypoints from {path}: {problem}.") from None
    if video is not None and facts is not None:
        last_frame = max(int(track.frame_ids[-1]) for track in file.tracks)
        size = file.tracks[0].assumed_image_size()  # known: if by nothing else, then by the video
        require_video_of(video, facts, name=str(path), image_size=size, last_frame=last_frame)
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


def _checked_image_size(image_size: Sequence[int]) -> tuple[int, int]:
    numbers = list(image_size) if isinstance(image_size, Sequence) else []
    if len(numbers) != 2 or not all(isinstance(number, int) and number > 0 for number in numbers):
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
    rate = float(next(rate for rate in (file.fps, fps, _DEFAULT_FPS) if rate is not None))
    if file.in_image_shares:
        file = _in_pixels(file, file.image_size or image_size)
    kept: dict[tuple[str, int], Detection] = {}
    doubles: dict[tuple[str, int], None] = {}
    told, shared_ids = told_apart(file.detections)
    for detection in told:
        key = (detection.person_id, detection.frame_id)
        if key in kept:
            doubles[key] = None
        if key not in kept or detection.score > kept[key].score:
            kept[key] = detection

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
    )
    return KeypointFile(tracks, report)


def _require_pixels(tracks: Sequence[Track], *, size_is_the_files: bool) -> None:
    """KeypointFileError where keypoints are no pixels, or cannot be of pictures of the size that is given.

    The picture's edge cuts people off, and some detectors guess what lies beyond: only the gross case is refused.
    """
    keypoints_px = np.concatenate([track.keypoints_px[track.confidence > 0] for track in tracks])
    confidence = np.concatenate([track.confidence[track.confidence > 0] for track in tracks])
    if not len(keypoints_px):
        return
    if np.abs(keypoints_px).max() <= _LARGEST_SHARE:
        raise KeypointFileError(
            f"all its coordinates lie within {_LARGEST_SHARE:g} pixels of the corner, so they are shares of the "
            "picture's width and height; multiply them by these"
        )
    size = tracks[0].image_size
    if size is None:
        return
    outside = _share_outside(keypoints_px, confidence, size)
    when_turned = _share_outside(keypoints_px, confidence, (size[1], size[0]))
    is_turned = outside > _MOST_OUTSIDE_UNLESS_TURNED and when_turned <= _MOST_OUTSIDE_WHEN_TURNED
    if outside > _MOST_OUTSIDE or is_turned:
        swapped = ", and inside when both are swapped" if is_turned else ""
        cure = "give image_size=[height,width] or the video that they are from"
        raise KeypointFileError(
            f"{round(100 * outside)} % of its keypoints lie outside pictures of {size[0]} × {size[1]} (height × "
            f"width){swapped}; {'correct its own image_size' if size_is_the_files else cure}"
        )


def _share_outside(
    keypoints_px: Float[np.ndarray, "point 2"],
    confidence: Float[np.ndarray, "point"],
    image_size: tuple[int, int],
) -> float:
    """Of keypoints, weighed by confidence, how many lie clearly outside pictures of a size."""
    side_px = np.array([image_size[1], image_size[0]])
    beyond_px = np.maximum(-keypoints_px, keypoints_px - side_px)
    is_outside = (beyond_px > _CLEARLY_OUTSIDE * side_px).any(axis=1)
    return float(confidence[is_outside].sum() / confidence.sum())


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
    """
    seen = confidence[confidence > 0]
    if seen.size == 0 or (seen > _LARGEST_UNIT_CONFIDENCE).mean() <= 0.01:
        return 1.0
    return float(np.percentile(seen, 95))
