"""The predecessors' backbones, imported from their repositories on disk, each by itself.

None of their code is part of this project: whoever wants to compare clones the repository and names its folder.

Shapes: B clips, T frames, J = 17 joints, C channels.
"""

import importlib
import importlib.util
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.backbone import Backbone
from core.muon import matrices_of_linear_maps
from core.skeleton import H36M_17
from core.ssr_stf.attention import SDPA_MIN_LENGTH_ON_CPU, matmul_attention

# Channels of the pose features of MotionBERT and MotionAGFormer, at every size.
_DIM_REPRESENTATION = 512
_NUM_HEADS = 8
_MOTIONBERT_FRAMES = 243  # rows of its table of temporal positions, as published


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A predecessor: where it lies in its repository, and how a backbone of a size is built.

    Attributes:
        title: as in its paper.
        repository: what to clone.
        module: of the network, in dots from the repository's root.
        build: (module, depth, dim, in_channels, num_frames, **others of its constructor) → network from keypoints
            to pose features (B, T, J, C); its head is left out.
        dim_representation: channels of the features, or None where they are `dim`.
        block_lists: where its blocks are, as lists that run side by side.
        most_other_frames: of the clips that a network takes beside those that it was built for; 0: it takes none.
    """

    title: str
    repository: str
    module: str
    build: Callable[..., nn.Module]
    dim_representation: int | None
    block_lists: tuple[str, ...]
    most_other_frames: float


def _motionagformer(
    module: ModuleType, depth: int, dim: int, in_channels: int, num_frames: int, **others: Any
) -> nn.Module:
    of_all_published = {"num_heads": _NUM_HEADS, "neighbour_num": 2}
    network: nn.Module = module.MotionAGFormer(
        n_layers=depth,
        dim_in=in_channels,
        dim_feat=dim,
        dim_rep=_DIM_REPRESENTATION,
        n_frames=num_frames,
        **(of_all_published | others),
    )
    network.head = nn.Identity()
    return network


def _motionbert(
    module: ModuleType, depth: int, dim: int, in_channels: int, num_frames: int, **others: Any
) -> nn.Module:
    of_lite = {"num_heads": _NUM_HEADS, "mlp_ratio": 4}
    network: nn.Module = module.DSTformer(
        dim_in=in_channels,
        dim_feat=dim,
        dim_rep=_DIM_REPRESENTATION,
        depth=depth,
        maxlen=max(num_frames, _MOTIONBERT_FRAMES),
        **(of_lite | others),
    )
    network.head = nn.Identity()
    return network


def _stcformer(module: ModuleType, depth: int, dim: int, in_channels: int, num_frames: int) -> nn.Module:
    num_joints = H36M_17.num_joints
    sizes = SimpleNamespace(
        layers=depth, d_hid=dim, frames=num_frames, n_joints=num_joints, out_joints=num_joints
    )
    with _without_cuda_calls():
        network: nn.Module = module.Model(sizes)
    network.pose_emb = nn.Linear(in_channels, dim, bias=False)  # theirs takes x and y alone
    network.regress_head = nn.Identity()
    for part in network.modules():
        indices = vars(part).get("part")
        if isinstance(indices, Tensor):  # a plain attribute, which would stay behind when the network moves
            del part.part
            part.register_buffer("part", indices, persistent=False)
        if isinstance(part, nn.Dropout):  # no other row drops anything, and the constructor leaves no choice
            part.p = 0.0
    return network


PEERS = {
    "motionagformer": Peer(
        title="MotionAGFormer (WACV 2024)",
        repository="https://github.com/TaatiTeam/MotionAGFormer",
        module="model.MotionAGFormer",
        build=_motionagformer,
        dim_representation=_DIM_REPRESENTATION,
        block_lists=("layers",),
        most_other_frames=0,
    ),
    "motionbert": Peer(
        title="MotionBERT's DSTformer (ICCV 2023)",
        repository="https://github.com/Walter0807/MotionBERT",
        module="lib.model.DSTformer",
        build=_motionbert,
        dim_representation=_DIM_REPRESENTATION,
        block_lists=("blocks_st", "blocks_ts"),
        most_other_frames=_MOTIONBERT_FRAMES,
    ),
    "stcformer": Peer(
        title="STCFormer (CVPR 2023)",
        repository="https://github.com/zhenhuat/STCFormer",
        module="model.stcformer",
        build=_stcformer,
        dim_representation=None,
        block_lists=("stcformer.stc_block",),
        most_other_frames=math.inf,
    ),
}


class PeerBackbone(Backbone):
    """A predecessor in the place of a backbone (`core.ssr_stf.lifting.LiftingModel`).

    Args:
        peer: name in `PEERS`.
        repository: the folder that was cloned.
        depth, dim: its blocks and channels.
        in_channels: numbers per joint.
        num_frames: T.
        options: further arguments of its constructor, which has defaults for them.

    Raises:
        ValueError: the folder does not hold the network, a package that it imports is not installed, or its
            constructor does not know one of the options.
    """

    def __init__(
        self,
        *,
        peer: str,
        repository: str,
        depth: int,
        dim: int,
        in_channels: int,
        num_frames: int,
        options: Mapping[str, Any],
    ) -> None:
        super().__init__(
            num_tokens=H36M_17.num_joints, dim_representation=PEERS[peer].dim_representation or dim
        )
        self.peer = peer
        self.num_frames = num_frames
        module = load_peer(peer, repository)
        try:
            self.network = PEERS[peer].build(module, depth, dim, in_channels, num_frames, **options)
        except TypeError as error:
            raise ValueError(
                f"{PEERS[peer].title} cannot be built with the options {dict(options)} ({error})."
            ) from error
        for path in PEERS[peer].block_lists:
            blocks: Any = self.network.get_submodule(path)
            for index, block in enumerate(blocks):
                blocks[index] = _Skippable(block, index)

    @property
    def num_blocks(self) -> int:
        return max(sum(1 for _ in self.network.get_submodule(path)) for path in PEERS[self.peer].block_lists)

    def check_num_frames(self, lengths: Sequence[int]) -> None:
        most = PEERS[self.peer].most_other_frames
        unfit = sorted({length for length in lengths if length != self.num_frames and length > most})
        if unfit:
            raise ValueError(
                f"{PEERS[self.peer].title}, built for clips of {self.num_frames} frames, does not take those of "
                f"{', '.join(map(str, unfit))} that the curriculum has; give it clips of one length (course=full)."
            )

    def muon_matrices(self) -> list[nn.Parameter]:
        blocks = (self.network.get_submodule(path) for path in PEERS[self.peer].block_lists)
        return [weight for some in blocks for weight in matrices_of_linear_maps(some)]

    def forward(self, keypoints: Tensor) -> Tensor:
        """Pose features (B, T, 17, C) from normalised keypoints (B, T, 17, 3)."""
        for part in self.network.modules():
            if isinstance(part, _Skippable):
                part.is_active = self.num_active_blocks is None or part.index < self.num_active_blocks
        features: Tensor = self.network(keypoints)
        return features


class _Skippable(nn.Module):
    """A block that passes its input on while it is not active, so that predecessors, too, may grow."""

    def __init__(self, block: nn.Module, index: int) -> None:
        super().__init__()
        self.block = block
        self.index = index
        self.is_active = True

    def forward(self, x: Tensor, *others: Any) -> Tensor:
        if not self.is_active:
            return x
        y: Tensor = self.block(x, *others)
        return y


def load_peer(name: str, repository: str | Path) -> ModuleType:
    """The module of a predecessor's network, imported from its repository.

    Its top-level names ("model", "lib", …) are seen by its own imports alone, so that several predecessors, and
    whatever else has such a name, live side by side.

    Raises:
        ValueError: the folder does not hold the network, or a package that it imports is not installed.
    """
    peer, root = PEERS[name], Path(repository).expanduser().resolve()
    if not (root / (peer.module.replace(".", "/") + ".py")).is_file():
        raise ValueError(
            f"{repository} does not hold {peer.title} (no {peer.module.replace('.', '/')}.py); "
            f"git clone {peer.repository} and give that folder."
        )
    with _alone_on_the_path(root), _drop_path_without_timm():
        try:
            return importlib.import_module(peer.module)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"{peer.title} needs the package {error.name}, which is not installed: pip install {error.name}"
            ) from error


@contextmanager
def _alone_on_the_path(root: Path) -> Iterator[None]:
    own = {path.stem for path in root.iterdir() if path.is_dir() or path.suffix == ".py"}

    def take_out() -> dict[str, ModuleType]:
        return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in own}

    hidden = take_out()
    sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(root))
        take_out()
        sys.modules.update(hidden)


@contextmanager
def _drop_path_without_timm() -> Iterator[None]:
    """Where timm is not installed, stands in for the one class of it that is imported."""
    if importlib.util.find_spec("timm") is not None:
        yield
        return
    names = ("timm", "timm.models", "timm.models.layers")
    for name in names:
        sys.modules[name] = ModuleType(name)
    sys.modules[names[-1]].DropPath = _DropPath  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


class _DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016): in training, drops whole entries of a batch, scaling the others."""

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_prob == 0:
            return x
        kept = torch.rand(len(x), *(1,) * (x.ndim - 1), device=x.device, dtype=x.dtype) >= self.drop_prob
        return x * kept / (1 - self.drop_prob)


@contextmanager
def _without_cuda_calls() -> Iterator[None]:
    """STCFormer moves a tensor to the GPU in its constructor; the whole network is moved later."""
    original = torch.Tensor.cuda
    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.Tensor.cuda = original  # type: ignore[method-assign]


def use_our_attention(network: nn.Module) -> None:
    """Gives MotionAGFormer's attention modules, in place, the attention calls of our own.

    The same numbers by SDPA on four-dimensional tensors, or by our matrix products where our rule prefers them.
    """
    for module in network.modules():
        if type(module).__name__ == "Attention":
            changeable: Any = module
            changeable.forward_spatial = partial(_attend, axes=(1, 2, 3))
            changeable.forward_temporal = partial(_attend, axes=(1, 3, 2))


def _attend(query: Tensor, key: Tensor, value: Tensor, *, axes: tuple[int, int, int]) -> Tensor:
    """(B, H, T, J, D) three times to (B, T, J, H·D); `axes` names heads, groups and tokens in the input."""
    heads, groups, tokens = axes
    batch, num_heads, num_frames, num_joints, head_dim = query.shape
    by_group = (x.permute(0, groups, heads, tokens, 4).flatten(0, 1) for x in (query, key, value))
    on_cpu, length = query.device.type == "cpu", query.shape[tokens]
    attention = (
        matmul_attention if on_cpu and length < SDPA_MIN_LENGTH_ON_CPU else F.scaled_dot_product_attention
    )
    out = attention(*by_group).unflatten(0, (batch, -1))  # (B, group, H, token, D)
    out = out.permute(0, 3, 1, 2, 4) if tokens == 2 else out.permute(0, 1, 3, 2, 4)
    return out.reshape(batch, num_frames, num_joints, num_heads * head_dim)
