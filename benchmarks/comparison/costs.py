"""What a model costs: parameters, multiply-adds, memory, seconds; each side by side with a reference.

Shapes: B clips, T frames, 17 joints.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import time_side_by_side
from core.skeleton import H36M_17

MULTIPLY_ADDS_ARE = (
    "half of torch.utils.flop_counter's count of one clip: matrix products and convolutions, those of attention "
    "included"
)
MEMORY_IS = (
    "the most bytes that tensors made in one forward and backward pass held at once, without the parameters"
)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Of one model; seconds are medians, taken in turns with the reference.

    Attributes:
        num_frames, batch_size: of the clips it was run on.
        forward_ratio, forward_backward_ratio: its seconds over the reference's; None on other clips.
    """

    num_parameters: int
    multiply_adds: int
    peak_memory_bytes: int
    num_frames: int
    batch_size: int
    forward_s: float
    forward_backward_s: float
    forward_ratio: float | None
    forward_backward_ratio: float | None


def measure_costs(
    model: nn.Module,
    reference: nn.Module,
    *,
    clips: tuple[int, int],
    reference_clips: tuple[int, int],
    seconds: float,
    device: torch.device,
) -> Costs:
    """Runs both models on noise.

    Args:
        model, reference: keypoints (B, T, 17, 3) to joints.
        clips, reference_clips: (B, T) of each.
        seconds: of timing, for each of both passes.
    """
    sides = []
    for each, shape in ((model, clips), (reference, reference_clips)):
        keypoints = torch.randn(*shape, H36M_17.num_joints, 3, generator=torch.Generator().manual_seed(0))
        sides.append((each.to(device), keypoints.to(device)))
    (model, keypoints), _ = sides
    times = {}
    for name, run in (("forward", _forward), ("forward_backward", _forward_backward)):
        own, other = (_synchronised(run, *side) for side in sides)
        times[name] = time_side_by_side(own, other, seconds=seconds, min_rounds=3)
    ratios = {name: own / other if clips == reference_clips else None for name, (own, other) in times.items()}
    return Costs(
        num_parameters=count_parameters(model),
        multiply_adds=count_executed_multiply_adds(model, clips[1]),
        peak_memory_bytes=_peak_memory(lambda: _forward_backward(model, keypoints)),
        num_frames=clips[1],
        batch_size=clips[0],
        forward_s=times["forward"][0],
        forward_backward_s=times["forward_backward"][0],
        forward_ratio=ratios["forward"],
        forward_backward_ratio=ratios["forward_backward"],
    )


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def count_executed_multiply_adds(model: nn.Module, num_frames: int) -> int:
    """Of one clip, on the model's device; see `MULTIPLY_ADDS_ARE`.

    What is executed, so zero-filled kernels count; `tests/multiply_adds.py` counts what the design needs.
    """
    device = next(model.parameters()).device
    counter = FlopCounterMode(display=False, custom_mapping=_ONEDNN_FLOPS)
    # What is fused on the CPU, attention and what runs without gradients, is not counted; the same apart is.
    with counter, sdpa_kernel(SDPBackend.MATH):
        model.eval()(torch.zeros(1, num_frames, H36M_17.num_joints, 3, device=device))
    return int(counter.get_total_flops()) // 2


def _linear_flops(x: torch.Size, *others: Any, out_shape: torch.Size) -> int:
    return 2 * x.numel() * out_shape[-1]


# The counter does not know oneDNN's operator, through which `core.linear` maps where that pays, added or not.
_ONEDNN_FLOPS = (
    {torch.ops.mkldnn._linear_pointwise: _linear_flops} if torch.backends.mkldnn.is_available() else {}
)


def _forward(model: nn.Module, keypoints: Tensor) -> None:
    with torch.no_grad():
        model.eval()(keypoints)


def _forward_backward(model: nn.Module, keypoints: Tensor) -> None:
    model.zero_grad()
    model.train()(keypoints).square().mean().backward()


def _synchronised(
    run: Callable[[nn.Module, Tensor], None], model: nn.Module, keypoints: Tensor
) -> Callable[[], None]:
    def call() -> None:
        run(model, keypoints)
        if keypoints.device.type == "cuda":
            torch.cuda.synchronize()

    return call


def _peak_memory(run: Callable[[], None]) -> int:
    with _LiveTensors() as live:
        run()
    return live.peak_bytes


class _LiveTensors(TorchDispatchMode):
    """Adds up the storages of all tensors that operators return, for as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.peak_bytes = 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor, given)
        return result

    def _add(self, tensor: Tensor, given: set[int]) -> None:
        storage = tensor.untyped_storage()
        address = storage.data_ptr()
        if address in given or address in self._known or storage.nbytes() == 0:
            return  # a view, or an operator in place
        self._known[address] = storage.nbytes()
        self.bytes += storage.nbytes()
        self.peak_bytes = max(self.peak_bytes, self.bytes)
        weakref.finalize(storage, self._forget, address)

    def _forget(self, address: int) -> None:
        self.bytes -= self._known.pop(address)
