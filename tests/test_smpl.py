"""The SMPL layer against a twin written as loops, against smplx, and against itself."""

import numpy as np
import torch
from body_fixtures import random_body_arrays, random_body_parameters

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


def test_equals_the_naive_twin_in_float64() -> None:
    arrays = random_body_arrays()
    body = SmplBody.from_arrays(arrays, dtype=torch.float64)
    for seed in range(3):
        parameters = random_body_parameters(seed=seed)
        mesh = body(parameters)
        vertices, joints = naive_smpl(arrays, parameters)
        np.testing.assert_allclose(mesh.vertices_m, vertices, atol=1e-11)
        np.testing.assert_allclose(mesh.joints_m, joints, atol=1e-11)
