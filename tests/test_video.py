"""Videos written and read: order, colours, rates, rotation, damage."""

import struct
from pathlib import Path

import av
import numpy as np
import pytest
from jaxtyping import UInt8

from core.video import read_video, read_video_facts, require_film, require_video_of, video_written_whole

SIZE = (64, 96)


def numbered(number: int) -> UInt8[np.ndarray, "64 96 3"]:
    """A red corner, and a blue that says which frame it is."""
    image = np.zeros((*SIZE, 3), np.uint8)
    image[:24, :32] = (250, 0, 0)
    image[32:, 32:] = (0, 0, 6 * number)
    return image


def write_numbered(path: Path, num_frames: int = 20, fps: float = 25.0) -> None:
    with video_written_whole(path, fps=fps, image_size=SIZE) as add:
        for number in range(num_frames):
            add(numbered(number))


def with_matrix(path: Path, matrix: tuple[int, ...]) -> None:
    """Says in the track's header how the frames are to be turned, as phones do (ISO/IEC 14496-12, 8.3.2)."""
    content = bytearray(path.read_bytes())
    begin = content.index(b"tkhd") + 4 + 40
    content[begin : begin + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(content)


@pytest.mark.parametrize("fps", [25.0, 30000 / 1001, 29.97, 59.94, 2.5])
def test_frames_come_back_in_order(tmp_path: Path, fps: float) -> None:
    path = tmp_path / "not_there_yet" / "a.mp4"
    write_numbered(path, fps=fps)
    facts = read_video_facts(path)
    assert facts.image_size == SIZE
    assert facts.fps == pytest.approx(fps, rel=1e-6)
    frames = list(read_video(path))
    assert len(frames) == 20
    for number, frame in enumerate(frames):
        # Lossy, and colours at half the resolution: the middles of the patches.
        np.testing.assert_allclose(frame[8, 10], (250, 0, 0), atol=8)
        np.testing.assert_allclose(frame[50, 70], (0, 0, 6 * number), atol=8)
    some = list(read_video(path, range(3, 99, 8)))
    np.testing.assert_array_equal(some, frames[3::8])
    assert [file.name for file in path.parent.iterdir()] == ["a.mp4"]


def test_colours_are_said(tmp_path: Path) -> None:
    write_numbered(tmp_path / "a.mp4", num_frames=1)
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        # H.273's numbers: BT.709, as players take high definition to be, and limited range.
        assert (context.colorspace, context.color_range) == (1, 1)
        assert (context.color_primaries, context.color_trc) == (1, 1)


@pytest.mark.parametrize(
    ("matrix", "turns"),
    [
        ((0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30), 3),  # a quarter clockwise
        ((-1 << 16, 0, 0, 0, -1 << 16, 0, 0, 0, 1 << 30), 2),
        ((0, -1 << 16, 0, 1 << 16, 0, 0, 0, 0, 1 << 30), 1),
    ],
)
def test_a_phones_video_is_upright(tmp_path: Path, matrix: tuple[int, ...], turns: int) -> None:
    path = tmp_path / "a.mp4"
    write_numbered(path, num_frames=2)
    plain = list(read_video(path))
    with_matrix(path, matrix)
    assert read_video_facts(path).image_size == np.rot90(plain[0], turns).shape[:2]
    for turned, frame in zip(read_video(path), plain, strict=True):
        np.testing.assert_array_equal(turned, np.rot90(frame, turns))


def in_fragments(path: Path) -> None:
    """The same frames, but its header knows the first fragment's alone, as of streams that were saved."""
    whole = path.with_name("whole.mp4")
    path.rename(whole)
    options = {"movflags": "frag_keyframe+empty_moov"}
    with av.open(str(whole)) as source, av.open(str(path), "w", options=options) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size > 0:
                packet.stream = stream
                target.mux(packet)
    whole.unlink()


@pytest.mark.parametrize("fragments", [False, True])
def test_a_video_of_other_keypoints_is_refused(tmp_path: Path, fragments: bool) -> None:
    path = tmp_path / "a.mp4"
    write_numbered(path)
    if fragments:
        in_fragments(path)
    facts = read_video_facts(path)
    require_video_of(path, facts, name="k.json", image_size=SIZE, last_frame=19)
    require_video_of(path, facts, name="k.json", image_size=SIZE, last_frame=3)
    with pytest.raises(
        ValueError, match=r"a\.mp4 has 20 frames, 0 to 19, and k\.json goes to 20; .*counts_from=1"
    ):
        require_video_of(path, facts, name="k.json", image_size=SIZE, last_frame=20)
    with pytest.raises(ValueError, match=r"a\.mp4 is 96 × 64 pixels, and k\.json is for pictures of 64 × 96"):
        require_video_of(path, facts, name="k.json", image_size=SIZE[::-1], last_frame=3)


def test_titles_may_be_in_any_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_numbered(path, num_frames=2)
    with av.open(str(path)) as source, av.open(str(tmp_path / "b.mkv"), "w") as target:
        target.metadata["title"] = "Koeln"
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size > 0:
                packet.stream = stream
                target.mux(packet)
    content = (tmp_path / "b.mkv").read_bytes()
    assert b"Koeln" in content
    (tmp_path / "b.mkv").write_bytes(content.replace(b"Koeln", b"K\xf6lns"))
    assert len(list(read_video(tmp_path / "b.mkv"))) == 2


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    text, cut, late = tmp_path / "text.mp4", tmp_path / "cut.mp4", tmp_path / "late.mp4"
    text.write_text("no video")
    write_numbered(cut)
    whole = cut.read_bytes()
    cut.write_bytes(whole[:1500])  # the index is in front, so that only frames are missing
    late.write_bytes(whole[: len(whole) - 200])
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_video_facts(tmp_path / "nowhere.mp4")
    with pytest.raises(FileNotFoundError, match="no such video"):
        read_video_facts(tmp_path)
    with pytest.raises(ValueError, match=r"text\.mp4 cannot be read as a video"):
        read_video_facts(text)
    with pytest.raises(ValueError, match=r"cut\.mp4 is damaged: its frame 0 cannot be decoded"):
        read_video_facts(cut)
    with pytest.raises(ValueError, match=r"late\.mp4 is damaged: its frame \d+ cannot be decoded"):
        list(read_video(late))


def test_a_film_that_fails_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_numbered(path, num_frames=3)
    before = path.read_bytes()

    def fail() -> None:
        with video_written_whole(path, fps=25.0, image_size=SIZE) as add:
            add(numbered(0))
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    with (
        pytest.raises(ValueError, match=r"written as \.mp4, and .*a\.avi is named otherwise"),
        video_written_whole(tmp_path / "a.avi", fps=25.0, image_size=SIZE),
    ):
        pass
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(ValueError, match=r"folder\.mp4 is a folder"):
        require_film(tmp_path / "folder.mp4", fps=25.0, image_size=SIZE)
    (tmp_path / "folder.mp4").rmdir()
    for settings, sentence in (
        (
            {"fps": 1e10, "image_size": SIZE},
            r"would have 1e\+10 frames a second, and films have 0\.1 to 1000",
        ),
        ({"fps": 1e-4, "image_size": SIZE}, r"would have 0\.0001 frames a second"),
        (
            {"fps": 25.0, "image_size": (64, 20000)},
            "would be 20000 × 64 pixels, and films have 16384 at most",
        ),
    ):
        with pytest.raises(ValueError, match=sentence), video_written_whole(path, **settings):
            pass
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]
