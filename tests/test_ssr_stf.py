"""The backbone: sizes, any clip length, every choice, and the parts that are ours against naive twins."""

import functools
import inspect
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from multiply_adds import count_multiply_adds
from omegaconf import OmegaConf
from torch import Tensor

from core.settings import require_choice
from core.skeleton import H36M_17, SMPL_24
from core.ssr_stf.frame_context import WindowedFrameContext
from core.ssr_stf.lifting import LiftingHead
from core.ssr_stf.model import SsrStf, stretch_to_length

CONFIGS = Path(__file__).resolve().parents[1] / "configs"

# docs/ssr_stf.md, "Sizes": (size, layout, select) → as printed there, and exactly: parameters (M) and multiply-
# adds (G) in modules and with attention products, of one clip of the length below, lifting head included.
PUBLISHED_SIZES = {
    ("xs", "joint", "lsk"): ((1.83, 0.82, 0.86), (1_830_435, 824_165_712, 855_186_768)),
    ("xs", "joint", "lska"): ((1.80, 0.81, 0.84), (1_802_715, 811_805_760, 842_826_816)),
    ("xs", "st", "lsk"): ((2.41, 1.08, 1.11), (2_405_547, 1_082_843_424, 1_113_864_480)),
    ("s", "joint", "lsk"): ((3.93, 5.31, 5.76), (3_930_259, 5_310_824_616, 5_759_924_904)),
    ("s", "joint", "lska"): ((3.87, 5.23, 5.68), (3_870_199, 5_230_484_928, 5_679_585_216)),
    ("s", "st", "lsk"): ((5.18, 6.99, 7.44), (5_176_335, 6_992_229_744, 7_441_330_032)),
    ("b", "joint", "lsk"): ((9.51, 38.9, 43.3), (9_512_963, 38_921_290_560, 43_320_640_320)),
    ("b", "joint", "lska"): ((9.38, 38.4, 42.8), (9_376_675, 38_366_877_312, 42_766_227_072)),
    ("b", "st", "lsk"): ((12.56, 51.4, 55.8), (12_556_131, 51_365_581_056, 55_764_930_816)),
    ("l", "joint", "lsk"): ((15.41, 63.1, 70.2), (15_414_483, 63_072_934_200, 70_221_877_560)),
    ("l", "joint", "lska"): ((15.19, 62.2, 69.3), (15_193_015, 62_172_012_672, 69_320_956_032)),
    ("l", "st", "lsk"): ((20.36, 83.3, 90.4), (20_359_631, 83_294_906_256, 90_443_849_616)),
}
# The same table's last column: size → as printed, and exactly.
RECOMMENDED_SIZES = {
    "xs": ((3.10, 0.82, 0.86), (3_098_947, 824_103_568, 855_124_624)),
    "s": ((5.20, 5.32, 5.77), (5_199_667, 5_321_012_072, 5_770_112_360)),
    "b": ((10.97, 38.9, 43.3), (10_972_515, 38_930_748_864, 43_330_098_624)),
    "l": ((16.88, 63.1, 70.3), (16_875_315, 63_122_205_624, 70_271_148_984)),
}
PUBLISHED_NUM_FRAMES = {"xs": 27, "s": 81, "b": 243, "l": 243}
PUBLISHED_CONFIGS = [f"ssr_stf_{size}_published" for size in PUBLISHED_NUM_FRAMES]
CONFIG_NAMES = sorted(path.stem for path in (CONFIGS / "backbone").glob("ssr_stf_*.yaml"))


@functools.cache
def backbone_config(name: str, *overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose(overrides=[f"+backbone={name}", *(f"backbone.{override}" for override in overrides)])
    return OmegaConf.to_container(config.backbone)


def tiny(seed: int = 0, preset: str = "ssr_stf_xs", **changes: object) -> SsrStf:
    """A preset at a size that runs in milliseconds."""
    settings = {key: value for key, value in backbone_config(preset).items() if key != "_target_"}
    settings |= {"dim": 16, "num_blocks": 2, "num_heads": 2, "dim_representation": 24}
    settings |= {"context_dim": 32, "context_channels": 16, "context_blocks": 1}
    torch.manual_seed(seed)
    return SsrStf(**(settings | changes)).eval()


def clips(num_clips: int, num_frames: int, num_joints: int = 17) -> Tensor:
    return torch.randn(num_clips, num_frames, num_joints, 3, generator=torch.Generator().manual_seed(0))


def measure_size(config: dict[str, Any], num_frames: int) -> tuple[int, int, int]:
    """Parameters and both multiply-add counts of a backbone with its lifting head."""
    with torch.device("meta"):
        model = instantiate(config)
        head = LiftingHead(dim_representation=model.dim_representation)
    num_parameters = sum(p.numel() for module in (model, head) for p in module.parameters())
    return num_parameters, *count_multiply_adds(model, num_frames, head)


def size_by_extrapolation(config: dict[str, Any], num_frames: int) -> tuple[int, ...]:
    """All blocks are alike: one and two of them give the numbers of N in a fraction of the time."""
    one, two = (measure_size(config | {"num_blocks": n}, num_frames) for n in (1, 2))
    return tuple(a + (config["num_blocks"] - 1) * (b - a) for a, b in zip(one, two, strict=True))


def assert_size(
    size: str, measured: tuple[int, ...], expected: tuple[tuple[float, ...], tuple[int, ...]]
) -> None:
    printed, exact = expected
    assert measured == exact
    digits = (2, 2, 2) if size in ("xs", "s") else (2, 1, 1)
    units = (1e6, 1e9, 1e9)
    assert tuple(round(n / unit, d) for n, unit, d in zip(measured, units, digits, strict=True)) == printed


@pytest.mark.parametrize(("size", "layout", "select"), list(PUBLISHED_SIZES))
def test_parameters_and_multiply_adds_of_the_published_sizes(size: str, layout: str, select: str) -> None:
    config = backbone_config(f"ssr_stf_{size}_published", f"ssr_layout={layout}", f"ssr_select={select}")
    whole = size_by_extrapolation(config, PUBLISHED_NUM_FRAMES[size])
    assert_size(size, whole, PUBLISHED_SIZES[size, layout, select])


@pytest.mark.parametrize("size", list(RECOMMENDED_SIZES))
def test_parameters_and_multiply_adds_of_the_recommended_sizes(size: str) -> None:
    whole = size_by_extrapolation(backbone_config(f"ssr_stf_{size}"), PUBLISHED_NUM_FRAMES[size])
    assert_size(size, whole, RECOMMENDED_SIZES[size])


@pytest.mark.slow
@pytest.mark.parametrize(("size", "layout", "select"), list(PUBLISHED_SIZES))
def test_published_sizes_with_every_block_built(size: str, layout: str, select: str) -> None:
    config = backbone_config(f"ssr_stf_{size}_published", f"ssr_layout={layout}", f"ssr_select={select}")
    assert_size(size, measure_size(config, PUBLISHED_NUM_FRAMES[size]), PUBLISHED_SIZES[size, layout, select])


def test_multiply_adds_count_leaves_the_model_alone() -> None:
    model = tiny(frame_context="none")
    before = model(clips(1, 9))
    short, long = count_multiply_adds(model, 9), count_multiply_adds(model, 18)
    assert long.modules == 2 * short.modules
    assert long.with_attention - long.modules > 2 * (short.with_attention - short.modules)
    torch.testing.assert_close(model(clips(1, 9)), before, atol=0, rtol=0)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("name", CONFIG_NAMES)
def test_every_config_builds_a_backbone(name: str) -> None:
    config = backbone_config(name)
    arguments = set(inspect.signature(SsrStf).parameters)
    assert set(config) == arguments | {"_target_"}
    with torch.device("meta"):
        model = instantiate(config | {"num_blocks": 1})
        assert model(torch.empty(2, 9, 17, 3)).shape == (2, 9, 17, config["dim_representation"])


@pytest.mark.parametrize("name", PUBLISHED_CONFIGS)
def test_published_preset_has_nothing_of_our_own(name: str) -> None:
    config = backbone_config(name)
    wanted = {
        "temporal_position": "none",
        "frame_context": "none",
        "joint_op": "index",
        "layer_scale_init": 1e-5,
    }
    wanted |= {"joint_embedding_std": 0, "fusion": "adaptive", "ssr_layout": "joint", "ssr_gate": "mul"}
    assert config | wanted == config


def test_every_argument_is_keyword_only_and_without_a_default() -> None:
    for parameter in inspect.signature(SsrStf).parameters.values():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.default is inspect.Parameter.empty


@torch.no_grad()
def test_tanh_bounds_the_features() -> None:
    keypoints = 10 * clips(2, 9)
    assert tiny(representation_activation="tanh")(keypoints).abs().max() <= 1
    assert tiny(representation_activation="none")(keypoints).abs().max() > 1


@pytest.mark.parametrize("shortcut", [False, True])
@torch.no_grad()
def test_without_active_blocks_the_context_alone_is_the_model(shortcut: bool) -> None:
    model = tiny(frame_context="residual_mlp", context_shortcut=shortcut)
    keypoints = clips(2, 9)
    with_trunk = model(keypoints)
    model.num_active_blocks = 0
    alone = model(keypoints)
    for parameter in model.blocks.parameters():
        parameter.fill_(float("nan"))
    assert torch.equal(model(keypoints), alone)
    # The trunk refines; beside a shortcut it joins more gently still.
    assert (with_trunk - alone).abs().mean() < (0.2 if shortcut else 1.0) * alone.abs().mean()


@pytest.mark.parametrize(
    ("context", "shortcut"),
    [("none", False), ("linear", False), ("mirror_mlp", False), ("mirror_mlp", True)],
)
def test_the_trunk_is_what_the_features_can_pass_by(context: str, shortcut: bool) -> None:
    """Parameters without a gradient while no block is active; they may learn at a rate of their own."""
    model = tiny(frame_context=context, context_shortcut=shortcut)
    model.num_active_blocks = 0
    model(clips(2, 9)).square().sum().backward()
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    trunk = set(model.trunk_parameters())
    if context == "mirror_mlp":
        named = [name for name, parameter in model.named_parameters() if parameter in trunk]
        assert set(idle) - {"context.to_tokens.weight", "context.to_tokens.bias"} == set(named)
    else:
        assert not trunk


@pytest.mark.parametrize("context", ["none", "linear"])
def test_a_shortcut_around_the_blocks_needs_an_mlp_that_makes_the_context(context: str) -> None:
    with pytest.raises(
        ValueError, match=rf"frame_context={context} there is none; give residual_mlp or mirror"
    ):
        tiny(frame_context=context, context_shortcut=True)


@pytest.mark.parametrize("position", ["none", "learned", "rotary"])
@pytest.mark.parametrize("frame_context", ["none", "linear", "residual_mlp"])
@torch.no_grad()
def test_one_set_of_weights_takes_any_clip_length(position: str, frame_context: str) -> None:
    model = tiny(temporal_position=position, frame_context=frame_context, num_learned_positions=20)
    for num_frames in (1, 2, 9, 31, 70):
        features = model(clips(2, num_frames))
        assert features.shape == (2, num_frames, 17, 24)
        assert features.isfinite().all()
    assert (
        model.state_dict().keys()
        == tiny(temporal_position=position, frame_context=frame_context).state_dict().keys()
    )


@pytest.mark.parametrize("preset", ["ssr_stf_xs", "ssr_stf_xs_published"])
@torch.no_grad()
def test_clips_of_a_batch_do_not_see_each_other(preset: str) -> None:
    model = tiny(preset=preset, layer_scale_init=0.5).double()
    batch = clips(3, 9).double()
    alone = torch.cat([model(clip[None]) for clip in batch])
    torch.testing.assert_close(model(batch), alone, atol=1e-12, rtol=0)


CHOICES = {
    "temporal_position": ["none", "learned", "rotary"],
    "frame_context": ["none", "linear", "residual_mlp", "mirror_mlp"],
    "context_shortcut": [False, True],
    "ssr_layout": ["joint", "st", "none"],
    "ssr_select": ["lsk", "hlk", "lska", "token_softmax", "none"],
    "ssr_gate": ["mul", "none"],
    "joint_op": ["index", "hop"],
    "temporal_kernel": [7, 11, 23, 35],
    "joint_kernel": [7, 11, 23, 35],
    "temporal_padding": ["zeros", "replicate"],
    "fusion": ["adaptive", "per_channel", "mean", "concat"],
    "attention_kernel": ["auto", "sdpa", "matmul"],
    "dropout": [0.1],
    "drop_path": [0.5],
    "joint_embedding_std": [0.0, 1.0],
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in CHOICES.items() for value in values]
)
@pytest.mark.parametrize("preset", ["ssr_stf_xs", "ssr_stf_xs_published"])
def test_every_choice_runs_and_every_parameter_learns(key: str, value: object, preset: str) -> None:
    with_context = {"frame_context": "mirror_mlp"} if key == "context_shortcut" else {}
    model = tiny(preset=preset, **with_context, **{key: value}).train()
    features = model(clips(3, 9))
    features.square().sum().backward()
    assert features.isfinite().all()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("keypoints", [torch.zeros(1, 5, 17, 3), torch.ones(1, 5, 17, 3) * 1e4])
def test_gradients_are_finite_for_absent_and_for_absurd_keypoints(keypoints: Tensor) -> None:
    keypoints = keypoints.requires_grad_()
    tiny()(keypoints).sum().backward()
    assert keypoints.grad is not None
    assert keypoints.grad.isfinite().all()


@torch.no_grad()
def test_other_skeletons() -> None:
    assert tiny(skeleton="smpl_24")(clips(2, 4, 24)).shape == (2, 4, SMPL_24.num_joints, 24)


@torch.no_grad()
def test_attention_kernels_agree() -> None:
    by_sdpa, by_matmul = tiny(attention_kernel="sdpa").double(), tiny(attention_kernel="matmul").double()
    keypoints = clips(2, 30).double()
    torch.testing.assert_close(by_sdpa(keypoints), by_matmul(keypoints), atol=1e-12, rtol=0)


@torch.no_grad()
def test_state_dict_round_trip() -> None:
    first, second = tiny(seed=1), tiny(seed=2)
    assert (first(clips(1, 9)) - second(clips(1, 9))).abs().max() > 1e-3
    second.load_state_dict(first.state_dict(), strict=True)
    torch.testing.assert_close(second(clips(1, 9)), first(clips(1, 9)), atol=0, rtol=0)


@torch.no_grad()
def test_one_seed_gives_one_model() -> None:
    torch.testing.assert_close(tiny(seed=3)(clips(2, 9)), tiny(seed=3)(clips(2, 9)), atol=0, rtol=0)


@pytest.mark.parametrize("preset", ["ssr_stf_xs", "ssr_stf_xs_published"])
def test_bfloat16_autocast_trains_and_stays_close(preset: str) -> None:
    model = tiny(preset=preset, layer_scale_init=0.1).train()
    wanted = model(clips(2, 9))
    with torch.autocast("cpu", torch.bfloat16):
        features = model(clips(2, 9))
    assert (features.float() - wanted).abs().max() < 0.05
    features.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@torch.no_grad()
def test_pixels_are_seen_in_half_a_precision_too() -> None:
    """Of 2,048 in a row, 0.001 apart from -1 to 1; bfloat16 knows no number between 0.75 and 0.75390625."""
    model = tiny(frame_context="mirror_mlp").eval()
    assert isinstance(model.context, WindowedFrameContext)
    described: list[Tensor] = []
    model.context.encoder.window.register_forward_hook(
        lambda _, __, parts: described.append(torch.cat(parts, -1))
    )
    keypoints = torch.full((2, 9, 17, 3), 0.75)
    keypoints[1, ..., 0] += 0.001
    with torch.autocast("cpu", torch.bfloat16):
        features = [model.tokens(keypoints, None)]
        model(keypoints)
    for seen in features + described:
        assert seen.dtype == torch.float32
        assert (seen[0] - seen[1]).abs().max() > 1e-5


@torch.no_grad()
def test_a_symmetric_backbone_commutes_with_mirroring() -> None:
    """Nothing in the hop form knows left from right; joint embedding, selection map and context would."""
    mirror = list(H36M_17.mirror_permutation)
    settings = {
        "joint_embedding_std": 0.0,
        "frame_context": "none",
        "ssr_select": "hlk",
        "layer_scale_init": 0.5,
    }
    keypoints = clips(2, 9).double()
    hop = tiny(joint_op="hop", **settings).double()
    torch.testing.assert_close(hop(keypoints[:, :, mirror]), hop(keypoints)[:, :, mirror], atol=1e-12, rtol=0)
    index = tiny(joint_op="index", **settings).double()
    assert (index(keypoints[:, :, mirror]) - index(keypoints)[:, :, mirror]).abs().max() > 1e-3


@torch.no_grad()
def test_temporal_position_tells_frames_apart() -> None:
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    settings = {"ssr_layout": "none", "frame_context": "none", "layer_scale_init": 0.5}
    keypoints = clips(2, 9).double()
    blind = tiny(temporal_position="none", **settings).double()
    torch.testing.assert_close(blind(keypoints[:, order]), blind(keypoints)[:, order], atol=1e-12, rtol=0)
    for position in ("learned", "rotary"):
        model = tiny(temporal_position=position, **settings).double()
        assert (model(keypoints[:, order]) - model(keypoints)[:, order]).abs().max() > 1e-4


@torch.no_grad()
def test_learned_positions_for_any_length() -> None:
    table = torch.tensor([[0.0], [1.0], [4.0]])
    assert stretch_to_length(table, 2).flatten().tolist() == [0, 1]
    assert stretch_to_length(table, 3).flatten().tolist() == [0, 1, 4]
    assert stretch_to_length(table, 5).flatten().tolist() == [0, 0.5, 1, 2.5, 4]


@torch.no_grad()
@pytest.mark.parametrize("frame_context", ["linear", "residual_mlp", "mirror_mlp"])
def test_frame_context_shows_a_token_its_whole_frame(frame_context: str) -> None:
    model = tiny(frame_context=frame_context)
    assert model.context is not None
    keypoints = clips(1, 9)
    changed = keypoints.clone()
    changed[0, 4, 3] += 1
    wanted, found = (model.tokens(k, model.context(k)) for k in (keypoints, changed))
    assert ((found - wanted)[0, 4].abs().amax(-1) > 1e-4).all()
    without = tiny(frame_context="none")
    wanted, found = (without.tokens(k, None) for k in (keypoints, changed))
    assert (found - wanted)[0, 4].abs().amax(-1).nonzero().flatten().tolist() == [3]


@torch.no_grad()
@pytest.mark.parametrize("frame_context", ["residual_mlp", "mirror_mlp"])
def test_the_context_of_a_long_clip_blends_what_its_windows_say(frame_context: str) -> None:
    context = tiny(frame_context=frame_context, context_frames=5, context_overlap=2).context
    assert isinstance(context, WindowedFrameContext)
    keypoints = clips(2, 10)
    hann = torch.tensor([math.sin(math.pi * k / 6) ** 2 for k in range(1, 6)])
    total, weight = torch.zeros(2, 10, 16), torch.zeros(10, 1)
    for start in (0, 3, 5):  # three frames on, and the last one flush with the clip's end
        window = slice(start, start + 5)
        total[:, window] += hann[:, None] * context.encoder(keypoints[:, None, window].flatten(3))[:, 0]
        weight[window] += hann[:, None]
    torch.testing.assert_close(context(keypoints), context.norm(total / weight), atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_context_of_a_short_clip_repeats_its_last_frame() -> None:
    context = tiny(frame_context="residual_mlp", context_frames=5, context_overlap=2).context
    assert context is not None
    keypoints = clips(2, 3)
    lengthened = torch.cat((keypoints, keypoints[:, 2:], keypoints[:, 2:]), 1)
    torch.testing.assert_close(context(keypoints), context(lengthened)[:, :3], atol=0, rtol=0)


@torch.no_grad()
def test_active_blocks_are_the_first_ones() -> None:
    deep = tiny(num_blocks=2)
    shallow = tiny(num_blocks=1)
    shallow.load_state_dict({k: v for k, v in deep.state_dict().items() if not k.startswith("blocks.1.")})
    deep.num_active_blocks = 1
    torch.testing.assert_close(deep(clips(1, 9)), shallow(clips(1, 9)), atol=0, rtol=0)


@torch.no_grad()
def test_lifting_head_maps_features_to_joints() -> None:
    assert LiftingHead(dim_representation=24)(tiny()(clips(2, 9))).shape == (2, 9, 17, 3)


def test_unknown_choices_are_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"ssr_select=lks is not a choice; choose one of lsk, none"):
        require_choice("ssr_select", "lks", ("lsk", "none"))
    with pytest.raises(ValueError, match=r"backbone.skeleton=h36m is not a choice; .*h36m_17"):
        tiny(skeleton="h36m")
    with pytest.raises(ValueError, match="context_overlap=9 does not fit context_frames=9"):
        tiny(frame_context="residual_mlp", context_overlap=9)


def test_a_wrong_key_is_named() -> None:
    with pytest.raises(TypeError, match="num_block"):
        tiny(num_block=3)


def test_a_wrong_number_of_joints_is_named() -> None:
    with pytest.raises(ValueError, match="built for 17 joints"):
        tiny()(clips(1, 9, 24))
