"""The SMPL layer against a twin written as loops, against smplx, and against itself."""

import copy
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from body_fixtures import random_body_arrays, random_body_parameters
from torch import Tensor

from body_models import skinning
from body_models.open_body import open_body_path
from body_models.parameters import BodyParameters
from body_models.smpl import SmplBody


def naive_smpl(arrays: dict[str, np.ndarray], parameters: BodyParameters) -> tuple[np.ndarray, np.ndarray]:
    """One frame, written from the paper's equations, one vertex and one joint at a time."""
    rotmats = parameters.rotmat.numpy()
    betas, translation = parameters.betas.numpy(), parameters.translation_m.numpy()
    num_vertices = len(arrays["v_template"])
    shaped = arrays["v_template"].copy()
    for beta, direction in zip(betas, arrays["shapedirs"].transpose(2, 0, 1), strict=False):
        shaped += beta * direction
    rest_joints = arrays["J_regressor"] @ shaped

    feature = np.concatenate([(rotmat - np.eye(3)).ravel() for rotmat in rotmats[1:]])
    posed = shaped.copy()
    for value, direction in zip(feature, arrays["posedirs"].transpose(2, 0, 1), strict=True):
        posed += value * direction

    T_world_joint: list[np.ndarray] = []
    for joint in range(24):
        T_parent_joint = np.eye(4)
        T_parent_joint[:3, :3] = rotmats[joint]
        if joint == 0:
            T_parent_joint[:3, 3] = rest_joints[0]
            T_world_joint.append(T_parent_joint)
        else:
            parent = int(arrays["kintree_table"][0, joint])
            T_parent_joint[:3, 3] = rest_joints[joint] - rest_joints[parent]
            T_world_joint.append(T_world_joint[parent] @ T_parent_joint)
    vertices = np.zeros((num_vertices, 3))
    for vertex in range(num_vertices):
        for joint in range(24):
            in_joint = posed[vertex] - rest_joints[joint]
            moved = T_world_joint[joint][:3, :3] @ in_joint + T_world_joint[joint][:3, 3]
            vertices[vertex] += arrays["weights"][vertex, joint] * moved
    joints = np.stack([T[:3, 3] for T in T_world_joint])
    return vertices + translation, joints + translation


def local_body_arrays(num_vertices: int = 90) -> dict[str, np.ndarray]:
    """As `random_body_arrays`, but a vertex follows two joints and one joint's pose blend shapes."""
    arrays = random_body_arrays(num_vertices)
    joint = np.arange(num_vertices) * 23 // num_vertices
    in_reach = np.zeros((num_vertices, 24), dtype=bool)
    in_reach[np.arange(num_vertices), joint] = in_reach[np.arange(num_vertices), joint + 1] = True
    weights = arrays["weights"] * in_reach
    arrays["weights"] = weights / weights.sum(axis=1, keepdims=True)
    arrays["posedirs"] *= np.repeat(np.eye(23, dtype=bool)[joint], 9, axis=1)[:, None]
    return arrays


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks of vertices and of frames, the last ones smaller, for these tests' small bodies."""
    monkeypatch.setattr(skinning, "VERTICES_PER_BLOCK", 32)
    monkeypatch.setattr(skinning, "FRAMES_PER_BLOCK_ON_CPU", 3)


def test_selected_items_and_what_they_share() -> None:
    every = random_body_parameters(5)
    for shared in (every.betas, every.betas[:1], every.betas[0]):
        some = replace(every, betas=shared).select([3, 4])
        assert torch.equal(some.rotmat, every.rotmat[3:])
        assert torch.equal(some.translation_m, every.translation_m[3:])
        assert torch.equal(some.betas, shared[3:] if shared is every.betas else shared)
    one = random_body_parameters(1)
    assert one.select(slice(0, 1)).batch_shape == (1,)
    assert one.select([]).betas.shape == (0, 10)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("arrays", [random_body_arrays(), local_body_arrays()], ids=["dense", "local"])
def test_equals_the_naive_twin_in_float64(arrays: dict[str, np.ndarray]) -> None:
    body = SmplBody.from_arrays(arrays, dtype=torch.float64)
    many_frames = random_body_parameters(skinning.FEW_FRAMES + 4)
    mesh = body(many_frames)
    for frame in (0, 3, 7):
        parameters = BodyParameters(
            many_frames.root_rotmat[frame],
            many_frames.body_rotmat[frame],
            many_frames.betas[frame],
            many_frames.translation_m[frame],
        )
        vertices, joints = naive_smpl(arrays, parameters)
        one_frame = body(parameters)
        for vertices_m, joints_m in (
            (mesh.vertices_m[frame], mesh.joints_m[frame]),
            (one_frame.vertices_m, one_frame.joints_m),
        ):
            np.testing.assert_allclose(vertices_m, vertices, atol=1e-11, rtol=0)
            np.testing.assert_allclose(joints_m, joints, atol=1e-11, rtol=0)


@pytest.mark.parametrize("num_frames", [1, 16])
def test_equals_smplx_on_the_open_body(num_frames: int) -> None:
    smplx = pytest.importorskip("smplx")
    arrays = dict(np.load(open_body_path(), allow_pickle=False))
    reference = smplx.SMPL(model_path="", data_struct=smplx.utils.Struct(**arrays))
    generator = torch.Generator().manual_seed(1)
    pose_rotvec = torch.randn(num_frames, 24, 3, generator=generator)
    betas = 2 * torch.randn(num_frames, 10, generator=generator)
    translation_m = 3 * torch.randn(num_frames, 3, generator=generator)

    mesh = SmplBody.from_file(open_body_path())(BodyParameters.from_rotvec(pose_rotvec, betas, translation_m))
    expected = reference(
        betas=betas,
        global_orient=pose_rotvec[:, 0],
        body_pose=pose_rotvec[:, 1:].flatten(1),
        transl=translation_m,
    )
    torch.testing.assert_close(mesh.vertices_m, expected.vertices, atol=1e-5, rtol=0)
    torch.testing.assert_close(mesh.joints_m, expected.joints[:, :24], atol=1e-5, rtol=0)


@pytest.mark.parametrize("batch", [(), (1,), (5,), (2, 7), (0,), (2, 0)])
def test_any_batch_shape(batch: tuple[int, ...]) -> None:
    body = SmplBody.from_arrays(random_body_arrays())
    parameters = random_body_parameters(*batch, dtype=torch.float32)
    mesh = body(parameters)
    assert mesh.vertices_m.shape == (*batch, 90, 3)
    assert mesh.joints_m.shape == (*batch, 24, 3)
    assert mesh.vertices_m.is_contiguous()
    assert mesh.vertices_m.dtype == torch.float32
    assert body.rest_vertices(parameters.betas).shape == (*batch, 90, 3)
    torch.testing.assert_close(body.joints(parameters), mesh.joints_m, atol=0, rtol=0)


def test_shape_and_translation_broadcast_over_frames() -> None:
    body = SmplBody.from_arrays(random_body_arrays(), dtype=torch.float64)
    whole = random_body_parameters(2, 5)
    per_clip = replace(whole, betas=whole.betas[:, :1], translation_m=whole.translation_m[0, 0])
    expanded = replace(
        per_clip,
        betas=per_clip.betas.expand(2, 5, -1),
        translation_m=per_clip.translation_m.expand(2, 5, -1),
    )
    torch.testing.assert_close(body(per_clip).vertices_m, body(expanded).vertices_m)
    torch.testing.assert_close(body(per_clip).joints_m, body(expanded).joints_m)


def test_at_rest_the_pose_changes_nothing() -> None:
    body = SmplBody.from_arrays(random_body_arrays(), dtype=torch.float64)
    betas = random_body_parameters(3).betas
    mesh = body(replace(BodyParameters.rest((3,), dtype=torch.float64), betas=betas))
    torch.testing.assert_close(mesh.vertices_m, body.rest_vertices(betas))
    torch.testing.assert_close(mesh.joints_m, body.shape(betas).rest_joints_m)
    torch.testing.assert_close(body.rest_vertices(0 * betas), body.v_template.expand(3, -1, -1))


def test_root_rotation_and_translation_move_the_body_rigidly_about_the_pelvis() -> None:
    body = SmplBody.from_arrays(random_body_arrays(), dtype=torch.float64)
    parameters = random_body_parameters()
    unmoved = replace(
        parameters,
        root_rotmat=torch.eye(3, dtype=torch.float64),
        translation_m=torch.zeros(3, dtype=torch.float64),
    )
    pelvis_m = body.shape(parameters.betas).rest_joints_m[0]
    turned = (body(unmoved).vertices_m - pelvis_m) @ parameters.root_rotmat.T + pelvis_m
    torch.testing.assert_close(body(parameters).vertices_m, turned + parameters.translation_m)


def all_gradients(body: SmplBody, parameters: BodyParameters, loss_weights: Tensor) -> list[Tensor]:
    leaves = [tensor.clone().requires_grad_() for tensor in vars(parameters).values()]
    mesh = body(BodyParameters(*leaves))
    loss = (mesh.vertices_m * loss_weights).sum() + mesh.joints_m.square().sum()
    return list(torch.autograd.grad(loss, leaves))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("arrays", [random_body_arrays(), local_body_arrays()], ids=["dense", "local"])
def test_blockwise_gradients_equal_those_of_autograd(
    arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    body = SmplBody.from_arrays(arrays, dtype=torch.float64)
    parameters = random_body_parameters(8)
    loss_weights = torch.randn(8, 90, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    blockwise = all_gradients(body, parameters, loss_weights)
    monkeypatch.setattr(skinning, "FEW_FRAMES", 100)
    for gradient, expected in zip(blockwise, all_gradients(body, parameters, loss_weights), strict=True):
        torch.testing.assert_close(gradient, expected, atol=1e-12, rtol=1e-10)


@pytest.fixture
def _restored_threads() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(num_threads)


@pytest.mark.usefixtures("small_blocks", "_restored_threads")
def test_threads_change_nothing() -> None:
    body = SmplBody.from_arrays(local_body_arrays(), dtype=torch.float64)
    parameters = random_body_parameters(10)
    loss_weights = torch.randn(10, 90, 3, dtype=torch.float64)
    results = []
    for num_threads in (1, 2, 4):
        torch.set_num_threads(num_threads)
        with torch.inference_mode():
            mesh = body(parameters)
        results.append([mesh.vertices_m, *all_gradients(body, parameters, loss_weights)])
        assert torch.get_num_threads() == num_threads
        with ThreadPoolExecutor(1) as new_thread:
            assert new_thread.submit(torch.get_num_threads).result() == num_threads
    for others in results[1:]:
        for result, expected in zip(others, results[0], strict=True):
            torch.testing.assert_close(result, expected, atol=1e-12, rtol=1e-10)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("num_frames", [1, 6])
def test_gradients_equal_finite_differences(num_frames: int) -> None:
    body = SmplBody.from_arrays(random_body_arrays(num_vertices=40), dtype=torch.float64)
    pose_rotvec = 0.5 * torch.randn(
        num_frames, 24, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    parameters = random_body_parameters(num_frames)

    def first_vertices(pose: Tensor, betas: Tensor, translation: Tensor) -> Tensor:
        mesh: Tensor = body(BodyParameters.from_rotvec(pose, betas, translation)).vertices_m
        return mesh[:, ::13]

    inputs = (pose_rotvec, parameters.betas, parameters.translation_m)
    assert torch.autograd.gradcheck(
        first_vertices, [tensor.clone().requires_grad_() for tensor in inputs], fast_mode=True
    )


def test_gradient_is_finite_at_rest() -> None:
    body = SmplBody.from_arrays(random_body_arrays())
    pose_rotvec = torch.zeros(6, 24, 3, requires_grad=True)
    body(BodyParameters.from_rotvec(pose_rotvec, torch.zeros(6, 10))).vertices_m.square().sum().backward()
    assert pose_rotvec.grad is not None
    assert pose_rotvec.grad.isfinite().all()
    assert pose_rotvec.grad.abs().max() > 0


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("num_frames", [2, 8])
def test_restricted_body_skins_the_chosen_vertices_and_keeps_all_joints(num_frames: int) -> None:
    body = SmplBody.from_arrays(random_body_arrays(), dtype=torch.float64)
    vertex_ids = torch.tensor([81, 3, 40, 7])
    restricted = body.restricted_to(vertex_ids)
    parameters = random_body_parameters(num_frames)
    torch.testing.assert_close(restricted(parameters).vertices_m, body(parameters).vertices_m[:, vertex_ids])
    torch.testing.assert_close(restricted(parameters).joints_m, body(parameters).joints_m)


def test_restricted_faces_are_renumbered() -> None:
    arrays = random_body_arrays()
    arrays["f"] = np.array([[0, 1, 2], [2, 5, 0], [7, 2, 5]], dtype=np.uint32)
    restricted = SmplBody.from_arrays(arrays).restricted_to(torch.tensor([7, 5, 2, 0]))
    assert restricted.faces.tolist() == [[2, 1, 3], [0, 2, 1]]


def test_casting_to_float64_loses_nothing() -> None:
    arrays = random_body_arrays()
    parameters = random_body_parameters(6)
    expected = SmplBody.from_arrays(arrays, dtype=torch.float64)(parameters)
    cast = SmplBody.from_arrays(arrays).double()(parameters)
    torch.testing.assert_close(cast.vertices_m, expected.vertices_m, atol=0, rtol=0)
    torch.testing.assert_close(cast.joints_m, expected.joints_m, atol=0, rtol=0)


def test_autocast_does_not_touch_the_body() -> None:
    body = SmplBody.from_arrays(random_body_arrays())
    parameters = random_body_parameters(6, dtype=torch.float32)
    expected = body(parameters)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mesh = body(parameters)
        joints_m = body.joints(parameters)
    torch.testing.assert_close(mesh.vertices_m, expected.vertices_m, atol=0, rtol=0)
    torch.testing.assert_close(joints_m, expected.joints_m, atol=0, rtol=0)


def test_no_array_enters_a_checkpoint_and_copies_are_equal() -> None:
    body = SmplBody.from_arrays(random_body_arrays())
    assert body.state_dict() == {}
    assert list(body.parameters()) == []
    buffer = io.BytesIO()
    torch.save(torch.nn.Sequential(body).state_dict(), buffer)
    assert buffer.tell() < 4096
    parameters = random_body_parameters(2, dtype=torch.float32)
    torch.testing.assert_close(copy.deepcopy(body)(parameters).vertices_m, body(parameters).vertices_m)


def test_fewer_betas_are_the_first_ones() -> None:
    arrays = random_body_arrays()
    parameters = random_body_parameters(2)
    cut = replace(parameters, betas=parameters.betas[:, :4])
    padded = replace(parameters, betas=parameters.betas * (torch.arange(10) < 4))
    small = SmplBody.from_arrays(arrays, num_betas=4, dtype=torch.float64)
    whole = SmplBody.from_arrays(arrays, dtype=torch.float64)
    torch.testing.assert_close(small(cut).vertices_m, whole(padded).vertices_m)
    with pytest.raises(ValueError, match="has 10 betas but 4 were given"):
        whole(cut)
    with pytest.raises(ValueError, match="has 10 shape directions, not 16"):
        SmplBody.from_arrays(arrays, num_betas=16)


def test_parameters_round_trip_through_rotvec() -> None:
    pose_rotvec = 0.7 * torch.randn(
        2, 3, 24, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    parameters = BodyParameters.from_rotvec(pose_rotvec, torch.zeros(2, 3, 10, dtype=torch.float64))
    torch.testing.assert_close(parameters.pose_rotvec, pose_rotvec)
    assert parameters.batch_shape == (2, 3)
    assert parameters.rotmat.shape == (2, 3, 24, 3, 3)
    assert parameters.translation_m.eq(0).all()
    assert parameters.to(dtype=torch.float32).body_rotmat.dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_cpu() -> None:
    arrays = local_body_arrays()
    parameters = random_body_parameters(40)
    loss_weights = torch.randn(40, 90, 3, dtype=torch.float64)
    body = SmplBody.from_arrays(arrays, dtype=torch.float64)
    on_cuda = copy.deepcopy(body).cuda()
    mesh = on_cuda(parameters.to("cuda"))
    assert mesh.vertices_m.is_cuda
    torch.testing.assert_close(mesh.vertices_m.cpu(), body(parameters).vertices_m)
    gradients = all_gradients(on_cuda, parameters.to("cuda"), loss_weights.cuda())
    for gradient, expected in zip(gradients, all_gradients(body, parameters, loss_weights), strict=True):
        torch.testing.assert_close(gradient.cpu(), expected)
