"""The backbone against MotionAGFormer's, sizes and clip lengths as published; its repository is read from disk.

    python tools/bench.py peers motionagformer=FOLDER
    python tools/bench.py peers motionagformer=FOLDER sizes=xs,b
    python tools/bench.py peers motionagformer=FOLDER sizes=b threads=1 clock=cpu rounds=7   beside other work

MotionAGFormer runs as it is, and with the attention calls of our own (SDPA, or our matrix products where they are
faster): part of the difference is theirs for the taking. Both rows stand side by side; the last row of each size
says what it would gain.
"""

import time
from collections.abc import Callable
from functools import partial

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from rich.progress import track
from torch import Tensor, nn

from benchmarks import CONFIGS
from benchmarks.comparison.peer_backbones import PEERS, PeerBackbone, use_our_attention
from benchmarks.timing import BenchRow, time_side_by_side

OPTIONS = ("motionagformer", "sizes", "clock", "rounds")

_CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

# Size → depth and channels of both, frames of a clip, clips of a batch.
SIZES = {"xs": (12, 64, 27, 8), "s": (26, 64, 81, 2), "b": (16, 128, 243, 1)}


def run(
    threads: int, motionagformer: str = "", sizes: str = "", clock: str = "", rounds: str = ""
) -> list[BenchRow]:
    """Rows for forward, and forward + backward, of every pair.

    Args:
        clock: "wall" (where it is empty) | "cpu": of this process, its threads added up, whatever else runs.
        rounds: at least so many turns of each; 3 where it is empty.

    Raises:
        ValueError: MotionAGFormer's repository is not given, or not there; an unknown size or clock; no number.
    """
    if not motionagformer:
        raise ValueError(
            f"Say where MotionAGFormer lies: git clone {PEERS['motionagformer'].repository}, then "
            "`python tools/bench.py peers motionagformer=FOLDER`."
        )
    chosen = sizes.split(",") if sizes else list(SIZES)
    unknown = [size for size in chosen if size not in SIZES]
    if unknown:
        raise ValueError(f"sizes={sizes} has no size {', '.join(unknown)}; choose from {', '.join(SIZES)}.")
    if clock and clock not in _CLOCKS:
        raise ValueError(f"clock={clock} is not a choice; choose {' or '.join(_CLOCKS)}.")
    if rounds and (not rounds.isdecimal() or int(rounds) < 1):
        raise ValueError(f"rounds={rounds} is no such number; give a whole one of at least 1.")
    time_both = partial(
        time_side_by_side,
        seconds=2,
        min_rounds=int(rounds or 3),
        warm_up_rounds=1,
        clock_s=_CLOCKS[clock or "wall"],
    )
    unit = ", processor time" if clock == "cpu" else ""
    rows: list[BenchRow] = []
    for size in track(chosen, "Peers", transient=True):
        depth, dim, num_frames, num_clips = SIZES[size]
        build = partial(
            PeerBackbone, peer="motionagformer", repository=motionagformer, in_channels=3, options={}
        )
        theirs, patched = (
            _seeded(partial(build, depth=depth, dim=dim, num_frames=num_frames)) for _ in range(2)
        )
        use_our_attention(patched)
        ours = {
            "published": _seeded(partial(_configured, f"ssr_stf_{size}_published")),
            "recommended": _seeded(partial(_configured, f"ssr_stf_{size}")),
        }
        keypoints = torch.randn(num_clips, num_frames, 17, 3, generator=torch.Generator().manual_seed(0))
        for preset, model in ours.items():
            for reference, title in ((theirs, "MotionAGFormer"), (patched, "MotionAGFormer, our attention")):
                case = f"{size.upper()} {preset}, T {num_frames}, batch {num_clips}"
                rows += _rows(case, model, reference, title, keypoints, threads, time_both, unit)
        case = f"{size.upper()} MotionAGFormer, our attention, T {num_frames}, batch {num_clips}"
        rows += _rows(case, patched, theirs, "MotionAGFormer", keypoints, threads, time_both, unit)
    return rows


def _configured(name: str) -> nn.Module:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose(overrides=[f"+backbone={name}"]).backbone
    model: nn.Module = instantiate(config)
    return model


def _seeded(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return build()


def _rows(
    case: str,
    ours: nn.Module,
    other: nn.Module,
    title: str,
    keypoints: Tensor,
    threads: int,
    time_both: Callable[..., tuple[float, float]],
    unit: str,
) -> list[BenchRow]:
    def forward(model: nn.Module) -> None:
        with torch.no_grad():
            model(keypoints)

    def forward_and_backward(model: nn.Module) -> None:
        model.zero_grad()
        model(keypoints).square().mean().backward()

    difference = None
    if isinstance(ours, PeerBackbone):
        with torch.no_grad():
            difference = (ours.eval()(keypoints) - other.eval()(keypoints)).abs().max().item()
    rows = []
    for what, run_once in (("forward", forward), ("forward + backward", forward_and_backward)):
        for model in (ours, other):
            model.train(what != "forward")  # MotionAGFormer's batch norms cost more in training
        ours_s, other_s = time_both(partial(run_once, ours), partial(run_once, other))
        rows.append(
            BenchRow(
                case=f"{case}, {what}{unit}",
                ours_s=ours_s,
                reference=title,
                reference_s=other_s,
                max_abs_diff=difference,
                sizes={
                    "clips": keypoints.shape[0],
                    "frames": keypoints.shape[1],
                    "joints": keypoints.shape[2],
                },
                dtype=str(keypoints.dtype).removeprefix("torch."),
                threads=threads,
            )
        )
    return rows
