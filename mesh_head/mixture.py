"""Several data sets in every batch: which there are, and how many clips each gives."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from body_models.joint_regressors import JointRegressor
from body_models.smpl import SmplBody
from core.datasets.mesh_sequences import Gender
from core.keypoints.clip import NormalisedClip
from core.motion.sequence import MotionSequence
from core.random_seeds import seeded_generator
from core.rotations import chordal_mean
from core.settings import require_number
from mesh_head.losses import MeshTarget
from mesh_head.motion_data import (
    ClipSynthesizer,
    MotionAugmentation,
    MotionLibrary,
    MotionSource,
    SyntheticClips,
)
from mesh_head.recorded_data import RecordedFolder, RecordedLibrary
from mesh_head.supervision import SupervisedBody


class MotionClipSource(nn.Module):
    """Clips of motion before virtual cameras."""

    def __init__(
        self, library: MotionLibrary, augmentation: MotionAugmentation, synthesizer: ClipSynthesizer
    ) -> None:
        super().__init__()
        self.library = library
        self.augmentation = augmentation
        self.synthesizer = synthesizer

    @property
    def num_too_short(self) -> int:
        return self.library.num_too_short

    def forward(self, num_clips: int, num_frames: int, generator: torch.Generator) -> SyntheticClips:
        clips = self.library.sample(num_clips, num_frames, generator)
        synthetic: SyntheticClips = self.synthesizer(self.augmentation(clips, generator), generator)
        return synthetic

    def mean_body_rotmat(self) -> Float[Tensor, "23 3 3"]:
        return self.library.mean_body_rotmat()


ClipSource = MotionClipSource | RecordedLibrary


class Mixture(nn.Module):
    """Draws every batch from several sources.

    A source's share of each batch is its weight's share, rounded up or down at random so that it is exact on
    average. What is drawn is a function of the seeds alone.

    Args:
        sources: by name.
        weights: of the same names, above 0.
        fps: the frame rate of all of them.
    """

    def __init__(
        self, sources: Mapping[str, ClipSource], weights: Mapping[str, float | int], *, fps: float
    ) -> None:
        super().__init__()
        assert sources.keys() == weights.keys()
        self.fps = fps
        self.sources: Any = nn.ModuleDict(sources)  # of `ClipSource`s
        self.weights = dict(weights)

    @property
    def num_too_short(self) -> int:
        return sum(source.num_too_short for source in self.sources.values())

    def draw(
        self, num_clips: int, num_frames: int, *seeds: int, device: torch.device
    ) -> Iterator[tuple[NormalisedClip, MeshTarget]]:
        """The parts of a batch; a source whose share is rounded to no clip is passed over."""
        if len(self.sources) == 1:
            (source,) = self.sources.values()
            yield source(num_clips, num_frames, seeded_generator(*seeds, device=device)).normalised()
            return
        # From 1: a trailing 0 would give the numbers that `counts` has used.
        for number, (name, count) in enumerate(self.counts(num_clips, *seeds).items(), start=1):
            if count > 0:
                generator = seeded_generator(*seeds, number, device=device)
                yield self.sources[name](count, num_frames, generator).normalised()

    def counts(self, num_clips: int, *seeds: int) -> dict[str, int]:
        """Clips of each source in one batch: systematic sampling, one random offset for all shares."""
        offset = torch.rand((), generator=seeded_generator(*seeds, device=torch.device("cpu"))).item()
        total = sum(self.weights.values())
        counts, reached, given = {}, 0.0, 0
        for name in self.sources:
            reached += self.weights[name] / total * num_clips
            upto = min(int(reached + offset + 1e-9), num_clips)
            counts[name], given = upto - given, upto
        counts[name] += num_clips - given
        return counts

    def mean_body_rotmat(self) -> Float[Tensor, "23 3 3"]:
        """The mean of the sources' mean poses, by weight; sources without bodies have no say."""
        means = {name: source.mean_body_rotmat() for name, source in self.sources.items()}
        known = {name: mean for name, mean in means.items() if mean is not None}
        if not known:
            raise ValueError(
                f"None of {', '.join(means)} has bodies; a model of bodies needs one set that has: give "
                "procedural motion a weight."
            )
        if len(known) == 1:
            return next(iter(known.values()))
        weights = torch.tensor([self.weights[name] for name in known], dtype=torch.float64)
        mean = torch.stack(list(known.values())).double()
        return chordal_mean(mean, dim=0, weights=weights[:, None].expand(mean.shape[:2])).float()


@dataclass(frozen=True, kw_only=True)
class MixedData:
    """Data sets to mix by weight. Those without a `root` are left out; those of weight 0 too, except that all
    motion is validated on.

    Attributes:
        sets: motion (with `read`), and recorded people, by name.
        weights: of the same names.
    """

    sets: Mapping[str, MotionSource | RecordedFolder]
    weights: Mapping[str, float | int]

    def __post_init__(self) -> None:
        if self.sets.keys() != self.weights.keys():
            odd = ", ".join(sorted(self.sets.keys() ^ self.weights.keys()))
            raise ValueError(
                f"data.sets and data.weights must have the same names, but {odd} is in one only."
            )
        for name, weight in self.weights.items():
            require_number(f"data.weights.{name}", weight, least=0.0)
        if not self.training_sets:
            raise ValueError(
                "None of the data sets has both a root and a weight above 0: say data.sets.NAME.root=FOLDER for "
                f"one of {', '.join(self.sets)}."
            )

    @property
    def present_sets(self) -> dict[str, MotionSource | RecordedFolder]:
        """Those that are there: made from a seed, or with a root."""
        return {name: data for name, data in self.sets.items() if getattr(data, "root", "") is not None}

    @property
    def training_sets(self) -> dict[str, MotionSource | RecordedFolder]:
        return {name: data for name, data in self.present_sets.items() if self.weights[name] > 0}

    @property
    def motion_sets(self) -> dict[str, MotionSource]:
        """What is validated on, whatever its weight."""
        return {
            name: data for name, data in self.present_sets.items() if not isinstance(data, RecordedFolder)
        }

    def require_one_rate(self) -> None:
        """ValueError if what is trained and validated on is of several frame rates.

        A clip does not say its own: one model would learn that the same motion has several speeds.
        """
        rates = {
            f"data.sets.{name}.fps": data.fps
            for name, data in (self.training_sets | self.motion_sets).items()
            if hasattr(data, "fps")
        }
        for key, fps in rates.items():
            require_number(key, fps, above=0.0)
        if len(set(rates.values())) > 1:
            listed = ", ".join(f"{key}={fps:g}" for key, fps in rates.items())
            raise ValueError(f"Data sets are mixed, and validated on, at one frame rate; set {listed} alike.")

    def read(self, split: str) -> list[MotionSequence]:
        """The motion of all sets that are motion."""
        motion = self.motion_sets.values()
        if not motion:
            raise ValueError(
                "Models are validated on motion, but none of the data sets is motion: keep procedural motion, if "
                "only with data.weights.procedural=0."
            )
        return [sequence for data in motion for sequence in data.read(split)]


def build_mixture(
    data: MotionSource,
    *,
    max_clip_frames: int,
    augmentation: MotionAugmentation,
    synthesizer: ClipSynthesizer,
    regressor: JointRegressor,
    body_model: str,
    load_body: Callable[[Gender], SmplBody],
) -> Mixture:
    """What training draws from: one kind of motion, or all of a `MixedData`'s sets.

    Args:
        regressor: the synthesizer's skeleton from the vertices of a whole body.
        body_model: the shape space of the synthesizer's body.
        load_body: the body of another gender, with the same mesh; called only where it is needed.

    Raises:
        ValueError: the data cannot be trained on, or are of several frame rates.
    """
    if not isinstance(data, MotionSource):
        raise ValueError(
            "These data cannot be trained on by themselves; recorded people are part of a mixture, "
            "data=mixed data.sets.three_dpw.root=FOLDER."
        )
    if isinstance(data, MixedData):
        data.require_one_rate()
        sets, weights = data.training_sets, {name: data.weights[name] for name in data.training_sets}
    else:
        sets, weights = {"motion": data}, {"motion": 1.0}
    body = synthesizer.body

    def body_of_gender(gender: Gender) -> SupervisedBody:
        ids = body.sampled_vertex_ids
        return SupervisedBody(
            body=load_body(gender), regressor=regressor, num_vertices=len(ids), sampled_vertex_ids=ids
        )

    sources: dict[str, ClipSource] = {}
    rates: list[float] = []
    for name, part in sets.items():
        if isinstance(part, RecordedFolder):
            rates.append(part.fps)
            sources[name] = RecordedLibrary(
                part.read(),
                folder=part,
                body=body,
                body_model=body_model,
                body_of_gender=body_of_gender,
                max_clip_frames=max_clip_frames,
                mirror_probability=augmentation.mirror_probability,
            )
        else:
            sequences = part.read("train")
            library = MotionLibrary(sequences, max_clip_frames=max_clip_frames)
            rates.append(sequences[0].fps)
            sources[name] = MotionClipSource(library, augmentation, synthesizer)
    return Mixture(sources, weights, fps=rates[0])
