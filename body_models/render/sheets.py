"""Sheets of pictures: a grid with titles, frames of one clip, predictions beside ground truth."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from body_models.render.pictures import (
    FAINT_INK,
    INK,
    REFERENCE_COLOR,
    Crop,
    View,
    backdrop,
    draw_keypoints,
    framing_distance_m,
    keypoint_picture,
    mesh_picture,
    overlay_picture,
)
from core.camera import PinholeCamera
from core.skeleton import Skeleton

VIEWS: tuple[View, View] = ("front", "side")
PAPER = (255, 255, 255)
GAP_PX = 8
EDGE_PX = 20
TITLE_SIZE, HEADING_SIZE, NOTE_SIZE = 24, 16, 14


def grid(
    rows: Sequence[Sequence[Image.Image]],
    *,
    column_titles: Sequence[str] | None = None,
    row_titles: Sequence[str] | None = None,
    title: str | None = None,
    note: str | None = None,
) -> Image.Image:
    """Pictures of one size in rows and columns on white paper.

    Args:
        rows: equally long rows of pictures of equal size.
        column_titles: one per column, above it.
        row_titles: one per row, left of it; lines break at "\\n".
        title: above everything.
        note: small print under the title, such as what a colour means.
    """
    if not rows or not rows[0]:
        raise ValueError("A grid needs at least one picture.")
    if any(len(row) != len(rows[0]) for row in rows):
        lengths = [len(row) for row in rows]
        raise ValueError(f"The rows of a grid must be equally long; got {lengths} pictures.")
    sizes = {picture.size for row in rows for picture in row}
    if len(sizes) > 1:
        raise ValueError(f"The pictures of a grid must have one size; got {sorted(sizes)}.")
    for titles, count, what in ((column_titles, len(rows[0]), "column"), (row_titles, len(rows), "row")):
        if titles is not None and len(titles) != count:
            raise ValueError(f"{len(titles)} {what} titles do not fit {count} {what}s.")
    cell_width, cell_height = rows[0][0].size

    heading = _fitting_font(column_titles or (), cell_width, HEADING_SIZE)
    row_font = ImageFont.load_default(size=HEADING_SIZE)
    left = EDGE_PX
    if row_titles is not None:
        left += 14 + max(round(row_font.getlength(line)) for text in row_titles for line in text.split("\n"))
    top = EDGE_PX
    title_y = top
    top += TITLE_SIZE + 12 if title is not None else 0
    note_y = top
    top += NOTE_SIZE + 12 if note is not None else 0
    heading_y = top
    top += HEADING_SIZE + 12 if column_titles is not None else 0

    width = left + len(rows[0]) * (cell_width + GAP_PX) - GAP_PX + EDGE_PX
    for text, size in ((title, TITLE_SIZE), (note, NOTE_SIZE)):
        if text is not None:
            width = max(width, 2 * EDGE_PX + round(ImageFont.load_default(size=size).getlength(text)))
    height = top + len(rows) * (cell_height + GAP_PX) - GAP_PX + EDGE_PX
    sheet = Image.new("RGB", (width, height), PAPER)
    canvas = ImageDraw.Draw(sheet)
    if title is not None:
        canvas.text((EDGE_PX, title_y), title, font=ImageFont.load_default(size=TITLE_SIZE), fill=INK)
    if note is not None:
        canvas.text((EDGE_PX, note_y), note, font=ImageFont.load_default(size=NOTE_SIZE), fill=FAINT_INK)
    for column, text in enumerate(column_titles or ()):
        x = left + column * (cell_width + GAP_PX) + cell_width / 2
        canvas.text((x, heading_y + HEADING_SIZE / 2), text, font=heading, fill=INK, anchor="mm")
    for index, row in enumerate(rows):
        y = top + index * (cell_height + GAP_PX)
        if row_titles is not None:
            canvas.multiline_text(
                (left - 14, y + cell_height / 2),
                row_titles[index],
                font=row_font,
                fill=INK,
                anchor="rm",
                align="right",
            )
        for column, picture in enumerate(row):
            sheet.paste(picture, (left + column * (cell_width + GAP_PX), y))
    return sheet


def contact_sheet(
    keypoints_px: Float[Tensor, "frame joint 2"],
    confidence: Float[Tensor, "frame joint"],
    skeleton: Skeleton,
    vertices_level: Float[Tensor, "frame vertex 3"],
    faces: Int[Tensor, "face 3"],
    *,
    camera: PinholeCamera | None = None,
    frame_titles: Sequence[str] | None = None,
    title: str | None = None,
    size: tuple[int, int] = (300, 220),
    renderer: str = "auto",
) -> Image.Image:
    """Some frames of one person, a column each: input keypoints, the mesh in front of them, and in profile.

    Args:
        keypoints_px: what the network saw; in a frame in which nothing is seen, where that would be.
        confidence: 0–1; joints with 0 are not drawn.
        skeleton: of the keypoints.
        vertices_level: predicted bodies in the axes of a level camera (x right, y down), metres.
        faces: of the body.
        camera: the camera of the keypoints, to lay the mesh under them (one for all frames, or one per frame).
            Without it the second row is a front view.
        frame_titles: above the columns.
        title: above the sheet.
        size: (height, width) of one picture.
        renderer: of `body_models.render.render`.
    """
    num_frames = len(vertices_level)
    # One scale for all frames: a person who squats must look shorter than one who stands.
    # Where nothing is seen, the picture is of where keypoints would be.
    placed = torch.where((confidence > 0).any(dim=1, keepdim=True), confidence, confidence.amax(dim=0))
    scale = min(Crop.around(keypoints_px[i], placed[i], size).scale for i in range(num_frames))
    crops = [Crop.around(keypoints_px[i], placed[i], size, scale=scale) for i in range(num_frames)]
    inputs = [
        keypoint_picture(keypoints_px[i], confidence[i], skeleton, size=size, crop=crops[i])
        for i in range(num_frames)
    ]
    distance_m = max(framing_distance_m(vertices_level, view, size) for view in VIEWS)
    if camera is None:
        second_title = "mesh,\nfront"
        second = [
            mesh_picture(body, faces, size=size, distance_m=distance_m, renderer=renderer)
            for body in vertices_level
        ]
    else:
        second_title = "mesh under\nkeypoints"
        second = []
        for i, crop in enumerate(crops):
            window = crop.camera(_camera_of_frame(camera, i))
            overlay = overlay_picture(backdrop(size), vertices_level[i], faces, window, renderer=renderer)
            second.append(
                draw_keypoints(
                    overlay, crop.apply(keypoints_px[i]), confidence[i], skeleton, line_width_px=1.5
                )
            )
    side = [
        mesh_picture(body, faces, view="side", size=size, distance_m=distance_m, renderer=renderer)
        for body in vertices_level
    ]
    return grid(
        [inputs, second, side],
        column_titles=frame_titles,
        row_titles=["input\nkeypoints", second_title, "mesh,\nside"],
        title=title,
        note="Left is orange, right is blue; faint where the detector was unsure.",
    )


def motion_sheet(
    vertices_cam: Float[Tensor, "frame vertex 3"],
    faces: Int[Tensor, "face 3"],
    *,
    frame_titles: Sequence[str],
    title: str,
    size: tuple[int, int] = (300, 220),
    renderer: str = "auto",
) -> Image.Image:
    """Some frames of a motion, a column each: the mesh from the front and in profile, each about its own middle.

    Args:
        vertices_cam: camera frame, metres.
        faces: of the body.
        frame_titles: above the columns.
        title: above the sheet.
        size: (height, width) of one picture.
        renderer: of `body_models.render.render`.
    """
    distance_m = max(framing_distance_m(vertices_cam, view, size) for view in VIEWS)
    rows = [
        [
            mesh_picture(body, faces, view=view, size=size, distance_m=distance_m, renderer=renderer)
            for body in vertices_cam
        ]
        for view in VIEWS
    ]
    return grid(rows, column_titles=frame_titles, row_titles=[str(view) for view in VIEWS], title=title)


def comparison_sheet(
    keypoints_px: Float[Tensor, "sample joint 2"],
    confidence: Float[Tensor, "sample joint"],
    skeleton: Skeleton,
    predicted_vertices_cam: Float[Tensor, "sample vertex 3"],
    true_vertices_cam: Float[Tensor, "sample vertex 3"],
    faces: Int[Tensor, "face 3"],
    *,
    row_titles: Sequence[str] | None = None,
    title: str | None = None,
    size: tuple[int, int] = (300, 220),
    renderer: str = "auto",
) -> Image.Image:
    """A row per sample: input keypoints, the predicted body from two sides, the true one beside it.

    Both bodies of a row are seen from the same distance and directions, each about its own middle.

    Args:
        keypoints_px: what the network saw.
        confidence: 0–1; joints with 0 are not drawn.
        skeleton: of the keypoints.
        predicted_vertices_cam: camera frame, metres.
        true_vertices_cam: camera frame, metres.
        faces: of both bodies.
        row_titles: left of the rows, such as an error in mm.
        title: above the sheet.
        size: (height, width) of one picture.
        renderer: of `body_models.render.render`.
    """
    rows = []
    for i in range(len(keypoints_px)):
        predicted, true = predicted_vertices_cam[i], true_vertices_cam[i]
        both = torch.stack([predicted, true])
        row = [keypoint_picture(keypoints_px[i], confidence[i], skeleton, size=size)]
        distance_m = max(framing_distance_m(both, view, size) for view in VIEWS)
        for body, colors in ((predicted, None), (true, REFERENCE_COLOR)):
            row += [
                mesh_picture(
                    body, faces, view=view, size=size, distance_m=distance_m, colors=colors, renderer=renderer
                )
                for view in VIEWS
            ]
        rows.append(row)
    titles = [
        "input keypoints",
        "predicted, front",
        "predicted, side",
        "ground truth, front",
        "ground truth, side",
    ]
    return grid(rows, column_titles=titles, row_titles=row_titles, title=title)


def _camera_of_frame(camera: PinholeCamera, frame: int) -> PinholeCamera:
    if camera.K.ndim == 2:
        return camera
    return PinholeCamera(
        camera.K[frame], camera.R_cam_world[frame], camera.t_cam_world_m[frame], camera.image_size
    )


def _fitting_font(
    texts: Sequence[str], width_px: int, largest: int
) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The largest font, down to 9, in which every text fits the width."""
    for size in range(largest, 9, -1):
        font = ImageFont.load_default(size=size)
        if all(font.getlength(text) <= width_px for text in texts):
            return font
    return ImageFont.load_default(size=9)
