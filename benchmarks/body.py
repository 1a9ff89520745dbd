"""The SMPL layer on the open body against `smplx.SMPL`, and skinning only what a joint regressor needs.

Both sides start from axis-angle poses, as motion files hold them, and have a shape and a pose per frame.
"""

import contextlib
import io
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn

from benchmarks.timing import BenchRow, time_side_by_side
from body_models.open_body import load_open_body, load_open_body_regressor, open_body_path
from body_models.parameters import BodyParameters

BATCH_SIZES = (1, 32, 256)


@dataclass(frozen=True)
class Inputs:
    """Random motion-like parameters; metres and radians."""

    pose_rotvec: Tensor
    betas: Tensor
    translation_m: Tensor

    def parameters(self) -> BodyParameters:
        return BodyParameters.from_rotvec(self.pose_rotvec, self.betas, self.translation_m)


Computation = Callable[[Inputs], Tensor]


def run(threads: int) -> list[BenchRow]:
    """Times every case for every batch size; lengths in metres.

    Raises:
        ValueError: the package smplx is not installed.
    """
    body, smplx_body = load_open_body(), _load_smplx_body()
    regressor = load_open_body_regressor("h36m_17")
    restricted_body, restricted_regressor = body.restricted_to(regressor.support), regressor.restricted()

    def ours(inputs: Inputs) -> Tensor:
        vertices_m: Tensor = body(inputs.parameters()).vertices_m
        return vertices_m

    def reference(inputs: Inputs) -> Tensor:
        vertices_m: Tensor = smplx_body(
            betas=inputs.betas,
            global_orient=inputs.pose_rotvec[:, 0],
            body_pose=inputs.pose_rotvec[:, 1:].flatten(1),
            transl=inputs.translation_m,
        ).vertices
        return vertices_m

    def our_joints(inputs: Inputs) -> Tensor:
        joints_m: Tensor = restricted_regressor(restricted_body(inputs.parameters()).vertices_m)
        return joints_m

    cases: list[tuple[str, Computation, str, Computation]] = [
        ("forward", torch.no_grad()(ours), "smplx", torch.no_grad()(reference)),
        ("forward + backward", _pose_gradient_of(ours), "smplx", _pose_gradient_of(reference)),
        (
            "H36M joints only",
            torch.no_grad()(our_joints),
            "ours, all vertices",
            torch.no_grad()(lambda inputs: regressor(ours(inputs))),
        ),
    ]
    sizes = {"num_vertices": body.num_vertices, "num_vertices_of_h36m_joints": len(regressor.support)}
    rows = []
    for (case, compute, name, compute_reference), num_frames in track(
        list(itertools.product(cases, BATCH_SIZES)), "Measuring", transient=True
    ):
        inputs = _random_inputs(num_frames)
        difference = (compute(inputs) - compute_reference(inputs)).abs().max().item()
        ours_s, reference_s = time_side_by_side(partial(compute, inputs), partial(compute_reference, inputs))
        rows.append(
            BenchRow(
                case=f"{case}, batch {num_frames}",
                ours_s=ours_s,
                reference=name,
                reference_s=reference_s,
                max_abs_diff=difference,
                sizes={"batch": num_frames} | sizes,
                dtype=str(body.dtype).removeprefix("torch."),
                threads=threads,
            )
        )
    return rows


def _pose_gradient_of(vertices: Computation) -> Computation:
    """Gradient of the mean squared coordinate with respect to every input; the poses' is returned."""

    def gradient(inputs: Inputs) -> Tensor:
        leaves = [tensor.clone().requires_grad_() for tensor in vars(inputs).values()]
        vertices(Inputs(*leaves)).square().mean().backward()
        assert leaves[0].grad is not None
        return leaves[0].grad

    return gradient


def _random_inputs(num_frames: int) -> Inputs:
    generator = torch.Generator().manual_seed(0)
    return Inputs(
        pose_rotvec=0.5 * torch.randn(num_frames, 24, 3, generator=generator),
        betas=torch.randn(num_frames, 10, generator=generator),
        translation_m=torch.randn(num_frames, 3, generator=generator),
    )


def _load_smplx_body() -> nn.Module:
    try:
        import smplx
    except ImportError as error:
        raise ValueError(
            "The reference, the package smplx, is not installed: pip install smplx "
            "(its licence allows non-commercial research only)."
        ) from error
    arrays = dict(np.load(open_body_path(), allow_pickle=False))
    with contextlib.redirect_stdout(io.StringIO()):  # it remarks on the number of betas
        body: nn.Module = smplx.SMPL(model_path="", data_struct=smplx.utils.Struct(**arrays))
    return body
