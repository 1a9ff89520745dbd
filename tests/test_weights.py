import json
from pathlib import Path

import pytest
import torch
from command_fixtures import composed
from hydra.utils import instantiate
from safetensors.torch import save_file

from body_models.open_body import load_open_body
from core.ssr_stf.lifting import LiftingHead, LiftingModel, load_lifting_model
from core.weights import BACKBONES, load_part, save_weights
from mesh_head.mesh_recovery import MeshRecovery
from mesh_head.weights import HEADS, load_mesh_model, load_model_for

BACKBONE = {
    "_target_": "core.residual_mlp.ResidualMlp",
    "num_joints": 17,
    "in_channels": 3,
    "num_frames": 5,
    "dim_hidden": 16,
    "num_blocks": 1,
    "dim_representation": 8,
}
HEAD = {
    "_target_": "mesh_head.smpl_head.SmplHead",
    "num_tokens": 1,
    "dim_representation": 8,
    "dim_token": 8,
    "dim_hidden": 16,
    "num_betas": 10,
}
CLIP = {"num_frames": 5, "fps": 30.0}


def _model(backbone: dict = BACKBONE, head: dict = HEAD) -> MeshRecovery:
    parts = [
        known[description["_target_"]](**{k: v for k, v in description.items() if k != "_target_"})
        for known, description in ((BACKBONES, backbone), (HEADS, head))
    ]
    return MeshRecovery(backbone=parts[0], head=parts[1]).eval()


def test_round_trip(tmp_path: Path) -> None:
    model = _model()
    save_weights(tmp_path / "m.safetensors", model, backbone=BACKBONE, head=HEAD, clip=CLIP)
    loaded, clip = load_mesh_model(tmp_path / "m.safetensors")
    assert clip == CLIP
    keypoints = torch.randn(2, 5, 17, 3)
    torch.testing.assert_close(loaded(keypoints).body_rotmat, model(keypoints).body_rotmat, rtol=0, atol=0)
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


@pytest.mark.parametrize("clip", [CLIP, CLIP | {"body_model": "open"}, CLIP | {"body_model": "smpl"}])
def test_betas_of_another_body_model_are_left_out(tmp_path: Path, clip: dict) -> None:
    path, model = tmp_path / "m.safetensors", _model()
    torch.nn.init.normal_(model.head.betas.weight)
    save_weights(path, model, backbone=BACKBONE, head=HEAD, clip=clip)
    loaded, _, remark = load_model_for(path, load_open_body(), mirror_test=False)
    own, found = (any_model(torch.ones(1, 5, 17, 3)) for any_model in (model, loaded))
    torch.testing.assert_close(found.body_rotmat, own.body_rotmat)
    assert own.betas.any()
    if clip.get("body_model") == "smpl":
        assert remark is not None
        assert "trained with the body model smpl; its betas mean nothing to open" in remark
        assert not found.betas.any()
    else:
        assert remark is None
        torch.testing.assert_close(found.betas, own.betas)
    _, _, remark = load_model_for(path, load_open_body(), mirror_test=False, body_gender="female")
    assert ("the female one makes other shapes" in (remark or "")) == (clip.get("body_model") != "smpl")
    assert loaded.head.mean_pose_model()(torch.ones(1, 5, 17, 3)).body_rotmat.shape == (1, 5, 23, 3, 3)


def test_half_precision_file_loads_in_single_precision(tmp_path: Path) -> None:
    model = _model()
    save_weights(
        tmp_path / "m.safetensors", model, backbone=BACKBONE, head=HEAD, clip=CLIP, dtype=torch.float16
    )
    loaded, _ = load_mesh_model(tmp_path / "m.safetensors")
    assert all(value.dtype == torch.float32 for value in loaded.state_dict().values())
    keypoints = torch.randn(2, 5, 17, 3)
    difference = loaded(keypoints).body_rotmat - model(keypoints).body_rotmat
    assert difference.abs().max() < 5e-3


def test_mismatch_names_the_tensors(tmp_path: Path) -> None:
    save_weights(tmp_path / "m.safetensors", _model(), backbone=BACKBONE, head=HEAD, clip=CLIP)
    wider = _model(BACKBONE | {"dim_hidden": 32})
    with pytest.raises(
        ValueError, match=r"embed.weight is \(16, 255\) in the file and \(32, 255\) in the model"
    ):
        load_part(wider.backbone, "backbone", tmp_path / "m.safetensors", BACKBONE | {"dim_hidden": 32})
    deeper = _model(BACKBONE | {"num_blocks": 2})
    with pytest.raises(ValueError, match=r"blocks\.1\..* is missing"):
        load_part(deeper.backbone, "backbone", tmp_path / "m.safetensors", BACKBONE | {"num_blocks": 2})


def test_a_backbone_is_handed_on_as_it_was_configured(tmp_path: Path) -> None:
    """Tensors of the same shapes are not the same model: another overlap of windows reads them otherwise."""
    config = composed("train_pose", "backbone.context_dim=16", "backbone.dim=16")["backbone"]
    del config["weights"]
    backbone = instantiate(config)
    model = LiftingModel(backbone=backbone, head=LiftingHead(dim_representation=config["dim_representation"]))
    path = tmp_path / "m.safetensors"
    save_weights(path, model, backbone=config, head=HEAD, clip=CLIP)
    for key, value in {"context_overlap": 8, "ssr_gate": "none", "num_heads": 2}.items():
        with pytest.raises(
            ValueError, match=rf"trained with backbone\.{key}=.*, not {value}; set it likewise"
        ):
            load_part(backbone, "backbone", path, config | {key: value})
    load_part(backbone, "backbone", path, config | {"dropout": 0.5, "attention_kernel": "matmul"})


def test_bad_files_are_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no weights file .*absent\.safetensors"):
        load_mesh_model(tmp_path / "absent.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"not safetensors at all")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_mesh_model(tmp_path / "broken.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match="does not say what model it is for"):
        load_mesh_model(tmp_path / "foreign.safetensors")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"head": '{"_target'}, "damaged: its header's head cannot be read"),
        ({"clip": "[]"}, r"damaged: its header's clip is \[\]"),
        ({"clip": '{"fps": 30.0}'}, "damaged: its header's clip does not say num_frames"),
        ({"clip": '{"num_frames": "5", "fps": 30.0}'}, r"clip\.num_frames must be a number"),
    ],
)
def test_a_damaged_header_is_said_with_the_file(
    tmp_path: Path, changes: dict[str, str], problem: str
) -> None:
    metadata = {
        key: json.dumps(value) for key, value in zip(("backbone", "head"), (BACKBONE, HEAD), strict=True)
    }
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.zeros(1)}, path, {**metadata, "clip": json.dumps(CLIP), **changes})
    with pytest.raises(ValueError, match=rf"m\.safetensors.*{problem}"):
        load_mesh_model(path)


def test_weights_of_a_run_that_diverged_are_refused(tmp_path: Path) -> None:
    model, path = _model(), tmp_path / "m.safetensors"
    model.head.betas.weight.data[0, 0] = torch.nan
    save_weights(path, model, backbone=BACKBONE, head=HEAD, clip=CLIP)
    with pytest.raises(
        ValueError, match=r"not finite \(head\.betas\.weight\): the run .* diverged; train again"
    ):
        load_mesh_model(path)


def test_lifting_weights_say_what_they_take(tmp_path: Path) -> None:
    head = {"_target_": "core.ssr_stf.lifting.LiftingHead", "dim_representation": 8, "num_tokens": 1}
    built = _model().backbone
    model = LiftingModel(backbone=built, head=LiftingHead(dim_representation=8, num_tokens=1))
    save_weights(tmp_path / "m.safetensors", model, backbone=BACKBONE, head=head, clip=CLIP)
    with pytest.raises(ValueError, match="does not say how keypoints are normalised"):
        load_lifting_model(tmp_path / "m.safetensors")


def test_a_file_cannot_name_a_class_of_its_own_choice(tmp_path: Path) -> None:
    metadata = {
        "backbone": json.dumps({"_target_": "os.system", "command": "true"}),
        "head": json.dumps(HEAD),
        "clip": json.dumps(CLIP),
    }
    save_file({"a": torch.zeros(1)}, tmp_path / "evil.safetensors", metadata)
    with pytest.raises(ValueError, match=r"class 'os\.system', which is not one of"):
        load_mesh_model(tmp_path / "evil.safetensors")


def test_unknown_arguments_are_explained(tmp_path: Path) -> None:
    metadata = {
        "backbone": json.dumps(BACKBONE | {"flux": 1}),
        "head": json.dumps(HEAD),
        "clip": json.dumps(CLIP),
    }
    save_file({"a": torch.zeros(1)}, tmp_path / "newer.safetensors", metadata)
    with pytest.raises(ValueError, match=r"this version cannot build.*flux"):
        load_mesh_model(tmp_path / "newer.safetensors")
