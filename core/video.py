"""Videos: frames numbered as detectors number them, and films that are complete or not there."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from jaxtyping import UInt8

from core.atomic_write import written_whole

# x264's constant quality, 0 to 51; its default is 23, and lower is better. Nothing is lost to the eye.
_CONSTANT_RATE_FACTOR = "20"


@dataclass(frozen=True)
class VideoFacts:
    """What a video file says of its frames.

    Attributes:
        image_size: (height, width) in pixels, as people see it: a phone's upright video is upright.
        fps: frames per second, on average where the rate varies.
        num_frames: as the file says; None where it does not.
    """

    image_size: tuple[int, int]
    fps: float
    num_frames: int | None


def read_video_facts(path: str | Path) -> VideoFacts:
    """What a video says of itself; its first frame is decoded.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no video, or damaged.
    """
    with _opened(path) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate
        if not rate:
            raise ValueError(f"{path} does not say how many frames a second it has; convert it to .mp4.")
        height, width = next(_decoded(container, path)).shape[:2]
        return VideoFacts(image_size=(height, width), fps=float(rate), num_frames=stream.frames or None)


def known_of_video(
    path: str | Path | None, fps: float | None, image_size: Sequence[int] | None
) -> tuple[float | None, Sequence[int] | None]:
    """Frame rate and (height, width): as given, else what the video says, if there is one."""
    if path is None:
        return fps, image_size
    facts = read_video_facts(path)
    return facts.fps if fps is None else fps, facts.image_size if image_size is None else image_size


def read_video(path: str | Path) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """The frames of a video in order, RGB, upright; errors as `read_video_facts`, or where the damage is."""
    with _opened(path) as container:
        yield from _decoded(container, path)


@contextmanager
def video_written_whole(
    path: str | Path, *, fps: float, image_size: tuple[int, int]
) -> Iterator[Callable[[UInt8[np.ndarray, "height width 3"]], None]]:
    """A film to add frames to, H.264 in an .mp4, which takes the name `path` when the block ends.

    Args:
        fps: frames per second.
        image_size: (height, width) of the frames, both even, as the format wants them.

    Yields:
        A function that adds a frame, RGB.

    Raises:
        ValueError: the name does not end in .mp4.
    """
    if Path(path).suffix.lower() != ".mp4":
        raise ValueError(f"Films are written as .mp4, and {path} is named otherwise.")
    height, width = image_size
    with (
        written_whole(path) as file,
        # By its name: the index is moved to the front in a second pass, so that browsers begin at once.
        av.open(file.name, "w", format="mp4", options={"movflags": "+faststart"}) as container,
    ):
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.options = {"crf": _CONSTANT_RATE_FACTOR}

        def add(image: UInt8[np.ndarray, "height width 3"]) -> None:
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                container.mux(packet)

        yield add
        for packet in stream.encode():
            container.mux(packet)


@contextmanager
def _opened(path: str | Path) -> Iterator[av.container.InputContainer]:
    if not Path(path).is_file():
        raise FileNotFoundError(2, "There is no such video file", str(path))
    try:
        container = av.open(str(path))
    except FFmpegError as error:
        raise ValueError(f"{path} cannot be read as a video ({error.strerror}).") from None
    with container:
        if not container.streams.video:
            raise ValueError(f"{path} holds no video.")
        yield container


def _decoded(
    container: av.container.InputContainer, path: str | Path
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    number = 0
    try:
        for frame in container.decode(video=0):
            # Degrees counter-clockwise by which a viewer turns it.
            yield np.rot90(frame.to_ndarray(format="rgb24"), k=round(frame.rotation / 90) % 4)
            number += 1
    except FFmpegError as error:
        raise ValueError(
            f"{path} is damaged: its frame {number} cannot be decoded ({error.strerror})."
        ) from None
    if number == 0:
        raise ValueError(f"{path} holds a video without frames.")
