"""Linear maps fused with what follows them, against the same apart; LayerScale and what is dropped."""

import pytest
import torch
import torch.nn.functional as F
from command_fixtures import composed
from hydra.utils import instantiate
from torch import nn

from core import linear
from core.linear import Linear, LinearGelu, ResidualLinear, residual_mlp, suits_onednn

TOKENS = (10, 500, 17)  # with the channels below, more than ONEDNN_MIN_MULTIPLY_ADDS
OPERATOR = linear._onednn_linear


@pytest.fixture
def fused_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the fused calls made; skips where oneDNN has none."""
    if linear._onednn_linear is None:
        pytest.skip("this torch has no oneDNN linear map")
    calls: list[str] = []

    class Recording:
        def __call__(self, *arguments: object) -> object:
            calls.append(f"then {arguments[3]}")
            return OPERATOR(*arguments)

        def binary(self, *arguments: object) -> object:
            calls.append("add")
            return OPERATOR.binary(*arguments)

    monkeypatch.setattr(linear, "_onednn_linear", Recording())
    return calls


@torch.no_grad()
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_fused_equals_apart(fused_calls: list[str], bias: bool, transposed: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(*TOKENS, 24)
    x = x.transpose(1, 2) if transposed else x
    plain, gelu = Linear(24, 10, bias=bias), LinearGelu(24, 10, bias=bias)
    torch.testing.assert_close(plain(x), F.linear(x, plain.weight, plain.bias), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(gelu(x), F.gelu(F.linear(x, gelu.weight, gelu.bias)), atol=1e-6, rtol=1e-6)
    assert fused_calls == ["then none", "then gelu"]


@torch.no_grad()
@pytest.mark.parametrize("training", [False, True])
def test_fused_residual_equals_apart(fused_calls: list[str], training: bool) -> None:
    torch.manual_seed(0)
    module = ResidualLinear(24, 10, layer_scale_init=0.3, dropout=0.0, drop_path=0.0).train(training)
    x, h = torch.randn(*TOKENS, 10), torch.randn(*TOKENS, 24)
    kept = x.clone()
    wanted = x + 0.3 * F.linear(h, module.weight, module.bias)
    torch.testing.assert_close(module(x, h), wanted, atol=1e-6, rtol=1e-6)
    assert torch.equal(x, kept)
    assert fused_calls == ["add"]


def test_dropping_is_not_fused(fused_calls: list[str]) -> None:
    module = ResidualLinear(24, 10, layer_scale_init=0.3, dropout=0.5, drop_path=0.0)
    x, h = torch.zeros(*TOKENS, 10), torch.ones(*TOKENS, 24)
    with torch.no_grad():
        assert (module(x, h) == 0).any()
    assert "add" not in fused_calls


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", [Linear, LinearGelu])
def test_gradients_are_those_of_the_plain_map(fused_calls: list[str], kind: type[Linear], bias: bool) -> None:
    torch.manual_seed(0)
    module = kind(24, 10, bias=bias)
    after = F.gelu if kind is LinearGelu else torch.nn.Identity()
    x = torch.randn(*TOKENS, 24, requires_grad=True)
    upstream = torch.randn(*TOKENS[:2], 10, TOKENS[2]).transpose(2, 3)  # not contiguous
    inputs = [x, *module.parameters()]
    found = torch.autograd.grad(module(x), inputs, upstream)
    wanted = torch.autograd.grad(after(F.linear(x, module.weight, module.bias)), inputs, upstream)
    for own, plain in zip(found, wanted, strict=True):
        torch.testing.assert_close(own, plain, atol=1e-5 * float(plain.abs().max()), rtol=0)
    assert fused_calls == ["then none"] * 2  # forward, and the input's gradient
    (of_weight,) = torch.autograd.grad(module(x.detach()).sum(), [module.weight])  # expanded, first layer
    assert of_weight.shape == module.weight.shape


def test_gradients_through_a_residual_map(fused_calls: list[str]) -> None:
    torch.manual_seed(0)
    module = ResidualLinear(24, 10, layer_scale_init=0.3, dropout=0.0, drop_path=0.0)
    x, h = torch.randn(*TOKENS, 10, requires_grad=True), torch.randn(*TOKENS, 24, requires_grad=True)
    inputs = [x, h, module.weight, module.bias, module.layer_scale]
    upstream = torch.randn(*TOKENS, 10)
    found = torch.autograd.grad(module(x, h), inputs, upstream)
    plain_y = x + module.layer_scale * F.linear(h, module.weight, module.bias)
    wanted = torch.autograd.grad(plain_y, inputs, upstream)
    for own, plain in zip(found, wanted, strict=True):
        torch.testing.assert_close(own, plain, atol=1e-5 * float(plain.abs().max()), rtol=0)
    assert fused_calls == ["add", "then none"]  # forward, and the gradient of h


@pytest.mark.parametrize("first_is_frozen", [False, True])
def test_an_mlp_is_its_maps_one_after_the_other(fused_calls: list[str], first_is_frozen: bool) -> None:
    torch.manual_seed(0)
    expand, project = (
        LinearGelu(10, 24),
        ResidualLinear(24, 10, layer_scale_init=0.3, dropout=0.0, drop_path=0.0),
    )
    expand.requires_grad_(not first_is_frozen)
    x, h = (torch.randn(*TOKENS, 10, requires_grad=not first_is_frozen) for _ in range(2))
    kept, upstream = h.detach().clone(), torch.randn(*TOKENS, 10)
    inputs = [z for z in (x, h, *expand.parameters(), *project.parameters()) if z.requires_grad]
    fused = residual_mlp(x, h, expand=expand, project=project)
    found = torch.autograd.grad(fused, inputs, upstream, retain_graph=True)
    hidden = F.gelu(F.linear(h, expand.weight, expand.bias))
    plain = x + project.layer_scale * F.linear(hidden, project.weight, project.bias)
    torch.testing.assert_close(fused, plain, atol=1e-6, rtol=1e-6)
    for own, wanted in zip(found, torch.autograd.grad(plain, inputs, upstream), strict=True):
        torch.testing.assert_close(own, wanted, atol=1e-5 * float(wanted.abs().max()), rtol=0)
    for own, again in zip(found, torch.autograd.grad(fused, inputs, upstream), strict=True):
        assert torch.equal(own, again)  # what is overwritten in a backward pass is its own
    assert torch.equal(h, kept)
    assert fused_calls[:2] == ["then none", "add"]
    assert fused_calls[2:] == (
        [] if first_is_frozen else ["then none"] * 4
    )  # of the hidden numbers, and of h
    fused_calls.clear()
    with torch.no_grad():
        torch.testing.assert_close(
            residual_mlp(x, h, expand=expand, project=project), plain, atol=1e-6, rtol=1e-6
        )
    assert fused_calls == ["then gelu", "add"]


def test_what_lies_by_channel_is_projected_without_being_transposed(fused_calls: list[str]) -> None:
    torch.manual_seed(0)
    module = ResidualLinear(24, 10, layer_scale_init=0.3, dropout=0.0, drop_path=0.0)
    x = torch.randn(1, 500, 17, 10, requires_grad=True)
    by_channel = torch.randn(24, 500, 1, 17, requires_grad=True)
    h = by_channel.permute(2, 1, 3, 0)
    kept, upstream = x.detach().clone(), torch.randn(1, 500, 17, 10)
    inputs = [x, by_channel, *module.parameters()]
    y = module(x, h)
    plain = x + module.layer_scale * F.linear(h.contiguous(), module.weight, module.bias)
    torch.testing.assert_close(y, plain, atol=1e-6, rtol=1e-6)
    assert y.is_contiguous()
    assert torch.equal(x, kept)
    found = torch.autograd.grad(y, inputs, upstream)
    for own, wanted in zip(found, torch.autograd.grad(plain, inputs, upstream), strict=True):
        torch.testing.assert_close(own, wanted, atol=1e-5 * float(wanted.abs().max()), rtol=0)
    assert found[1].is_contiguous()
    assert not fused_calls
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(module(x, h), y, atol=0.05, rtol=0)


def test_a_second_derivative_is_refused_rather_than_wrong() -> None:
    module, x = Linear(24, 10), torch.randn(*TOKENS, 24, requires_grad=True)
    if not suits_onednn(x, module.weight):
        pytest.skip("this torch has no oneDNN linear map")
    (first,) = torch.autograd.grad(module(x).square().sum(), [x], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_what_the_operator_cannot_do_goes_the_plain_way(fused_calls: list[str]) -> None:
    x, weight = torch.zeros(*TOKENS, 24), torch.zeros(10, 24)
    assert suits_onednn(x, weight)
    assert not suits_onednn(x[:2], weight)
    assert not suits_onednn(x.double(), weight.double())
    assert not suits_onednn(x.to("meta"), weight.to("meta"))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert not suits_onednn(x, weight)
        assert LinearGelu(24, 10)(x).dtype == torch.bfloat16
    assert not fused_calls


@pytest.mark.parametrize("preset", ["ssr_stf_tiny", "ssr_stf_xs_published"])
def test_whole_models_are_those_of_the_plain_way(
    fused_calls: list[str], monkeypatch: pytest.MonkeyPatch, preset: str
) -> None:
    torch.manual_seed(0)
    config = composed("train_pose", f"backbone={preset}")["backbone"]
    del config["weights"]
    model: nn.Module = instantiate(config).eval()
    keypoints = torch.randn(10, 27, 17, 3)
    with torch.no_grad():
        fused = model(keypoints)
    assert {"then gelu", "add", "then none"} <= set(fused_calls)
    trained = model(keypoints)
    gradients = torch.autograd.grad(trained.square().mean(), list(model.parameters()), allow_unused=True)

    monkeypatch.setattr(linear, "ONEDNN_MIN_MULTIPLY_ADDS", float("inf"))
    num_calls = len(fused_calls)
    plain = model(keypoints)
    wanted = torch.autograd.grad(plain.square().mean(), list(model.parameters()), allow_unused=True)
    assert len(fused_calls) == num_calls
    for own in (fused, trained):
        torch.testing.assert_close(own, plain, atol=2e-5, rtol=1e-5)
    for (name, _), found, expected in zip(model.named_parameters(), gradients, wanted, strict=True):
        assert (found is None) == (expected is None)
        if found is not None and expected is not None:
            atol = 1e-4 * float(expected.abs().max()) + 1e-9
            torch.testing.assert_close(
                found, expected, atol=atol, rtol=1e-3, msg=lambda m, name=name: f"{name}: {m}"
            )


def residual_linear(**changes: float) -> ResidualLinear:
    torch.manual_seed(0)
    return ResidualLinear(
        6, 4, **({"layer_scale_init": 0.3, "dropout": 0.0, "drop_path": 0.0} | changes)
    ).double()


@torch.no_grad()
def test_residual_linear_folds_its_layer_scale() -> None:
    module = residual_linear()
    torch.nn.init.normal_(module.layer_scale)
    x, h = torch.randn(2, 3, 5, 4, dtype=torch.float64), torch.randn(2, 3, 5, 6, dtype=torch.float64)
    wanted = x + module.layer_scale * (h @ module.weight.T + module.bias)
    torch.testing.assert_close(module(x, h), wanted, atol=1e-14, rtol=0)


@torch.no_grad()
def test_drop_path_drops_whole_clips_and_keeps_the_mean() -> None:
    module = residual_linear(drop_path=0.25)
    x = torch.zeros(4000, 1, 1, 4, dtype=torch.float64)
    h = torch.ones(4000, 1, 1, 6, dtype=torch.float64)
    branch = module.eval()(x, h)[0]
    dropped = module.train()(x, h)
    is_zero = (dropped == 0).all(-1).flatten()
    torch.testing.assert_close(dropped[~is_zero], (branch / 0.75).expand_as(dropped[~is_zero]))
    assert abs(is_zero.double().mean() - 0.25) < 0.03


@torch.no_grad()
def test_dropout_acts_in_training_only() -> None:
    module = residual_linear(dropout=0.5)
    x, h = torch.zeros(2, 3, 5, 4, dtype=torch.float64), torch.ones(2, 3, 5, 6, dtype=torch.float64)
    assert (module.train()(x, h) == 0).any()
    assert not (module.eval()(x, h) == 0).any()
