"""A device for machines without one: its tensors live on the CPU and refuse to meet those that are on it openly.

What a GPU would refuse is refused here: operations on tensors of both, and NumPy's hands on the device's memory.
Code that gives here what it gives on the CPU leaves nothing where it should not. Random numbers are the CPU's.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

# A type of device that PyTorch knows and has no kernels for.
DEVICE = torch.device("lazy:0")

_TO_PYTHON = (Tensor.item, Tensor.tolist, Tensor.__float__, Tensor.__int__, Tensor.__bool__, Tensor.__index__)
_MAY_CROSS = ("aten::_to_copy", "aten::copy_", "aten::_local_scalar_dense")
_TAKE_INDICES_OF_THE_CPU = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")


class _DeviceTensor(Tensor):
    """A tensor of the device; `on_cpu` has its numbers."""

    on_cpu: Tensor

    @staticmethod
    def __new__(cls, on_cpu: Tensor) -> "_DeviceTensor":
        tensor: _DeviceTensor = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            on_cpu.size(),
            strides=on_cpu.stride(),
            storage_offset=on_cpu.storage_offset(),
            dtype=on_cpu.dtype,
            layout=on_cpu.layout,
            device=DEVICE,
        )
        tensor.on_cpu = on_cpu
        return tensor

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Calls(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})


class _Operators(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


@contextmanager
def simulated_device() -> Iterator[torch.device]:
    """Within it tensors can be moved to the device that it gives, and made there."""
    autocast, generator = torch.autocast, torch.Generator

    def autocast_if_known(device_type: str, **options: Any) -> Any:
        return nullcontext() if device_type == DEVICE.type else autocast(device_type, **options)

    with pytest.MonkeyPatch.context() as patch, _Operators(), _Calls():
        patch.setattr(torch, "autocast", autocast_if_known)
        patch.setattr(torch, "Generator", lambda device="cpu": generator())
        yield DEVICE


def _is_the_device(device: Any) -> bool:
    return device is not None and torch.device(device).type == DEVICE.type


def _call(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What PyTorch would do in C++ with memory of the device, before any operator is dispatched."""
    first = args[0] if args else None
    mine = isinstance(first, _DeviceTensor)
    if mine and func in _TO_PYTHON:
        return func(first.on_cpu, *args[1:], **kwargs)
    if mine and func in (Tensor.numpy, Tensor.__array__):
        raise TypeError("A tensor of the device was given to NumPy.")
    if mine and func is Tensor.new_tensor:
        return _DeviceTensor(first.on_cpu.new_tensor(*args[1:], **kwargs))
    if func in (torch.tensor, torch.as_tensor) and not isinstance(first, Tensor):
        device = kwargs.pop("device", None)
        made = func(*args, **kwargs)
        return _DeviceTensor(made) if _is_the_device(device) else made
    if mine and func in (Tensor.__getitem__, Tensor.__setitem__):
        indices = args[1] if isinstance(args[1], tuple) else (args[1],)
        indices = tuple(torch.tensor(i) if isinstance(i, list | tuple) else i for i in indices)
        values = (v if isinstance(v, Tensor) else _DeviceTensor(first.on_cpu.new_tensor(v)) for v in args[2:])
        args = (first, indices, *values)
    with torch._C.DisableTorchFunctionSubclass():
        return func(*args, **kwargs)


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operator, on the CPU's copy of what it is given."""
    name = func._schema.name
    given = [leaf for leaf in pytree.arg_tree_leaves(*args, **kwargs) if isinstance(leaf, Tensor)]
    mine = [tensor for tensor in given if isinstance(tensor, _DeviceTensor)]
    takes_indices = name in _TAKE_INDICES_OF_THE_CPU
    if mine and name not in _MAY_CROSS:
        for tensor in given:
            if not isinstance(tensor, _DeviceTensor) and tensor.ndim and not takes_indices:
                raise RuntimeError(
                    f"{func} was given tensors of the device and one {tuple(tensor.shape)} of the CPU."
                )
        if not name.startswith("aten::"):
            raise RuntimeError(f"{func} was called for the device.")
    wanted = kwargs.get("device")
    args, kwargs = pytree.tree_map_only(_DeviceTensor, lambda tensor: tensor.on_cpu, (args, kwargs))
    if _is_the_device(wanted):
        kwargs = {**kwargs, "device": torch.device("cpu")}
    result = func(*args, **kwargs)
    stays = bool(mine) and not (takes_indices and not isinstance(given[0], _DeviceTensor))
    if not (_is_the_device(wanted) if wanted is not None else stays):
        return result
    # An operator that works in place gives back what it was given.
    known = {id(tensor.on_cpu): tensor for tensor in mine}
    return pytree.tree_map_only(
        Tensor, lambda made: known[id(made)] if id(made) in known else _DeviceTensor(made), result
    )
