"""Pictures: framing, what a view means, keypoint drawing, crops, sheets, saving."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from jaxtyping import Float, Int
from picture_fixtures import body_sizes, cells, drawn, is_reference, pixels
from PIL import Image
from torch import Tensor

from body_models.render import render
from body_models.render.pictures import (
    SIDE_COLORS,
    Crop,
    backdrop,
    draw_keypoints,
    framing_camera,
    framing_distance_m,
    keypoint_picture,
    mesh_picture,
    overlay_picture,
    save_png,
    with_label,
)
from body_models.render.sheets import comparison_sheet, contact_sheet, grid, motion_sheet
from core.camera import PinholeCamera, project
from core.skeleton import COCO_17

Mesh = tuple[Float[Tensor, "vertex 3"], Int[Tensor, "face 3"]]


def standing_ellipsoid() -> Mesh:
    """Tall along y, wide along x, flat along z, 4 m in front of the camera and off its axis."""
    mesh = trimesh.creation.icosphere(subdivisions=3)
    vertices = np.asarray(mesh.vertices) * [0.35, 0.9, 0.15] + [0.8, -0.3, 4.0]
    return torch.tensor(vertices, dtype=torch.float32), torch.tensor(
        np.asarray(mesh.faces), dtype=torch.int64
    )


def standing_keypoints() -> tuple[Float[Tensor, "joint 2"], Float[Tensor, " joint"]]:
    generator = torch.Generator().manual_seed(0)
    keypoints_px = torch.rand(17, 2, generator=generator) * torch.tensor([200.0, 420.0]) + 300
    return keypoints_px, torch.linspace(0.3, 1, 17)


def shrinking_ellipsoid(*heights: float) -> Mesh:
    """The same in several frames, each as tall as it is said to be."""
    vertices, faces = standing_ellipsoid()
    middle = vertices.mean(0)
    scales = torch.ones(len(heights), 1, 3)
    scales[:, 0, 1] = torch.tensor(heights)
    return middle + scales * (vertices - middle), faces


def assert_heights(row: Int[Tensor, "frame height width 3"], heights: Sequence[float]) -> None:
    found = body_sizes(row)[:, 0]
    assert (found / found[0]).tolist() == pytest.approx([height / heights[0] for height in heights], rel=0.1)


@pytest.mark.parametrize("view", ["front", "side", "back", 37.0])
@pytest.mark.parametrize("size", [(200, 140), (120, 220)])
def test_framing_camera_holds_the_body(view: str | float, size: tuple[int, int]) -> None:
    vertices, _ = standing_ellipsoid()
    camera = framing_camera(vertices, view, size)
    points_px = project(camera.world_to_camera(vertices), camera.K)
    room = torch.tensor([size[1], size[0]])
    assert bool(((points_px > 0) & (points_px < room)).all())
    # As large as the margin allows: some side of the picture is nearly reached.
    assert float((points_px / room).sub(0.5).abs().amax()) > 0.38


def test_views_walk_around_the_body() -> None:
    vertices, _ = standing_ellipsoid()
    middle = vertices.mean(0)
    # A nose: the person faces the camera, which is towards −z.
    nose = middle + torch.tensor([0.0, 0.0, -0.3])
    columns = {}
    for view in ("front", "side", "back", 270.0):
        camera = framing_camera(vertices, view, (200, 200))
        centre_px, nose_px = project(camera.world_to_camera(torch.stack([middle, nose])), camera.K)
        columns[view] = float(nose_px[0] - centre_px[0])
        # Seen from slightly above, upright.
        assert abs(float(centre_px[0]) - 100) < 1
        assert float(camera.R_cam_world[1, 1]) > 0.95
    assert abs(columns["front"]) < 1
    assert abs(columns["back"]) < 1
    assert columns["side"] < -5 < 5 < columns[270.0]
    with pytest.raises(ValueError, match="no view called 'top'"):
        framing_camera(vertices, "top", (200, 200))


def test_one_distance_keeps_the_scale() -> None:
    vertices, _ = standing_ellipsoid()
    both = torch.stack([vertices, vertices * 0.5])
    distance_m = framing_distance_m(both, "front", (200, 140))
    assert distance_m == pytest.approx(framing_distance_m(vertices, "front", (200, 140)))
    heights = []
    for body in both:
        camera = framing_camera(body, "front", (200, 140), distance_m=distance_m)
        heights.append(float(project(camera.world_to_camera(body), camera.K)[:, 1].aminmax().max))
    assert heights[1] - 100 == pytest.approx((heights[0] - 100) / 2, rel=0.05)


def test_mesh_picture_shows_the_body_on_the_backdrop() -> None:
    vertices, faces = standing_ellipsoid()
    size = (160, 120)
    picture = mesh_picture(vertices, faces, size=size, shadow=False)
    assert picture.size == (120, 160)
    alpha = render(vertices, faces, framing_camera(vertices, "front", size), supersample=3).alpha[0]
    empty = pixels(backdrop(size))
    changed = (pixels(picture) != empty).any(-1)
    assert torch.equal(changed | (alpha == 0), torch.ones_like(changed))
    assert not bool(changed[alpha == 0].any())
    shadowed = pixels(mesh_picture(vertices, faces, size=size))
    floor = (shadowed != pixels(picture)).any(-1)
    assert bool(floor.any())
    assert float(floor.nonzero()[:, 0].double().mean()) > 100  # at the feet, not at the head
    red = pixels(mesh_picture(vertices, faces, size=size, colors=(0.9, 0.1, 0.1), label="a label"))[80, 60]
    assert red[0] > 2 * red[1]


def test_keypoints_are_drawn_in_their_colours() -> None:
    keypoints_px = torch.full((17, 2), math.nan)
    confidence = torch.ones(17)
    for name, x in (
        ("left_shoulder", 60.0),
        ("left_elbow", 60.0),
        ("right_shoulder", 20.0),
        ("right_elbow", 20.0),
    ):
        keypoints_px[COCO_17.index(name)] = torch.tensor([x, 20.0 if "shoulder" in name else 70.0])
    blank = Image.new("RGB", (80, 90), (255, 255, 255))
    picture = pixels(draw_keypoints(blank, keypoints_px, confidence, COCO_17))
    assert picture[45, 60].tolist() == list(SIDE_COLORS["left"])
    assert picture[45, 20].tolist() == list(SIDE_COLORS["right"])
    assert picture[80, 40].tolist() == [255, 255, 255]
    assert pixels(blank).eq(255).all()  # the input is left alone

    unsure = confidence.clone()
    unsure[COCO_17.index("left_elbow")] = 0.2
    faint = pixels(draw_keypoints(blank, keypoints_px, unsure, COCO_17))[45, 60]
    assert int(faint.sum()) > int(picture[45, 60].sum()) + 100
    unsure[COCO_17.index("left_elbow")] = 0.0
    assert pixels(draw_keypoints(blank, keypoints_px, unsure, COCO_17))[45, 60].tolist() == [255, 255, 255]


def test_a_crop_moves_camera_and_keypoints_alike() -> None:
    vertices, faces = standing_ellipsoid()
    K = torch.tensor([[900.0, 0, 480], [0, 880.0, 270], [0, 0, 1]])
    camera = PinholeCamera(K, torch.eye(3), torch.zeros(3), (540, 960))
    points_px = project(vertices, K)
    crop = Crop.around(points_px, torch.ones(len(vertices)), (200, 160))
    window = crop.camera(camera)
    torch.testing.assert_close(project(vertices, window.K), crop.apply(points_px), atol=1e-3, rtol=1e-5)
    inside = crop.apply(points_px)
    assert float(inside.amin()) > 0
    assert bool((inside < torch.tensor([160.0, 200.0])).all())
    picture = overlay_picture(backdrop((200, 160)), vertices, faces, window)
    assert not torch.equal(pixels(picture), pixels(backdrop((200, 160))))
    with pytest.raises(ValueError, match="resize the picture"):
        overlay_picture(backdrop((200, 160)), vertices, faces, camera)


def test_a_frame_without_keypoints_is_an_empty_picture() -> None:
    keypoints_px, confidence = standing_keypoints()
    empty = keypoint_picture(keypoints_px, torch.zeros(17), COCO_17, size=(60, 50))
    assert torch.equal(pixels(empty), pixels(backdrop((60, 50))))
    assert not torch.equal(
        pixels(keypoint_picture(keypoints_px, confidence, COCO_17, size=(60, 50))), pixels(empty)
    )


@pytest.mark.parametrize("with_camera", [False, True])
def test_contact_sheet(with_camera: bool) -> None:
    heights, size = (1.0, 0.8, 0.6), (120, 90)
    vertices, faces = shrinking_ellipsoid(*heights)
    K = torch.tensor([[900.0, 0, 480], [0, 880.0, 270], [0, 0, 1]])
    camera = PinholeCamera(K.expand(3, 3, 3), torch.eye(3).expand(3, 3, 3), torch.zeros(3, 3), (540, 960))
    sheet = contact_sheet(
        project(vertices[:, ::38], K),
        torch.linspace(0.3, 1, 17).expand(3, -1),
        COCO_17,
        vertices,
        faces,
        camera=camera if with_camera else None,
        frame_titles=["frame 0", "frame 1", "frame 2"],
        title="A title",
        size=size,
    )
    keypoints, second, side = cells(sheet, 3, 3, size)
    assert_heights(keypoints, heights)
    assert_heights(second, heights)
    assert_heights(side, heights)
    assert (body_sizes(side)[:, 1] < 0.6 * body_sizes(second)[:, 1]).all()  # flat
    is_orange = (second[..., 0] > second[..., 2] + 60).any(-1).any(-1)
    assert is_orange.tolist() == [with_camera] * 3
    if with_camera:
        assert (drawn(second).sum((-1, -2)) > 1.1 * drawn(keypoints).sum((-1, -2))).all()


def test_motion_sheet() -> None:
    heights, size = (1.0, 0.8, 0.6), (120, 90)
    vertices, faces = shrinking_ellipsoid(*heights)
    sheet = motion_sheet(vertices, faces, frame_titles=["0", "1", "2"], title="A title", size=size)
    front, side = cells(sheet, 2, 3, size)
    assert_heights(front, heights)
    assert_heights(side, heights)
    assert (body_sizes(side)[:, 1] < 0.6 * body_sizes(front)[:, 1]).all()


def test_comparison_sheet() -> None:
    keypoints_px, confidence = standing_keypoints()
    size = (120, 90)
    predicted_heights, true_heights = (1.0, 0.6), (0.7, 0.9)
    predicted, faces = shrinking_ellipsoid(*predicted_heights)
    true, _ = shrinking_ellipsoid(*true_heights)
    sheet = comparison_sheet(
        torch.stack([keypoints_px, keypoints_px.flip(0)]),
        confidence.expand(2, -1),
        COCO_17,
        predicted,
        true,
        faces,
        row_titles=["first\n10 mm", "second\n20 mm"],
        size=size,
    )
    of_sheet = cells(sheet, 2, 5, size)
    assert drawn(of_sheet[:, 0]).any(-1).any(-1).all()
    assert not torch.equal(of_sheet[0, 0], of_sheet[1, 0])
    assert is_reference(of_sheet[:, 1:]).tolist() == [[False, False, True, True]] * 2
    for row, (of_predicted, of_true) in enumerate(zip(predicted_heights, true_heights, strict=True)):
        assert_heights(of_sheet[row, 1:], (of_predicted, of_predicted, of_true, of_true))
    widths = body_sizes(of_sheet)[..., 1]
    assert (widths[:, [2, 4]] < 0.6 * widths[:, [1, 3]]).all()


def test_grid_places_pictures_and_refuses_what_does_not_fit() -> None:
    colors = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (90, 90, 0)]
    tiles = [Image.new("RGB", (30, 20), color) for color in colors]
    sheet = pixels(
        grid([tiles[:2], tiles[2:]], column_titles=["one", "two"], row_titles=["a", "b"], title="t")
    )
    found = [(sheet == torch.tensor(color)).all(-1).nonzero() for color in colors]
    assert [len(place) for place in found] == [600] * 4
    assert found[0][:, 1].max() < found[1][:, 1].min()
    assert found[0][:, 0].max() < found[2][:, 0].min()
    for wrong, message in (
        ({"rows": []}, "at least one"),
        ({"rows": [tiles[:2], tiles[:1]]}, "equally long"),
        ({"rows": [[tiles[0], tiles[0].resize((5, 5))]]}, "one size"),
        ({"rows": [tiles[:2]], "column_titles": ["one"]}, "1 column titles do not fit 2 columns"),
    ):
        with pytest.raises(ValueError, match=message):
            grid(**wrong)


def test_save_png_leaves_whole_files_only(tmp_path: Path) -> None:
    picture = with_label(backdrop((40, 60)), "x")
    save_png(picture, tmp_path / "picture.png")
    assert torch.equal(pixels(Image.open(tmp_path / "picture.png")), pixels(picture))
    with pytest.raises(OSError, match="cannot write mode"):
        save_png(picture.convert("LAB"), tmp_path / "picture.png")
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]
    assert torch.equal(pixels(Image.open(tmp_path / "picture.png")), pixels(picture))
