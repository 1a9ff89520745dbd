from dataclasses import fields, replace

import pytest
import torch

from body_models.parameters import BodyParameters
from core.rotations import rotvec_to_rotmat
from mesh_head.losses import MeshLoss, MeshTarget
from mesh_head.supervision import BodyPoints

_NAMES = [field.name for field in fields(MeshLoss)]
NOTHING = MeshLoss(**dict.fromkeys(_NAMES, 0.0))


def _parameters(seed: int) -> BodyParameters:
    generator = torch.Generator().manual_seed(seed)
    rotmat = rotvec_to_rotmat(torch.randn(2, 4, 24, 3, generator=generator))
    return BodyParameters(
        rotmat[..., 0, :, :],
        rotmat[..., 1:, :, :],
        torch.randn(2, 1, 10, generator=generator),
        torch.zeros(2, 4, 3),
    )


def _points(seed: int) -> BodyPoints:
    generator = torch.Generator().manual_seed(seed)
    return BodyPoints(
        torch.randn(2, 4, 17, 3, generator=generator), torch.randn(2, 4, 5, 3, generator=generator)
    )


@pytest.mark.parametrize("name", _NAMES)
def test_a_term_without_weight_is_not_computed(name: str) -> None:
    loss = replace(NOTHING, **{name: 2.0})
    terms = loss.terms(_parameters(0), _points(0), MeshTarget(_parameters(1), _points(1)))
    assert list(terms) == [name]
    assert terms[name] > 0
    torch.testing.assert_close(loss.total(terms), 2 * terms[name])


def test_perfect_prediction_has_no_loss_but_that_of_its_size() -> None:
    loss = MeshLoss(**dict.fromkeys(_NAMES, 1.0))
    target = MeshTarget(_parameters(0), _points(0))
    terms = loss.terms(_parameters(0), _points(0), target)
    size = terms.pop("betas_size")
    torch.testing.assert_close(size, _parameters(0).betas.square().mean())
    assert all(value < 1e-5 for value in terms.values())


def test_terms_by_hand() -> None:
    loss = replace(NOTHING, joints=1.0, velocity=1.0, vertices=1.0)
    true = _points(0)
    # Joints off by 5 cm everywhere move as they should; vertices off by 1 cm.
    predicted = BodyPoints(
        true.joints_m + torch.tensor([0.03, 0.04, 0]), true.vertices_m + torch.tensor([0.01, 0, 0])
    )
    terms = loss.terms(_parameters(0), predicted, MeshTarget(_parameters(0), true))
    torch.testing.assert_close(terms["joints"], torch.tensor(0.05), atol=1e-6, rtol=0)
    torch.testing.assert_close(terms["vertices"], torch.tensor(0.01), atol=1e-6, rtol=0)
    assert terms["velocity"] < 1e-5


def test_one_joint_in_one_frame_by_hand() -> None:
    """3 cm away: one joint of 17 in one frame of 4, in two displacements of 3."""
    true = _points(0)
    joints_m = true.joints_m.clone()
    joints_m[:, 1, 5, 0] -= 0.03
    vertices_m = true.vertices_m.clone()
    vertices_m[:, 1, 2, 0] -= 0.03
    loss = replace(NOTHING, joints=1.0, velocity=1.0, vertices=1.0)
    target = MeshTarget(_parameters(0), true)
    terms = loss.terms(_parameters(0), BodyPoints(joints_m, vertices_m), target)
    expected = {"joints": 0.03 / (4 * 17), "velocity": 0.03 * 2 / (3 * 17), "vertices": 0.03 / (4 * 5)}
    # The distance of what is exact is 1e-6.
    assert {name: float(value) for name, value in terms.items()} == pytest.approx(expected, abs=2e-6)


def test_one_entry_by_hand() -> None:
    true = _parameters(0)
    predicted = replace(
        true,
        root_rotmat=true.root_rotmat.clone(),
        body_rotmat=true.body_rotmat.clone(),
        betas=true.betas.clone(),
    )
    predicted.root_rotmat[1, 2, 0, 1] -= 0.2
    predicted.body_rotmat[1, 2, 7, 0, 1] -= 0.2
    predicted.betas[1, 0, 3] -= 0.2
    loss = replace(NOTHING, root_rotation=1.0, body_rotation=1.0, betas=1.0)
    terms = loss.terms(predicted, _points(0), MeshTarget(true, _points(0)))
    expected = {
        "root_rotation": 0.2 / (2 * 4 * 9),
        "body_rotation": 0.2 / (2 * 4 * 23 * 9),
        "betas": 0.2 / 20,
    }
    assert {name: float(value) for name, value in terms.items()} == pytest.approx(expected, rel=1e-4)


def test_single_frames_have_no_velocity() -> None:
    loss = replace(NOTHING, joints=1.0, velocity=1.0)
    predicted, true = (
        BodyPoints(*(x[:, :1] for x in (p.joints_m, p.vertices_m))) for p in (_points(0), _points(1))
    )
    terms = loss.terms(_parameters(0), predicted, MeshTarget(None, true))
    assert list(terms) == ["joints"]
    assert loss.total(terms).isfinite()


def test_nothing_to_learn_is_said() -> None:
    terms = replace(NOTHING, vertices=1.0).terms(
        _parameters(0),
        _points(0),
        MeshTarget(None, BodyPoints(torch.zeros(2, 4, 17, 3), torch.zeros(2, 4, 0, 3))),
    )
    with pytest.raises(ValueError, match="so there is nothing to learn"):
        NOTHING.total(terms)


def test_gradients_are_finite_at_a_perfect_prediction() -> None:
    loss = replace(NOTHING, joints=1.0, velocity=1.0)
    true = _points(0)
    joints = true.joints_m.clone().requires_grad_()
    terms = loss.terms(_parameters(0), BodyPoints(joints, true.vertices_m), MeshTarget(_parameters(0), true))
    loss.total(terms).backward()
    assert joints.grad is not None
    assert joints.grad.isfinite().all()
