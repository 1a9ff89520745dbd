"""SSR-STF: two parallel streams over clips of 2D keypoints, fused per token (arXiv 2412.19676).

The published idea, with every unpublished detail a constructor argument; docs/ssr_stf.md says of each
whether it is stated, inherited from a predecessor, or our own reading. `configs/backbone/` holds the numbers.

Shapes: B clips, T frames, J joints, C channels. No parameter's shape depends on T.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from core.backbone import Backbone
from core.linear import Linear, LinearGelu, ResidualLinear, residual_mlp, without_autocast
from core.mirror_mlp import MirrorMlp
from core.settings import require_choice, require_number
from core.skeleton import SKELETONS
from core.ssr_stf.attention import AttentionAxis, AttentionKernel, MultiHeadSelfAttention, RotaryTable
from core.ssr_stf.depthwise import Padding
from core.ssr_stf.frame_context import (
    FrameContext,
    LinearFrameContext,
    ResidualMlpEncoder,
    WindowedFrameContext,
)
from core.ssr_stf.fusion import Fusion, build_fusion
from core.ssr_stf.skeleton_attention import (
    Gate,
    JointOperator,
    Selection,
    SkeletonSelectiveRefineAttention,
    SsraAxes,
)

Activation = Literal["tanh", "none"]
TemporalPosition = Literal["none", "learned", "rotary"]
SsrLayout = Literal["joint", "st", "none"]
_MLP_CONTEXTS: tuple[FrameContext, ...] = ("residual_mlp", "mirror_mlp")


class MixerBlock(nn.Module):
    """Pre-norm mixer and pre-norm MLP, each inside a residual connection with LayerScale.

    Args:
        mixer: maps normalised (B, T, J, C) to (B, T, J, C) before its output projection.
        mlp_ratio: hidden channels of the MLP over C.
        residual: arguments of `ResidualLinear`.
    """

    def __init__(self, mixer: nn.Module, *, dim: int, mlp_ratio: int, **residual: float) -> None:
        super().__init__()
        hidden = dim * mlp_ratio
        self.mixer_norm = nn.LayerNorm(dim)
        self.mixer = mixer
        self.mixer_out = ResidualLinear(dim, dim, **residual)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp_in = LinearGelu(dim, hidden)
        self.mlp_out = ResidualLinear(hidden, dim, **residual)

    def forward(self, x: Float[Tensor, "batch frame joint dim"]) -> Float[Tensor, "batch frame joint dim"]:
        """Mixes tokens, then channels."""
        x = self.mixer_out(x, self.mixer(self.mixer_norm(x)))
        return residual_mlp(x, self.mlp_norm(x), expand=self.mlp_in, project=self.mlp_out)


class DualStreamBlock(nn.Module):
    """Transformer stream (global) and SSR stream (local) on the same input, fused; or the former alone."""

    def __init__(self, *, transformer: nn.Module, ssr: nn.Module | None, fusion: nn.Module | None) -> None:
        super().__init__()
        assert (ssr is None) == (fusion is None)
        self.transformer = transformer
        self.ssr = ssr
        self.fusion = fusion

    def forward(self, x: Float[Tensor, "batch frame joint dim"]) -> Float[Tensor, "batch frame joint dim"]:
        """One block of the trunk."""
        if self.ssr is None or self.fusion is None:
            return self.transformer(x)
        return self.fusion(self.transformer(x), self.ssr(x))


class SsrStf(Backbone):
    """SSR-STF backbone: clips of 2D keypoints to pose features, for any number of frames.

    Xu et al., "Optimizing Local-Global Dependencies for Accurate 3D Human Pose Estimation", arXiv 2412.19676.

    `num_active_blocks` may be set to run only the first blocks (None: all), for a curriculum over depth; with 0
    the features are what the frame context alone makes of the clip, and the trunk costs nothing.

    Args:
        skeleton: name in `core.skeleton.SKELETONS`; gives J and the bone graph.
        in_channels: numbers per joint, 3 for (x, y, confidence).
        dim: channels C.
        num_blocks: dual-stream blocks N.
        num_heads: attention heads of the transformer stream.
        mlp_ratio: hidden over outer channels of every MLP.
        dim_representation: channels of the pose features.
        representation_activation: "tanh" (features in (-1, 1)) | "none".
        layer_scale_init: initial LayerScale of every residual branch.
        dropout: probability of dropping a channel of a branch, in training.
        drop_path: probability of dropping a whole branch of the last block for a clip, in training; grows
            linearly from 0 in the first block.
        joint_embedding_std: standard deviation of the initial joint embedding.
        temporal_position: "none" | "learned" | "rotary".
        num_learned_positions: rows of the learned table. Clips up to that length read its first T rows,
            longer ones the whole table stretched linearly to T rows.
        frame_context: "none" | "linear" | "residual_mlp" | "mirror_mlp", see `core.ssr_stf.frame_context`
            and, for the last, `core.mirror_mlp`.
        context_frames, context_overlap, context_dim, context_blocks, context_channels: sizes of the
            context of either MLP.
        context_shortcut: the context of either MLP is also added to the pose features, by a linear map around the
            trunk; else it reaches them through the tokens alone.
        ssr_layout: "joint": one SSRA on the (frame, joint) plane; "st": one over joints, then one over
            frames; "none": no SSR stream, hence no fusion (ablation).
        ssr_select: "lsk" | "hlk" | "lska" | "token_softmax" | "none".
        ssr_gate: "mul" | "none".
        joint_op: "index" | "hop".
        temporal_kernel, joint_kernel: nominal large-kernel sizes, 7 | 11 | 23 | 35.
        temporal_padding: "zeros" | "replicate", what a temporal convolution sees beyond the clip.
        fusion: "adaptive" | "per_channel" | "mean" | "concat".
        attention_kernel: "auto" | "sdpa" | "matmul"; the results agree to rounding.

    Raises:
        ValueError: an unknown choice, or sizes that do not fit together.
    """

    def __init__(
        self,
        *,
        skeleton: str,
        in_channels: int,
        dim: int,
        num_blocks: int,
        num_heads: int,
        mlp_ratio: int,
        dim_representation: int,
        representation_activation: Activation,
        layer_scale_init: float | int,
        dropout: float,
        drop_path: float,
        joint_embedding_std: float,
        temporal_position: TemporalPosition,
        num_learned_positions: int,
        frame_context: FrameContext,
        context_frames: int,
        context_overlap: int,
        context_dim: int,
        context_blocks: int,
        context_channels: int,
        context_shortcut: bool,
        ssr_layout: SsrLayout,
        ssr_select: Selection,
        ssr_gate: Gate,
        joint_op: JointOperator,
        temporal_kernel: int,
        joint_kernel: int,
        temporal_padding: Padding,
        fusion: Fusion,
        attention_kernel: AttentionKernel,
    ) -> None:
        require_choice("backbone.skeleton", skeleton, tuple(SKELETONS))
        super().__init__(
            num_tokens=SKELETONS[skeleton].num_joints,
            dim_representation=dim_representation,
            skeleton=skeleton,
            in_channels=in_channels,
        )
        for key, size, least in (
            ("in_channels", in_channels, 1),
            ("dim", dim, 1),
            ("num_blocks", num_blocks, 0),
            ("num_heads", num_heads, 1),
            ("mlp_ratio", mlp_ratio, 1),
            ("dim_representation", dim_representation, 1),
            ("num_learned_positions", num_learned_positions, 1),
            ("context_frames", context_frames, 1),
            ("context_overlap", context_overlap, 0),
            ("context_dim", context_dim, 1),
            ("context_blocks", context_blocks, 0),
            ("context_channels", context_channels, 1),
        ):
            require_number(f"backbone.{key}", size, least=least, whole=True)
        for key, share in (("dropout", dropout), ("drop_path", drop_path)):
            require_number(f"backbone.{key}", share, least=0.0, below=1.0)
        require_number("backbone.joint_embedding_std", joint_embedding_std, least=0.0)
        require_number("backbone.layer_scale_init", layer_scale_init)
        require_choice("backbone.representation_activation", representation_activation, get_args(Activation))
        require_choice("backbone.temporal_position", temporal_position, get_args(TemporalPosition))
        require_choice("backbone.frame_context", frame_context, get_args(FrameContext))
        if context_shortcut and frame_context not in _MLP_CONTEXTS:
            raise ValueError(
                "backbone.context_shortcut=true leads an MLP's context around the blocks, and with "
                f"backbone.frame_context={frame_context} there is none; give {' or '.join(_MLP_CONTEXTS)}, or "
                "leave the shortcut out."
            )
        require_choice("backbone.ssr_layout", ssr_layout, get_args(SsrLayout))
        require_choice("backbone.ssr_select", ssr_select, get_args(Selection))
        require_choice("backbone.ssr_gate", ssr_gate, get_args(Gate))
        require_choice("backbone.joint_op", joint_op, get_args(JointOperator))
        require_choice("backbone.temporal_padding", temporal_padding, get_args(Padding))
        require_choice("backbone.fusion", fusion, get_args(Fusion))
        require_choice("backbone.attention_kernel", attention_kernel, get_args(AttentionKernel))

        self.num_joints = SKELETONS[skeleton].num_joints
        self.embed = nn.Linear(in_channels, dim)
        self.joint_embedding = nn.Parameter(joint_embedding_std * torch.randn(self.num_joints, dim))
        self.frame_embedding = (
            nn.Parameter(nn.init.trunc_normal_(torch.empty(num_learned_positions, dim), std=0.02))
            if temporal_position == "learned"
            else None
        )
        self.context: LinearFrameContext | WindowedFrameContext | None = None
        if frame_context == "linear":
            self.context = LinearFrameContext(num_joints=self.num_joints, in_channels=in_channels, dim=dim)
        elif frame_context != "none":
            sizes = {
                "in_channels": in_channels,
                "num_frames": context_frames,
                "dim": context_dim,
                "num_blocks": context_blocks,
                "dim_out": context_channels,
            }
            self.context = WindowedFrameContext(
                encoder=MirrorMlp(mirror_permutation=SKELETONS[skeleton].mirror_permutation, **sizes)
                if frame_context == "mirror_mlp"
                else ResidualMlpEncoder(num_joints=self.num_joints, **sizes),
                num_joints=self.num_joints,
                dim=dim,
                dim_shortcut=dim_representation if context_shortcut else None,
                context_frames=context_frames,
                context_overlap=context_overlap,
                context_channels=context_channels,
            )
        rotary = RotaryTable(head_dim=dim // num_heads) if temporal_position == "rotary" else None

        def attention(axis: AttentionAxis) -> MultiHeadSelfAttention:
            return MultiHeadSelfAttention(
                dim=dim,
                num_heads=num_heads,
                axis=axis,
                rotary=rotary if axis == "frame" else None,
                kernel=attention_kernel,
            )

        def ssra(axes: SsraAxes) -> SkeletonSelectiveRefineAttention:
            return SkeletonSelectiveRefineAttention(
                dim=dim,
                axes=axes,
                hop_distances=SKELETONS[skeleton].hop_distances(),
                joint_op=joint_op,
                temporal_kernel=temporal_kernel,
                joint_kernel=joint_kernel,
                temporal_padding=temporal_padding,
                select=ssr_select,
                gate=ssr_gate,
            )

        def stream(mixers: Sequence[nn.Module], drop_path_here: float) -> nn.Sequential:
            residual = {
                "layer_scale_init": float(layer_scale_init),
                "dropout": dropout,
                "drop_path": drop_path_here,
            }
            return nn.Sequential(
                *(MixerBlock(mixer, dim=dim, mlp_ratio=mlp_ratio, **residual) for mixer in mixers)
            )

        self.blocks = nn.Sequential()
        for index in range(num_blocks):
            drop_path_here = drop_path * index / max(num_blocks - 1, 1)
            transformer = stream([attention("joint"), attention("frame")], drop_path_here)
            ssr_axes: dict[SsrLayout, list[SsraAxes]] = {
                "joint": ["joint_and_frame"],
                "st": ["joint", "frame"],
                "none": [],
            }
            ssr = stream([ssra(axes) for axes in ssr_axes[ssr_layout]], drop_path_here)
            self.blocks.append(
                DualStreamBlock(
                    transformer=transformer,
                    ssr=ssr if len(ssr) else None,
                    fusion=build_fusion(fusion, dim=dim) if len(ssr) else None,
                )
            )
        self.norm = nn.LayerNorm(dim)
        self.representation = Linear(dim, dim_representation)
        if isinstance(self.context, WindowedFrameContext):
            # Beside a shortcut the trunk begins as hardly a change, so that it can join at any time without harm;
            # not as none, or its blocks would at first receive no gradient. Else the features are of unit size.
            nn.init.normal_(self.representation.weight, std=0.02 if context_shortcut else dim**-0.5)
            nn.init.zeros_(self.representation.bias)
        self.activation = nn.Tanh() if representation_activation == "tanh" else nn.Identity()

    def forward(
        self, keypoints: Float[Tensor, "batch frame joint channel"]
    ) -> Float[Tensor, "batch frame joint dim_representation"]:
        """Pose features from normalised keypoints (x, y, confidence), see `core.keypoints.clip`.

        Raises:
            ValueError: the keypoints have another number of joints than the skeleton.
        """
        if keypoints.shape[2] != self.num_joints:
            raise ValueError(
                f"The backbone was built for {self.num_joints} joints but got keypoints of shape "
                f"{tuple(keypoints.shape)}; convert them to its skeleton first."
            )
        context = None if self.context is None else self.context(keypoints)
        shortcut = None
        if isinstance(self.context, WindowedFrameContext) and self.context.to_representation is not None:
            shortcut = self.context.to_representation(context).unflatten(2, (self.num_joints, -1))
            if self.num_active_blocks == 0:
                return self.activation(shortcut)
        x = self.blocks[: self.num_active_blocks](self.tokens(keypoints, context))
        features = self.representation(self.norm(x))
        return self.activation(features if shortcut is None else features + shortcut)

    @property
    def learns_without_blocks(self) -> bool:
        return isinstance(self.context, WindowedFrameContext)

    def trunk_parameters(self) -> list[nn.Parameter]:
        """What refines the features that a "residual_mlp" or "mirror_mlp" context makes by itself; else none."""
        if not isinstance(self.context, WindowedFrameContext):
            return []
        if self.context.to_representation is None:
            return list(self.blocks.parameters())
        return [p for name, p in self.named_parameters() if not name.startswith("context.")]

    def tokens(
        self,
        keypoints: Float[Tensor, "batch frame joint channel"],
        context: Float[Tensor, "batch frame context_channel"] | None,
    ) -> Float[Tensor, "batch frame joint dim"]:
        """The trunk's input: a token per joint and frame."""
        with without_autocast(keypoints):
            x = self.embed(keypoints) + self.joint_embedding
        if self.frame_embedding is not None:
            x = x + stretch_to_length(self.frame_embedding, keypoints.shape[1])[:, None]
        if self.context is not None and context is not None:
            x = x + self.context.to_tokens(context).unflatten(2, (self.num_joints, -1))
        return x


def stretch_to_length(table: Float[Tensor, "row dim"], num_frames: int) -> Float[Tensor, "{num_frames} dim"]:
    """The table's first rows; for more frames than rows, all of them interpolated linearly, ends kept."""
    if num_frames <= len(table):
        return table[:num_frames]
    stretched = F.interpolate(table.T[None], size=num_frames, mode="linear", align_corners=True)
    return stretched[0].T
