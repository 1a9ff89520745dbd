"""Skeleton tables, hops, and conversion between skeletons by landmark."""

import pytest
import torch

from core.skeleton import (
    BODY_25,
    COCO_17,
    H36M_17,
    HALPE_26,
    MPI_INF_17,
    SKELETONS,
    SMPL_24,
    convert_keypoints,
)

SKELETON_LIST = list(SKELETONS.values())
IDS = list(SKELETONS)


@pytest.mark.parametrize("skeleton", SKELETON_LIST, ids=IDS)
def test_tables_are_consistent(skeleton):
    assert int(skeleton.name.split("_")[-1]) == skeleton.num_joints == len(skeleton.parents)
    assert len(skeleton.bones) == skeleton.num_joints - 1
    mirror = skeleton.mirror_permutation
    assert [mirror[i] for i in mirror] == list(range(skeleton.num_joints))
    for i, name in enumerate(skeleton.joint_names):
        is_sided = name.startswith(("left_", "right_"))
        assert (mirror[i] != i) == is_sided
        # The mirror image of a bone is a bone.
        parent = skeleton.parents[i]
        assert skeleton.parents[mirror[i]] == (mirror[parent] if parent >= 0 else -1)


@pytest.mark.parametrize("skeleton", SKELETON_LIST, ids=IDS)
def test_hop_distances_equal_powers_of_the_adjacency_matrix(skeleton):
    hops = torch.tensor(skeleton.hop_distances())
    adjacency = torch.eye(skeleton.num_joints, dtype=torch.long)
    for parent, child in skeleton.bones:
        adjacency[parent, child] = adjacency[child, parent] = 1
    reached = torch.eye(skeleton.num_joints, dtype=torch.long)
    naive = torch.where(reached > 0, 0, -1)
    for step in range(1, skeleton.num_joints):
        reached = ((reached @ adjacency) > 0).long()
        naive = torch.where((naive < 0) & (reached > 0), step, naive)
    assert torch.equal(hops, naive)


def test_orders_that_other_code_relies_on():
    mirror = list(range(17))
    for left, right in zip((4, 5, 6, 11, 12, 13), (1, 2, 3, 14, 15, 16), strict=True):
        mirror[left], mirror[right] = right, left
    assert H36M_17.mirror_permutation == tuple(mirror)
    assert SMPL_24.parents == (
        -1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21,
    )  # fmt: skip
    assert MPI_INF_17.parents[14] == -1
    assert BODY_25.parents[8] == -1


def test_unknown_joint_names_the_skeleton_and_its_joints():
    with pytest.raises(ValueError, match=r"'coco_17' has no joint 'pelvis'.*left_hip"):
        COCO_17.index("pelvis")


@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
def test_halpe_to_h36m_is_the_documented_mapping(batch):
    keypoints, confidence = torch.randn(*batch, 26, 2), torch.rand(*batch, 26) + 0.01
    converted = convert_keypoints(keypoints, confidence, HALPE_26, H36M_17)
    mapping = [19, 12, 14, 16, 11, 13, 15, None, 18, 0, 17, 5, 7, 9, 6, 8, 10]
    for target, source in enumerate(mapping):
        if source is not None:
            assert torch.equal(converted.keypoints[..., target, :], keypoints[..., source, :])
            assert torch.equal(converted.confidence[..., target], confidence[..., source])
    torch.testing.assert_close(
        converted.keypoints[..., 7, :], (keypoints[..., 18, :] + keypoints[..., 19, :]) / 2
    )
    assert torch.equal(converted.confidence[..., 7], torch.minimum(confidence[..., 18], confidence[..., 19]))
    assert converted.derived_joints == ("spine",)
    assert converted.missing_joints == ()


@pytest.mark.parametrize("skeleton", SKELETON_LIST, ids=IDS)
def test_conversion_to_itself_is_exact(skeleton):
    keypoints, confidence = torch.randn(4, skeleton.num_joints, 3), torch.rand(4, skeleton.num_joints) + 0.1
    converted = convert_keypoints(keypoints, confidence, skeleton, skeleton)
    assert torch.equal(converted.keypoints, keypoints)
    assert torch.equal(converted.confidence, confidence)
    assert converted.derived_joints == converted.missing_joints == ()


@pytest.mark.parametrize("target", SKELETON_LIST, ids=IDS)
@pytest.mark.parametrize("source", SKELETON_LIST, ids=IDS)
def test_every_pair_moves_with_the_body(source, target):
    """Derived points are affine combinations: a shift of the body shifts them all."""
    keypoints, confidence = torch.randn(3, source.num_joints, 2).double(), torch.ones(3, source.num_joints)
    shift = torch.tensor([10.0, -20.0]).double()
    here = convert_keypoints(keypoints, confidence, source, target)
    there = convert_keypoints(keypoints + shift, confidence, source, target)
    missing = [target.index(name) for name in here.missing_joints]
    expected = here.keypoints + shift
    expected[:, missing] = 0.0
    torch.testing.assert_close(there.keypoints, expected)
    unseen = [i for i in range(target.num_joints) if not bool((here.confidence[:, i] > 0).all())]
    assert unseen == missing


@pytest.mark.parametrize("target", SKELETON_LIST, ids=IDS)
@pytest.mark.parametrize("source", SKELETON_LIST, ids=IDS)
def test_mirroring_commutes_with_conversion(source, target):
    keypoints, confidence = torch.randn(2, source.num_joints, 2), torch.rand(2, source.num_joints) + 0.1
    mirror = source.mirror_permutation
    converted = convert_keypoints(keypoints, confidence, source, target)
    of_mirrored = convert_keypoints(keypoints[:, mirror], confidence[:, mirror], source, target)
    torch.testing.assert_close(of_mirrored.keypoints, converted.keypoints[:, target.mirror_permutation])
    torch.testing.assert_close(of_mirrored.confidence, converted.confidence[:, target.mirror_permutation])


def test_same_name_of_different_landmarks_is_not_copied():
    """SMPL's head is the base of the skull, Human3.6M's its top, MPI-INF's its middle."""
    converted = convert_keypoints(torch.randn(24, 3), torch.ones(24), SMPL_24, H36M_17)
    assert set(converted.missing_joints) == {"nose", "head"}
    assert converted.confidence[H36M_17.index("head")] == 0
    mpi = torch.randn(17, 3)
    converted = convert_keypoints(mpi, torch.ones(17), MPI_INF_17, H36M_17)
    assert torch.equal(converted.keypoints[H36M_17.index("head")], mpi[MPI_INF_17.index("head_top")])
    assert torch.equal(converted.keypoints[H36M_17.index("nose")], mpi[MPI_INF_17.index("head")])
    assert "nose" in converted.derived_joints


def test_coco_head_top_lies_beyond_the_ears_and_is_trusted_less():
    keypoints, confidence = torch.zeros(17, 2), torch.full((17,), 0.8)
    keypoints[[5, 6]] = torch.tensor([[20.0, 100.0], [-20.0, 100.0]])  # shoulders
    keypoints[[3, 4]] = torch.tensor([[8.0, 50.0], [-8.0, 50.0]])  # ears
    head = H36M_17.index("head")
    converted = convert_keypoints(keypoints, confidence, COCO_17, H36M_17)
    torch.testing.assert_close(converted.keypoints[head], torch.tensor([0.0, 50.0 - 0.68 * 50.0]))
    assert 0 < converted.confidence[head] < 0.8
    assert {"pelvis", "thorax", "spine", "head"} == set(converted.derived_joints)

    confidence[4] = 0.0  # one ear unseen: the other stands in, trusted still less
    one_ear = convert_keypoints(keypoints, confidence, COCO_17, H36M_17)
    assert 0 < one_ear.confidence[head] < converted.confidence[head]
    confidence[3] = 0.0
    no_ear = convert_keypoints(keypoints, confidence, COCO_17, H36M_17)
    assert no_ear.confidence[head] == 0
    assert no_ear.keypoints[head].tolist() == [0.0, 0.0]


def test_a_joint_derived_from_an_unseen_one_is_unseen():
    confidence = torch.ones(17)
    confidence[COCO_17.index("left_hip")] = 0
    converted = convert_keypoints(torch.randn(17, 2), confidence, COCO_17, H36M_17)
    unseen = {name for name, c in zip(H36M_17.joint_names, converted.confidence, strict=True) if c == 0}
    assert unseen == {"left_hip", "pelvis", "spine"}


def test_wrong_number_of_joints_is_named():
    with pytest.raises(ValueError, match="17 joints cannot be of skeleton 'halpe_26', which has 26"):
        convert_keypoints(torch.zeros(17, 2), torch.zeros(17), HALPE_26, H36M_17)
