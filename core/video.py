"""Videos: frames numbered as detectors number them, and films that are complete or not there."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from jaxtyping import UInt8

from core.atomic_write import written_whole

# x264's constant quality, 0 to 51; its default is 23, and lower is better.
_CONSTANT_RATE_FACTOR = "20"
# H.264's limit, and frame rates that a film can have.
_MOST_PX = 16384
_FPS = (0.1, 1000.0)


@dataclass(frozen=True)
class VideoFacts:
    """What a video file says of its frames.

    Attributes:
        image_size: (height, width) in pixels, as people see it: a phone's upright video is upright.
        fps: frames per second, on average where the rate varies.
    """

    image_size: tuple[int, int]
    fps: float


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
        height, width = next(_decoded(container, path, None)).shape[:2]
        return VideoFacts(image_size=(height, width), fps=float(rate))


def require_video_of(
    path: str | Path,
    facts: VideoFacts,
    *,
    name: str,
    image_size: tuple[int, int],
    last_frame: int,
    size_is_assumed: bool = False,
) -> None:
    """ValueError unless a video can be what a detector's keypoints are from.

    Args:
        name: of the keypoints, or of what was made of them.
        image_size: (height, width) that they are for.
        last_frame: that they have, counted from 0.
        size_is_assumed: nobody had said it.
    """
    if image_size != facts.image_size:
        (height, width), (its_height, its_width) = facts.image_size, image_size
        if size_is_assumed:
            raise ValueError(
                f"{path} is {width} × {height} pixels, and {name} was predicted for pictures of {its_width} × "
                f"{its_height}, as nobody had said their size; predict again with video=FILE or "
                f"image_size=[{height},{width}]."
            )
        raise ValueError(
            f"{path} is {width} × {height} pixels, and {name} is for pictures of {its_width} × {its_height}; give "
            "the video that the keypoints are from."
        )
    num_frames = count_frames(path, at_least=last_frame + 1)
    if num_frames <= last_frame:
        raise ValueError(
            f"{path} has {num_frames} frames, 0 to {num_frames - 1}, and {name} goes to {last_frame}; give the "
            "video that the keypoints are from, and if their file counts frames from 1, predict with counts_from=1."
        )


def read_video(
    path: str | Path, frames: range | None = None
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """The frames of a video in order, RGB, upright; errors as `read_video_facts`, or where the damage is.

    Args:
        frames: which of them; as many of these as there are. None: all.
    """
    with _opened(path) as container:
        yield from _decoded(container, path, frames)


def require_film(path: str | Path, *, fps: float, image_size: tuple[int, int]) -> None:
    """What `video_written_whole` checks before it begins.

    Raises:
        ValueError: the name does not end in .mp4, or is a folder's, or there is no film of this size or rate.
    """
    if Path(path).suffix.lower() != ".mp4":
        raise ValueError(f"Films are written as .mp4, and {path} is named otherwise.")
    if Path(path).is_dir():
        raise ValueError(f"{path} is a folder; name a file for the film.")
    height, width = image_size
    if max(image_size) > _MOST_PX:
        raise ValueError(f"{path} would be {width} × {height} pixels, and films have {_MOST_PX} at most.")
    if not _FPS[0] <= fps <= _FPS[1]:
        raise ValueError(
            f"{path} would have {fps:g} frames a second, and films have {_FPS[0]:g} to {_FPS[1]:g}."
        )


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
        ValueError: as `require_film`.
    """
    require_film(path, fps=fps, image_size=image_size)
    height, width = image_size
    with (
        written_whole(path) as file,
        # By its name: the index is moved to the front in a second pass, so that browsers begin at once.
        av.open(file.name, "w", format="mp4", options={"movflags": "+faststart"}) as container,
    ):
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.options = {"crf": _CONSTANT_RATE_FACTOR}
        # Said and meant: players take what is not said for one or the other.
        context = stream.codec_context
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709

        def add(image: UInt8[np.ndarray, "height width 3"]) -> None:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame = frame.reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            for packet in stream.encode(frame):
                container.mux(packet)

        yield add
        for packet in stream.encode():
            container.mux(packet)


@contextmanager
def _opened(path: str | Path) -> Iterator[av.container.InputContainer]:
    if not Path(path).is_file():
        raise FileNotFoundError(2, "There is no such video file", str(path))
    try:
        container = av.open(str(path), metadata_errors="replace")  # titles are in any encoding
    except FFmpegError as error:
        raise ValueError(f"{path} cannot be read as a video ({error.strerror}).") from None
    with container:
        if not container.streams.video:
            raise ValueError(f"{path} holds no video.")
        yield container


def _decoded(
    container: av.container.InputContainer, path: str | Path, frames: range | None
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    number = 0
    try:
        for frame in container.decode(video=0):
            if frames is not None and number >= frames.stop:
                return
            if frames is None or number in frames:
                # Degrees counter-clockwise by which a viewer turns it.
                yield np.rot90(frame.to_ndarray(format="rgb24"), k=round(frame.rotation / 90) % 4)
            number += 1
    except FFmpegError as error:
        raise ValueError(
            f"{path} is damaged: its frame {number} cannot be decoded ({error.strerror})."
        ) from None
    if number == 0:
        raise ValueError(f"{path} holds a video without frames.")


def count_frames(path: str | Path, *, at_least: int) -> int:
    """Of a video, as the file says where that is enough, else counted: of one in fragments the header knows the
    first. Errors as `read_video_facts`."""
    with _opened(path) as container:
        said = container.streams.video[0].frames
        return said if said >= at_least else sum(packet.size > 0 for packet in container.demux(video=0))
