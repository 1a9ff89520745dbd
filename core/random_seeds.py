"""Seeds for torch out of several numbers."""

import numpy as np
import torch


def seed_of(*numbers: int) -> int:
    """A seed for `torch.manual_seed`: equal numbers give equal ones, neighbouring numbers unrelated ones.

    Mixed, since torch's generator on the CPU takes the lower 32 bits of a seed alone.
    """
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return int(state >> np.uint64(1))  # torch takes signed 64-bit seeds


def seeded_generator(*numbers: int, device: torch.device) -> torch.Generator:
    """A generator for one purpose, see `seed_of`."""
    return torch.Generator(device).manual_seed(seed_of(*numbers))
