import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import cKDTree

from body_models.open_body import load_open_body, load_open_body_regressor, open_body_path
from body_models.parameters import BodyParameters
from core.skeleton import COCO_17, H36M_17, SMPL_24

SMPL_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
SMPL_NUM_VERTICES = 6890
GENDERS = ("neutral", "male", "female")
SKELETONS = (H36M_17, COCO_17)


@pytest.fixture(scope="module", params=GENDERS)
def arrays(request):
    with np.load(open_body_path(request.param), allow_pickle=False) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def neutral():
    with np.load(open_body_path(), allow_pickle=False) as archive:
        return dict(archive)


def mirror_of(vertices):
    distance, mirror = cKDTree(vertices).query(vertices * [-1.0, 1.0, 1.0])
    return distance, mirror


def test_arrays_have_smpls_keys_and_shapes(arrays):
    num_vertices, num_faces = len(arrays["v_template"]), len(arrays["f"])
    shapes = {
        "v_template": (num_vertices, 3),
        "shapedirs": (num_vertices, 3, 10),
        "posedirs": (num_vertices, 3, 207),
        "weights": (num_vertices, 24),
        "J_regressor": (24, num_vertices),
        "J_regressor_h36m_17": (17, num_vertices),
        "J_regressor_coco_17": (17, num_vertices),
        "f": (num_faces, 3),
        "kintree_table": (2, 24),
    }
    assert {name: array.shape for name, array in arrays.items()} == shapes
    for name, array in arrays.items():
        assert array.dtype == (np.int32 if name in ("f", "kintree_table") else np.float32), name
        assert np.isfinite(array).all(), name


def test_vertex_count_fits_smplx_landmarks_but_not_smpl_regressors(arrays):
    assert 6788 <= len(arrays["v_template"]) <= 7100
    assert len(arrays["v_template"]) != SMPL_NUM_VERTICES


def test_tree_is_smpls(arrays):
    assert tuple(arrays["kintree_table"][0]) == SMPL_PARENTS == SMPL_24.parents
    assert tuple(arrays["kintree_table"][1]) == tuple(range(24))


@pytest.mark.parametrize("gender", GENDERS)
def test_file_is_small(gender):
    assert open_body_path(gender).stat().st_size <= 3e6


def test_weights_are_convex(arrays):
    assert (arrays["weights"] >= 0).all()
    np.testing.assert_allclose(arrays["weights"].sum(axis=1), 1.0, atol=1e-6)


def test_mesh_is_a_closed_surface_facing_outwards(arrays):
    mesh = trimesh.Trimesh(arrays["v_template"], arrays["f"], process=False)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert 0.05 < mesh.volume < 0.1  # cubic metres; positive: normals point outwards
    bodies = mesh.split(only_watertight=True)
    assert len(bodies) == 3  # the body and two eyeballs
    assert all(body.euler_number == 2 for body in bodies)
    assert set(arrays["f"].ravel()) == set(range(len(arrays["v_template"])))


def test_body_is_symmetric(arrays):
    distance, mirror = mirror_of(arrays["v_template"])
    assert distance.max() < 1e-6
    assert (mirror[mirror] == np.arange(len(mirror))).all()
    other_side = list(SMPL_24.mirror_permutation)
    np.testing.assert_allclose(arrays["weights"][mirror][:, other_side], arrays["weights"], atol=1e-7)
    directions = arrays["shapedirs"].transpose(2, 0, 1)
    np.testing.assert_allclose(directions[:, mirror] * [-1.0, 1.0, 1.0], directions, atol=1e-7)
    for name, skeleton in (("", SMPL_24), ("_h36m_17", H36M_17), ("_coco_17", COCO_17)):
        regressor = arrays[f"J_regressor{name}"]
        np.testing.assert_allclose(
            regressor[list(skeleton.mirror_permutation)][:, mirror], regressor, atol=1e-7
        )
    faces = {tuple(np.roll(face, -face.argmin())) for face in arrays["f"]}
    mirrored = {tuple(np.roll(face, -face.argmin())) for face in mirror[arrays["f"]][:, ::-1]}
    assert faces == mirrored


def test_mirrored_poses_give_mirrored_bodies(arrays):
    from body_models.smpl import SmplBody

    body = SmplBody.from_arrays(arrays, dtype=torch.float64)
    pose = 0.4 * torch.randn(24, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mirrored_pose = pose[list(SMPL_24.mirror_permutation)] * torch.tensor([1.0, -1.0, -1.0])
    betas = torch.ones(10, dtype=torch.float64)
    _, mirror = mirror_of(arrays["v_template"])
    vertices = body(BodyParameters.from_rotvec(pose, betas)).vertices_m.numpy()
    mirrored = body(BodyParameters.from_rotvec(mirrored_pose, betas)).vertices_m.numpy()
    np.testing.assert_allclose(mirrored[mirror] * [-1.0, 1.0, 1.0], vertices, atol=2e-6)


def test_rest_pose_is_smpls_t_pose(arrays):
    joints = dict(zip(SMPL_24.joint_names, arrays["J_regressor"] @ arrays["v_template"], strict=True))
    np.testing.assert_allclose(joints["pelvis"], 0.0, atol=1e-4)
    hip, shoulder, elbow, wrist = (joints[f"left_{name}"] for name in ("hip", "shoulder", "elbow", "wrist"))
    assert -0.11 < hip[1] < -0.07  # SMPL's pelvis lies about 9 cm above its hips
    assert 0.06 < hip[0] < 0.13
    assert shoulder[0] < elbow[0] < wrist[0]
    np.testing.assert_allclose([elbow[1], wrist[1]], shoulder[1], atol=5e-3)  # arms level,
    np.testing.assert_allclose([elbow[2], wrist[2]], shoulder[2], atol=5e-3)  # in the frontal plane
    knee, ankle = joints["left_knee"], joints["left_ankle"]
    assert np.rad2deg(np.arctan2(knee[0] - hip[0], hip[1] - knee[1])) == pytest.approx(4.0, abs=0.5)
    assert ankle[0] == pytest.approx(knee[0], abs=5e-3)
    assert joints["left_foot"][2] > ankle[2] + 0.08  # toes point to +z
    assert 1.55 < np.ptp(arrays["v_template"][:, 1]) < 1.85


@pytest.mark.parametrize("name", ["J_regressor", "J_regressor_h36m_17", "J_regressor_coco_17"])
def test_regressors_are_sparse_and_convex(arrays, name):
    regressor = arrays[name]
    assert (regressor >= 0).all()
    np.testing.assert_allclose(regressor.sum(axis=1), 1.0, atol=1e-6)
    assert (regressor > 0).sum(axis=1).max() <= 40
    if name != "J_regressor":
        assert (regressor > 0).any(axis=0).sum() <= 300


def test_skeleton_joints_lie_where_they_are_defined(arrays):
    smpl = dict(zip(SMPL_24.joint_names, arrays["J_regressor"] @ arrays["v_template"], strict=True))
    top, front = arrays["v_template"][:, 1].max(), arrays["v_template"][:, 2]
    for skeleton in SKELETONS:
        regressed = arrays[f"J_regressor_{skeleton.name}"] @ arrays["v_template"]
        joints = dict(zip(skeleton.joint_names, regressed, strict=True))
        for part in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist"):
            for side in ("left", "right"):
                # The joint centre that the body turns about, within a few millimetres.
                error_m = np.linalg.norm(joints[f"{side}_{part}"] - smpl[f"{side}_{part}"])
                assert error_m < 8e-3, (skeleton.name, side, part)
            assert joints[f"left_{part}"][0] > 0 > joints[f"right_{part}"][0]
        on_midline = arrays["v_template"][np.abs(arrays["v_template"][:, 0]) < 1e-6]
        assert joints["nose"][2] == on_midline[on_midline[:, 1] > smpl["head"][1] - 0.02][:, 2].max()
        assert joints["nose"][2] < front.max()  # the toes reach further
    h36m = dict(zip(H36M_17.joint_names, arrays["J_regressor_h36m_17"] @ arrays["v_template"], strict=True))
    np.testing.assert_allclose(h36m["pelvis"], (h36m["left_hip"] + h36m["right_hip"]) / 2, atol=1e-6)
    assert h36m["pelvis"][1] < h36m["spine"][1] < h36m["thorax"][1] < h36m["nose"][1] < h36m["head"][1]
    assert h36m["head"][1] == pytest.approx(top, abs=2e-3)
    coco = dict(zip(COCO_17.joint_names, arrays["J_regressor_coco_17"] @ arrays["v_template"], strict=True))
    assert 0.02 < coco["left_eye"][0] < 0.04 < coco["left_ear"][0] < 0.09
    assert coco["left_eye"][2] > coco["left_ear"][2] + 0.05


def test_first_betas_are_stature_and_weight(neutral):
    def height_and_volume(betas):
        vertices = neutral["v_template"] + neutral["shapedirs"] @ betas
        return np.ptp(vertices[:, 1]), trimesh.Trimesh(vertices, neutral["f"], process=False).volume

    height, volume = height_and_volume(np.zeros(10))
    taller, _ = height_and_volume(np.eye(10)[0])
    heavier_height, heavier = height_and_volume(np.eye(10)[1])
    assert 0.04 < taller - height < 0.15
    assert heavier > 1.1 * volume
    assert abs(heavier_height - height) < 0.04


def test_pose_blend_keeps_the_rest_pose_and_most_entries_are_zero(neutral):
    body = load_open_body()
    rest = body(BodyParameters.rest()).vertices_m.numpy()
    np.testing.assert_allclose(rest, neutral["v_template"], atol=1e-5)
    assert 0.01 < (neutral["posedirs"] != 0).mean() < 0.1


def test_all_genders_share_one_mesh(neutral):
    for gender in ("male", "female"):
        with np.load(open_body_path(gender), allow_pickle=False) as other:
            np.testing.assert_array_equal(other["f"], neutral["f"])
            np.testing.assert_array_equal(other["weights"], neutral["weights"])


def test_smplx_loads_it_unchanged(arrays):
    smplx = pytest.importorskip("smplx", reason="the reference implementation is an optional extra")
    reference = smplx.SMPL(model_path="", data_struct=smplx.utils.Struct(**arrays))
    pose = 0.3 * torch.randn(1, 24, 3, generator=torch.Generator().manual_seed(1))
    betas = torch.linspace(-2, 2, 10)[None]
    output = reference(betas=betas, body_pose=pose[:, 1:].flatten(1), global_orient=pose[:, 0])
    assert output.vertices.shape == (1, len(arrays["v_template"]), 3)
    from body_models.smpl import SmplBody

    ours = SmplBody.from_arrays(arrays)(BodyParameters.from_rotvec(pose, betas))
    np.testing.assert_allclose(output.vertices.detach(), ours.vertices_m, atol=1e-5)


@pytest.mark.parametrize("skeleton", SKELETONS, ids=lambda skeleton: skeleton.name)
def test_regressor_loads_and_applies(skeleton):
    regressor = load_open_body_regressor(skeleton.name)
    joints = regressor(load_open_body().v_template)
    assert joints.shape == (17, 3)
    assert len(regressor.support) <= 300
    left_hip = joints[skeleton.index("left_hip")]
    assert left_hip[0] > 0


def test_unknown_names_are_refused_with_the_choices():
    with pytest.raises(ValueError, match="no open body called 'mael': choose one of female, male, neutral"):
        open_body_path("mael")
    with pytest.raises(ValueError, match="choose one of"):
        open_body_path("../open_body/neutral")
    with pytest.raises(ValueError, match="no regressor for the skeleton 'body_25': choose one of h36m_17"):
        load_open_body_regressor("body_25")


def test_notice_is_shipped():
    notice = (open_body_path().parent / "NOTICE").read_text()
    assert "CC0" in notice
    assert "Apache" in notice
