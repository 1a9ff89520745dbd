"""The smooth path before a camera, against a naive twin and where it can be known."""

import numpy as np
import pytest
import torch
from torch import Tensor

from core.camera import project, solve_translation
from core.trajectory import (
    ACCELERATION_STD_M_PER_S2,
    POINT_STD_M,
    SPEED_STD_M_PER_S,
    UNSEEN_SPEED_STD_M_PER_S,
    solve_translation_trajectory,
)

K = torch.tensor([[1100.0, 0.0, 640.0], [0.0, 1000.0, 360.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
FPS = 25.0


def walk(num_frames: int, num_points: int = 17, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Points about the pelvis, their true translations (metres) and exact keypoints (px)."""
    generator = torch.Generator().manual_seed(seed)
    points = 0.4 * torch.randn(num_frames, num_points, 3, generator=generator, dtype=torch.float64)
    time_s = torch.arange(num_frames, dtype=torch.float64) / FPS
    path = torch.stack([time_s - 1, 0.1 * torch.sin(6 * time_s), 4 + 0.5 * time_s], dim=-1)
    return points, path, project(points + path[:, None], K)


def naive(points: Tensor, keypoints: Tensor, confidence: Tensor) -> Tensor:
    """The same least squares, an equation at a time."""
    rows, targets = [], []
    num_frames = len(points)

    def add(entries: dict[tuple[int, int], float], target: float, std: float) -> None:
        row = np.zeros((num_frames, 3))
        for place, value in entries.items():
            row[place] += value
        rows.append(row.flatten() / std)
        targets.append(target / std)

    for t in range(num_frames):
        for point, keypoint, weight in zip(points[t], keypoints[t], confidence[t], strict=True):
            if weight > 0:
                x, y, _ = torch.linalg.inv(K) @ torch.cat([keypoint, torch.ones(1, dtype=torch.float64)])
                std = POINT_STD_M / float(weight) ** 0.5
                add({(t, 0): 1, (t, 2): -float(x)}, float(x * point[2] - point[0]), std)
                add({(t, 1): 1, (t, 2): -float(y)}, float(y * point[2] - point[1]), std)
        for axis in range(3):
            if t >= 1:
                are_seen = bool((confidence[t - 1 : t + 1] > 0).any(1).all())
                speed_std = SPEED_STD_M_PER_S if are_seen else UNSEEN_SPEED_STD_M_PER_S
                add({(t, axis): 1, (t - 1, axis): -1}, 0, speed_std / FPS)
            if t >= 2:
                acceleration_std = ACCELERATION_STD_M_PER_S2 / FPS**2
                add({(t, axis): 1, (t - 1, axis): -2, (t - 2, axis): 1}, 0, acceleration_std)
    return torch.from_numpy(np.linalg.lstsq(np.stack(rows), np.array(targets), rcond=None)[0].reshape(-1, 3))


@pytest.mark.parametrize(("num_frames", "unseen"), [(1, 0), (2, 0), (3, 0), (9, 0), (3, 1), (12, 4)])
def test_equals_the_naive_least_squares(num_frames: int, unseen: int) -> None:
    points, _, keypoints = walk(num_frames)
    generator = torch.Generator().manual_seed(1)
    confidence = torch.rand(num_frames, 17, generator=generator, dtype=torch.float64)
    confidence[:, 3] = 0
    confidence[1 : 1 + unseen] = 0
    keypoints = keypoints + 5 * torch.randn(keypoints.shape, generator=generator, dtype=torch.float64)
    keypoints[:, 3] = torch.nan
    solved = solve_translation_trajectory(points, keypoints, confidence, K, fps=FPS)
    torch.testing.assert_close(solved, naive(points, keypoints.nan_to_num(), confidence), atol=1e-8, rtol=0)


def test_a_person_at_rest_is_found_exactly_and_through_missing_frames() -> None:
    points, path, _ = walk(40)
    path = path[20].expand(40, 3)
    keypoints = project(points + path[:, None], K)
    confidence = torch.ones(40, 17, dtype=torch.float64)
    confidence[10:15] = 0
    solved = solve_translation_trajectory(points, keypoints, confidence, K, fps=FPS)
    torch.testing.assert_close(solved, path, atol=1e-9, rtol=0)


@pytest.mark.parametrize("gap_s", [20, 60])
def test_who_walks_out_of_the_picture_and_returns_stays_before_the_camera(gap_s: int) -> None:
    points, _, _ = walk(60, seed=3)
    approach = torch.tensor([[0.2, 0.1, 5.5]]) - torch.arange(60)[:, None] / FPS * torch.tensor(
        [[0.0, 0, 1.5]]
    )
    gap = int(gap_s * FPS)
    path = torch.cat([approach, approach[:1].expand(gap, 3), approach]).double()
    points = torch.cat([points, points[:1].expand(gap, -1, -1), points])
    keypoints = project(points + path[:, None], K)
    confidence = torch.ones(len(path), 17, dtype=torch.float64)
    confidence[60 : 60 + gap] = 0
    solved = solve_translation_trajectory(points, keypoints, confidence, K, fps=FPS)
    seen = confidence.sum(1) > 0
    torch.testing.assert_close(solved[seen], path[seen], atol=0.1, rtol=0)
    between = solved[~seen, 2]
    assert between.min() > path[59, 2] - 1  # 1.5 m/s are not stopped at once
    assert between.max() < path[0, 2] + 1


def test_is_steadier_and_nearer_to_the_truth_than_frame_by_frame() -> None:
    points, path, keypoints = walk(100)
    noisy = points + 0.05 * torch.randn(points.shape, generator=torch.Generator().manual_seed(2))
    confidence = torch.ones(100, 17, dtype=torch.float64)
    single = solve_translation(noisy, keypoints, confidence, K.expand(100, 3, 3))
    smooth = solve_translation_trajectory(noisy, keypoints, confidence, K, fps=FPS)
    assert (smooth - path).norm(dim=-1).mean() < 0.7 * (single - path).norm(dim=-1).mean()
    assert smooth.diff(n=2, dim=0).norm(dim=-1).mean() < 0.1 * single.diff(n=2, dim=0).norm(dim=-1).mean()


def test_what_cannot_be_placed_is_said() -> None:
    points, path, keypoints = walk(3)
    confidence = torch.zeros(3, 17, dtype=torch.float64)
    confidence[1, 4] = 1
    with pytest.raises(ValueError, match="two keypoints"):
        solve_translation_trajectory(points, keypoints, confidence, K, fps=FPS)
    confidence[:, 4] = 1  # one joint in every frame, in different places
    with pytest.raises(ValueError, match="two keypoints"):
        solve_translation_trajectory(points, keypoints, confidence, K, fps=FPS)
    mirrored = project(points * torch.tensor([-1.0, -1.0, 1.0]) + path[:, None], K)
    with pytest.raises(ValueError, match="behind the camera"):
        solve_translation_trajectory(points, mirrored, torch.ones(3, 17, dtype=torch.float64), K, fps=FPS)
