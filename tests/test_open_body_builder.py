"""The builder's parts on small synthetic bodies; anny itself is needed only to build the real one."""

import numpy as np
import pytest
import trimesh

from body_models.open_body.decimation import decimate_symmetric
from body_models.open_body.joint_fitting import fit_skeleton_joints, skeleton_joints_of_smpl
from body_models.open_body.pose_blend import (
    PosingReference,
    fit_pose_blend,
    mirror_pose_blend,
    pose_features,
    world_rotmats,
)
from body_models.open_body.pose_sampling import POSE_RANGES_RAD, random_pose_rotvecs
from body_models.open_body.rest_pose import forward_kinematics, frame, rotvec_to_rotmat, skin
from body_models.open_body.shape_space import fit_shape_space, signed_volume, symmetrised, vertex_areas
from core.skeleton import H36M_17, SMPL_24


@pytest.fixture(scope="module")
def sphere():
    """A unit sphere (a subdivided octahedron) that is symmetric in x: vertices, faces, mirror."""
    mesh = trimesh.convex.convex_hull(np.concatenate([np.eye(3), -np.eye(3)]))
    for _ in range(4):
        mesh = mesh.subdivide()
    vertices = mesh.vertices / np.linalg.norm(mesh.vertices, axis=1, keepdims=True)
    vertices[np.abs(vertices) < 1e-12] = 0.0
    mirror = np.array([np.linalg.norm(vertices - p * [-1, 1, 1], axis=1).argmin() for p in vertices])
    return vertices, np.asarray(mesh.faces), mirror


def test_decimation_is_closed_symmetric_and_keeps_vertices(sphere):
    vertices, faces, mirror = sphere
    protected = np.zeros(len(vertices), dtype=bool)
    protected[[5, 40, mirror[40]]] = True
    importance = np.where(vertices[:, 1] > 0, 20.0, 1.0)
    mesh = decimate_symmetric(vertices, faces, mirror, importance, protected, 300)
    assert 298 <= len(mesh.vertex_ids) <= 300
    assert np.isin(np.flatnonzero(protected), mesh.vertex_ids).all()
    kept = vertices[mesh.vertex_ids]
    np.testing.assert_allclose(kept[mesh.mirror_vertex] * [-1, 1, 1], kept, atol=1e-12)
    result = trimesh.Trimesh(kept, mesh.faces, process=False)
    assert result.is_watertight
    assert result.is_winding_consistent
    assert result.euler_number == 2
    assert 0.9 * 4 / 3 * np.pi < result.volume < 4 / 3 * np.pi
    assert (kept[:, 1] > 0.1).sum() > 1.5 * (kept[:, 1] < -0.1).sum()  # denser where it is important


def test_areas_and_volume(sphere):
    vertices, faces, _ = sphere
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    assert vertex_areas(vertices, faces).sum() == pytest.approx(mesh.area)
    assert signed_volume(vertices, faces) == pytest.approx(mesh.volume)
    assert signed_volume(vertices, faces[:, ::-1]) == pytest.approx(-mesh.volume)


def test_shape_space_recovers_unit_variance_betas(sphere):
    vertices, faces, mirror = sphere
    rng = np.random.default_rng(0)
    betas = rng.normal(size=(400, 2))
    size, stretch = 0.1 * vertices, 0.03 * vertices * [0, 1, 0]
    people = (vertices + betas[:, :1, None] * size + betas[:, 1:, None] * stretch).astype(np.float32)
    space = fit_shape_space(people, faces, mirror, num_betas=2)
    assert space.explained_variance_ratio.sum() == pytest.approx(1.0, abs=1e-6)
    fitted = space.fit(people)
    np.testing.assert_allclose(fitted.std(axis=0), 1.0, atol=1e-3)
    np.testing.assert_allclose(space.vertices(fitted), people, atol=1e-5)
    assert np.corrcoef(fitted[:, 0], betas[:, 0])[0, 1] > 0.9  # signed towards more volume
    np.testing.assert_array_equal(symmetrised(space.mean, mirror), space.mean)


def test_rotvec_to_rotmat_is_a_rotation_by_the_angle():
    rotvecs = np.random.default_rng(0).normal(size=(20, 3))
    rotvecs[0] = 0.0
    rotmats = rotvec_to_rotmat(rotvecs)
    np.testing.assert_allclose(
        rotmats @ rotmats.swapaxes(-1, -2), np.broadcast_to(np.eye(3), (20, 3, 3)), atol=1e-12
    )
    np.testing.assert_allclose(np.einsum("nij,nj->ni", rotmats, rotvecs), rotvecs, atol=1e-12)
    angles = np.linalg.norm(rotvecs, axis=1)
    np.testing.assert_allclose(np.trace(rotmats, axis1=1, axis2=2), 1 + 2 * np.cos(angles), atol=1e-12)
    quarter_turn = rotvec_to_rotmat(np.array([0.0, 0.0, np.pi / 2]))
    np.testing.assert_allclose(quarter_turn @ [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], atol=1e-12)


def test_frame_is_right_handed():
    result = frame(np.array([[2.0, 0.0, 0.0]]), np.array([[5.0, 1.0, 0.0]]))
    np.testing.assert_allclose(result[0], np.eye(3), atol=1e-12)


def test_skinning_equals_its_naive_twin():
    rng = np.random.default_rng(0)
    parents = (-1, 0, 1)
    heads = rng.normal(size=(2, 3, 3))
    rotmats = rotvec_to_rotmat(rng.normal(size=(2, 3, 3)))
    vertices = rng.normal(size=(2, 5, 3))
    weights = rng.dirichlet(np.ones(3), size=5)
    posed_heads = forward_kinematics(heads, rotmats, parents)
    result = skin(vertices, heads, posed_heads, rotmats, weights)
    for n in range(2):
        naive_heads = [heads[n, 0]]
        for bone in (1, 2):
            naive_heads.append(
                naive_heads[bone - 1] + rotmats[n, bone - 1] @ (heads[n, bone] - heads[n, bone - 1])
            )
        for v in range(5):
            naive = sum(
                weights[v, b] * (rotmats[n, b] @ (vertices[n, v] - heads[n, b]) + naive_heads[b])
                for b in range(3)
            )
            np.testing.assert_allclose(result[n, v], naive, atol=1e-12)


def test_mirrored_pose_blend_answers_mirrored_poses():
    rng = np.random.default_rng(0)
    posedirs = rng.normal(size=(4, 3, 207))
    pose = rng.normal(size=(1, 24, 3))
    mirrored_pose = pose[:, list(SMPL_24.mirror_permutation)] * [1.0, -1.0, -1.0]
    offsets = posedirs @ pose_features(rotvec_to_rotmat(pose))[0]
    mirrored_offsets = mirror_pose_blend(posedirs) @ pose_features(rotvec_to_rotmat(mirrored_pose))[0]
    np.testing.assert_allclose(mirrored_offsets * [-1.0, 1.0, 1.0], offsets, atol=1e-10)
    np.testing.assert_array_equal(mirror_pose_blend(mirror_pose_blend(posedirs)), posedirs)


@pytest.fixture(scope="module")
def arms():
    """Two mirrored arms on SMPL's tree, rest pose half a radian below the T-pose, and the mirror permutation."""
    rng = np.random.default_rng(0)
    mirror_joint = list(SMPL_24.mirror_permutation)
    heads = rng.normal(scale=0.3, size=(24, 3))
    heads = 0.5 * (heads + heads[mirror_joint] * [-1.0, 1.0, 1.0])
    raised = np.broadcast_to(np.eye(3), (24, 3, 3)).copy()
    for side, sign in (("left", 1.0), ("right", -1.0)):
        for name in ("shoulder", "elbow", "wrist", "hand"):
            raised[SMPL_24.index(f"{side}_{name}")] = rotvec_to_rotmat(np.array([0.0, 0.0, 0.5 * sign]))
    t_pose_heads = forward_kinematics(heads[None], raised[None], SMPL_24.parents)[0]
    weights = np.zeros((12, 24))
    collar, shoulder = SMPL_24.index("left_collar"), SMPL_24.index("left_shoulder")
    weights[:6, collar] = np.linspace(0.1, 0.9, 6)
    weights[:6, shoulder] = 1.0 - weights[:6, collar]
    weights[6:] = weights[:6][:, mirror_joint]
    left = heads[shoulder] + rng.normal(scale=0.05, size=(6, 3)) + np.array([0.5, 0.0, 0.0])
    vertices = np.concatenate([left, left * [-1.0, 1.0, 1.0]])
    template = skin(vertices[None], heads[None], t_pose_heads[None], raised[None], weights)[0]
    reference = PosingReference(
        template=template,
        a_pose_vertices=vertices,
        a_pose_heads=heads,
        t_pose_heads=t_pose_heads,
        bone_rotmats=raised,
        bone_weights=weights,
        bone_parents=SMPL_24.parents,
        bone_joint=np.arange(24),
        joints=t_pose_heads,
        weights=weights,
    )
    return reference, np.roll(np.arange(12), 6)


def test_reference_in_t_pose_is_the_template(arms):
    reference, _ = arms
    t_pose = np.zeros((1, 24, 3))
    np.testing.assert_allclose(reference.pose_as_anny(t_pose)[0], reference.template, atol=1e-12)
    np.testing.assert_allclose(reference.pose_without_blend(t_pose)[0], reference.template, atol=1e-12)


def test_pose_blend_closes_the_gap_on_the_joint_in_between(arms):
    reference, mirror = arms
    posedirs = fit_pose_blend(reference, mirror, random_pose_rotvecs(200, np.random.default_rng(0)))
    shoulders = [SMPL_24.index("left_shoulder") - 1, SMPL_24.index("right_shoulder") - 1]
    influence = np.abs(posedirs).reshape(12, 3, 23, 9).max(axis=(0, 1, 3))
    assert set(np.flatnonzero(influence)) == set(shoulders)
    np.testing.assert_allclose(mirror_pose_blend(posedirs)[mirror], posedirs, atol=1e-12)

    poses = random_pose_rotvecs(50, np.random.default_rng(1))
    rotmats = rotvec_to_rotmat(poses)
    world = world_rotmats(rotmats)
    offsets = np.einsum("vcf,pf->pvc", posedirs, pose_features(rotmats))
    with_blend = skin(
        reference.template + offsets,
        reference.joints[None],
        reference.posed_joints(poses),
        world,
        reference.weights,
    )
    wanted = reference.pose_as_anny(poses)
    gap = np.linalg.norm(reference.pose_without_blend(poses) - wanted, axis=-1).mean()
    remaining = np.linalg.norm(with_blend - wanted, axis=-1).mean()
    assert gap > 5e-3
    assert remaining < 0.2 * gap


def test_world_rotations_compose_down_the_tree():
    rotmats = rotvec_to_rotmat(np.random.default_rng(0).normal(size=(1, 24, 3)))
    world = world_rotmats(rotmats)
    elbow = rotmats[0, 0] @ rotmats[0, 3] @ rotmats[0, 6] @ rotmats[0, 9] @ rotmats[0, 13] @ rotmats[0, 16]
    np.testing.assert_allclose(world[0, 18], elbow @ rotmats[0, 18], atol=1e-12)


def test_random_poses_stay_within_the_limits_and_repeat():
    poses = random_pose_rotvecs(200, np.random.default_rng(3))
    np.testing.assert_array_equal(poses, random_pose_rotvecs(200, np.random.default_rng(3)))
    assert (poses[:, 0] == 0).all()
    _, _, lower, upper = POSE_RANGES_RAD["elbow"]
    left, right = poses[:, SMPL_24.index("left_elbow")], poses[:, SMPL_24.index("right_elbow")]
    assert (left >= lower).all()
    assert (left <= upper).all()
    assert left[:, 1].mean() < -0.3 < 0.3 < right[:, 1].mean()  # both bend the forearm to the front


def test_joint_fit_finds_convex_weights_of_its_own_making():
    """Joints that are convex combinations of a few vertices are found again, mirrored, and sum to one."""
    rng = np.random.default_rng(0)
    num_side = 40
    left = rng.normal([2.0, 0.0, 0.0], size=(60, num_side, 3))
    vertices = np.concatenate([left, left * [-1.0, 1.0, 1.0]], axis=1)
    mirror = np.roll(np.arange(2 * num_side), num_side)
    joints = np.zeros((60, 24, 3))
    for joint, name in enumerate(SMPL_24.joint_names):
        if name.startswith("left_"):
            joints[:, joint] = vertices[:, [joint, joint + 8]].mean(axis=1)
            joints[:, SMPL_24.mirror_permutation[joint]] = joints[:, joint] * [-1.0, 1.0, 1.0]
        elif not name.startswith("right_"):
            joints[:, joint] = vertices[:, [joint, mirror[joint]]].mean(axis=1)
    weights = np.ones((2 * num_side, 24))  # every vertex may serve every joint
    regressor = fit_skeleton_joints(
        H36M_17, vertices, joints, {"nose": 1, "head": 2}, weights, mirror, np.ones(2 * num_side, dtype=bool)
    )
    defined = skeleton_joints_of_smpl(H36M_17, vertices, joints, {"nose": 1, "head": 2})
    np.testing.assert_allclose(np.einsum("jv,pvc->pjc", regressor, vertices), defined, atol=1e-3)
    np.testing.assert_allclose(regressor.sum(axis=1), 1.0, atol=1e-12)
    assert (regressor >= 0).all()
