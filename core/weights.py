"""Trained models as safetensors files that know what they are: configuration in the header, no pickle.

A model has two parts, `backbone` and `head`; what heads there are is for others to say.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from core.atomic_write import written_whole
from core.backbone import Backbone
from core.residual_mlp import ResidualMlp
from core.settings import require_number
from core.ssr_stf.model import SsrStf

# A weights file names its classes; only these are ever built from one.
BACKBONES: dict[str, type[Backbone]] = {
    f"{cls.__module__}.{cls.__qualname__}": cls for cls in (SsrStf, ResidualMlp)
}
# What a part may be handed on without: how it began, how it was kept from overfitting, how it computes.
_MAY_DIFFER_AT_HAND_OVER = frozenset(
    ("dropout", "drop_path", "layer_scale_init", "joint_embedding_std", "attention_kernel")
)
_HEADER = ("backbone", "head", "clip")
Part = TypeVar("Part", bound=nn.Module)
Model = TypeVar("Model", bound=nn.Module)
# What a clip has to be cut to, for whoever runs the model: {"num_frames": 27, "fps": 30.0}.
ClipFormat = dict[str, int | float | str]


def save_weights(
    path: str | Path,
    model: nn.Module,
    *,
    backbone: dict[str, Any],
    head: dict[str, Any],
    clip: ClipFormat,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Writes `model` and how to build it; complete or not at all.

    Args:
        path: a .safetensors file.
        model: what to save, with the parts `backbone` and `head`.
        backbone, head: `_target_` and constructor arguments.
        clip: `num_frames` and `fps` the model was trained with, and what else its user must know.
        dtype: of the stored numbers.
    """
    state = {name: value.detach().to("cpu", dtype).contiguous() for name, value in model.state_dict().items()}
    metadata = {"backbone": json.dumps(backbone), "head": json.dumps(head), "clip": json.dumps(clip)}
    with written_whole(path) as file:
        file.write(save(state, metadata))


def load_part(
    part: nn.Module, name: Literal["backbone", "head"], path: str | Path, config: Mapping[str, Any]
) -> ClipFormat:
    """Fills a backbone from a weights file of any head, or a head from one of any backbone, in place.

    Args:
        config: how the part was built. The file's was built likewise, but for what only matters in training
            or costs nothing but time.

    Returns:
        what the file says of the clips that it was trained with.

    Raises:
        ValueError: as `read_weights`; the class, tensors, or else settings, that do not fit are named.
    """
    state, header = read_weights(path)
    own = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
    trained = header[name]
    try:
        if trained.get("_target_") != config["_target_"]:
            raise ValueError(
                f"The {name} in {path} is a {trained.get('_target_')}, and the configured one is a "
                f"{config['_target_']}."
            )
        load_checked(part, own, path)
        # Of what one of them does not say (a file older than the setting, most often), it is the constructor's.
        defaults = _defaults(type(part))
        theirs, ours = {**defaults, **trained}, {**defaults, **config}
        for key in sorted((theirs.keys() & ours.keys()) - _MAY_DIFFER_AT_HAND_OVER):
            if theirs[key] != ours[key]:
                raise ValueError(
                    f"The {name} in {path} was trained with {name}.{key}={theirs[key]}, not {ours[key]}; "
                    "set it likewise."
                )
    except ValueError as error:
        raise ValueError(f"{error} To start from nothing, say {name}.weights=null.") from None
    clip: ClipFormat = header["clip"]
    return clip


def _defaults(part: type[nn.Module]) -> dict[str, Any]:
    """A constructor's arguments that need not be given."""
    parameters = inspect.signature(part).parameters.values()
    return {one.name: one.default for one in parameters if one.default is not inspect.Parameter.empty}


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """Tensors in single precision, and the header: `backbone`, `head` and `clip`, see `save_weights`.

    Raises:
        ValueError: the file is missing, is no weights file of this project, or holds what is not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f"There is no weights file {path}; train one with tools/train_mesh.py or tools/train_pose.py."
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a readable safetensors file ({error}); give the model.safetensors of a run."
        ) from error
    absent = [key for key in _HEADER if key not in metadata]
    if absent:
        raise ValueError(
            f"{path} does not say what model it is for (no {', '.join(absent)} in its header); "
            "give a model.safetensors of one of the training commands."
        )
    diverged = next((name for name, value in state.items() if not value.isfinite().all()), None)
    if diverged is not None:
        raise ValueError(
            f"{path} holds numbers that are not finite ({diverged}): the run that wrote it diverged; train again "
            "at a lower schedule.learning_rate or schedule.muon_learning_rate."
        )
    return state, {key: _header_entry(path, key, metadata[key]) for key in _HEADER}


def _header_entry(path: Path, key: str, text: str) -> dict[str, Any]:
    try:
        entry = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: its header's {key} cannot be read ({error}).") from None
    if not isinstance(entry, dict):
        raise ValueError(f"{path} is damaged: its header's {key} is {entry!r}.")
    if key == "clip":
        for name in ("num_frames", "fps"):
            if name not in entry:
                raise ValueError(f"{path} is damaged: its header's clip does not say {name}.")
            require_number(f"{path}: the header's clip.{name}", entry[name], above=0.0)
    return entry


def load_model(
    path: str | Path, model: Callable[..., Model], heads: Mapping[str, type[nn.Module]]
) -> tuple[Model, ClipFormat]:
    """The model of a weights file, in evaluation mode and single precision.

    Args:
        path: of a weights file.
        model: takes `backbone` and `head`.
        heads: the heads it may have, by the name under which files know them.

    Raises:
        ValueError: the file is missing, is no weights file of this project, or does not fit the model that it
            names.
    """
    state, header = read_weights(path)
    built = model(
        backbone=build_part(path, BACKBONES, header["backbone"]), head=build_part(path, heads, header["head"])
    )
    load_checked(built, state, path)
    return built.eval(), header["clip"]


def load_checked(module: nn.Module, state: dict[str, Tensor], path: str | Path) -> None:
    """Like `load_state_dict`, with every mismatch named in one sentence."""
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in state.items()}
    problems = [f"{name} is missing" for name in expected if name not in given]
    problems += [f"{name} is not part of the model" for name in given if name not in expected]
    problems += [
        f"{name} is {given[name]} in the file and {expected[name]} in the model"
        for name in expected
        if name in given and given[name] != expected[name]
    ]
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(
            f"The weights in {path} do not fit the configured model: {'; '.join(problems[:5])}{more}; "
            "use the configuration that the weights were trained with."
        )
    module.load_state_dict(state)


def build_part(path: str | Path, known: Mapping[str, type[Part]], description: dict[str, Any]) -> Part:
    """The module that a weights file describes, if its class is among the known ones."""
    arguments = dict(description)
    target = arguments.pop("_target_", None)
    if target not in known:
        raise ValueError(
            f"{path} asks for the class {target!r}, which is not one of {', '.join(known)}; it is not loaded "
            "(lifting weights are for the …_pose.py commands, mesh weights for the other commands)."
        )
    try:
        return known[target](**arguments)
    except TypeError as error:
        raise ValueError(
            f"{path} describes a model that this version cannot build ({error}); retrain it, or use the "
            "version that wrote it."
        ) from error
