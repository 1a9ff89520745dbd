"""Muon for the matrices between hidden layers, AdamW for everything else, as one optimiser.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024,
https://kellerjordan.github.io/posts/muon); the size of a step after Liu et al., "Muon is Scalable for LLM
Training" (arXiv 2502.16982, section 2.2). `torch.optim.Muon` takes matrices alone and one at a time; here those of
one shape are orthogonalised together: faster where there are many small ones (`tools/bench.py optimiser`).
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.adamw import adamw

_MOMENTUM = 0.95
# Of the Newton-Schulz iteration: chosen by Jordan et al. for speed, they bring singular values to about 0.7 to 1.2.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
# Root mean square of an AdamW step, in learning rates, so that one rate and one weight decay suit both.
_STEP_SIZE = 0.2
_LEAST_SIDE = 8  # of a matrix whose directions are worth making orthogonal


class MuonWithAdamW(torch.optim.Optimizer):
    """Steps every group by one of the two, as its key `muon` says.

    Args:
        groups: parameter groups with `muon`, true for matrices that Muon trains, and where they differ from the
            defaults `lr` and `weight_decay` (decoupled).
        lr: learning rate.
        betas: of AdamW.
        eps: of AdamW.

    Raises:
        ValueError: Muon is to train something else than matrices.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float = 1e-8,
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0, "muon": False})
        for group in self.param_groups:
            if group["muon"] and any(parameter.ndim != 2 for parameter in group["params"]):
                raise ValueError("Muon trains matrices alone; leave the rest to AdamW.")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of all parameters that have gradients, after `closure`, if given; returns what that returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            trained = [parameter for parameter in group["params"] if parameter.grad is not None]
            if trained:
                (self._muon_step if group["muon"] else self._adamw_step)(group, trained)
        return loss

    def _muon_step(self, group: dict[str, Any], trained: list[Tensor]) -> None:
        by_shape: dict[torch.Size, list[Tensor]] = {}
        for parameter in trained:
            by_shape.setdefault(parameter.shape, []).append(parameter)
        for shape, parameters in by_shape.items():
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            momenta = []
            for parameter in parameters:
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momenta.append(state["momentum"])
            torch._foreach_lerp_(momenta, gradients, 1 - _MOMENTUM)
            directions = orthogonalise(torch.stack(torch._foreach_lerp(gradients, momenta, _MOMENTUM)))
            learning_rate = group["lr"]
            torch._foreach_mul_(parameters, 1 - learning_rate * group["weight_decay"])
            torch._foreach_add_(
                parameters,
                list(directions.unbind()),
                alpha=-learning_rate * _STEP_SIZE * max(shape) ** 0.5,
            )

    def _adamw_step(self, group: dict[str, Any], trained: list[Tensor]) -> None:
        states = []
        for parameter in trained:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
            # A checkpoint's stays on the CPU when the rest of the state moves to the parameter's device.
            state["step"] = state["step"].to(parameter.device)
            states.append(state)
        beta1, beta2 = group["betas"]
        adamw(
            trained,
            [parameter.grad for parameter in trained if parameter.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def matrices_of_linear_maps(module: nn.Module) -> list[nn.Parameter]:
    """Weights that Muon may train: of all linear maps but those from or to a handful of numbers."""
    weights = [part.get_parameter("weight") for part in module.modules() if isinstance(part, nn.Linear)]
    return [weight for weight in weights if min(weight.shape) >= _LEAST_SIDE]


def orthogonalise(matrices: Float[Tensor, "matrix row column"]) -> Float[Tensor, "matrix row column"]:
    """U V^T of the singular value decomposition U S V^T of each, roughly: with 0.7 to 1.2 in the place of S.

    By Newton-Schulz iteration, in bfloat16 where the device multiplies that at speed; the result is as good.
    """
    a, b, c = _COEFFICIENTS
    x = matrices.to(torch.bfloat16) if _multiplies_bfloat16(matrices.device) else matrices
    is_tall = x.shape[1] > x.shape[2]  # the smaller of both Gram matrices is the cheaper one
    x = x.mT if is_tall else x
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if is_tall else x).to(matrices)


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
