"""Linear maps fused with what follows them, against the same apart."""

import pytest
import torch
import torch.nn.functional as F
from command_fixtures import composed
from hydra.utils import instantiate
from torch import nn

from core.ssr_stf import linear
from core.ssr_stf.linear import Linear, LinearGelu, ResidualLinear, suits_onednn

TOKENS = (2, 250, 17)  # with the channels below, more than ONEDNN_MIN_NUMBERS
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
    assert not fused_calls


def test_what_the_operator_cannot_do_goes_the_plain_way() -> None:
    x = torch.zeros(*TOKENS, 24)
    assert not suits_onednn(x)  # gradients
    with torch.no_grad():
        assert suits_onednn(x)
        assert not suits_onednn(x[:, :10])
        assert not suits_onednn(x.double())
        assert not suits_onednn(x.to("meta"))
        with torch.autocast("cpu", torch.bfloat16):
            assert not suits_onednn(x)
            assert LinearGelu(24, 10)(x).dtype == torch.bfloat16


@pytest.mark.parametrize("preset", ["ssr_stf_tiny", "ssr_stf_xs_published"])
def test_whole_model_is_the_same_with_and_without_gradients(fused_calls: list[str], preset: str) -> None:
    torch.manual_seed(0)
    model: nn.Module = instantiate(
        {
            key: value
            for key, value in composed("train_pose", f"backbone={preset}")["backbone"].items()
            if key != "weights"
        }
    ).eval()
    keypoints = torch.randn(10, 27, 17, 3)
    with torch.no_grad():
        fused = model(keypoints)
    assert {"then gelu", "add", "then none"} <= set(fused_calls)
    torch.testing.assert_close(fused, model(keypoints), atol=2e-5, rtol=1e-5)
