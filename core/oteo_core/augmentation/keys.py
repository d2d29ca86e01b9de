"""What a random draw is for, and the generator that belongs to it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

REDRAW = 1 << 20
"""Copy number n + k * REDRAW is the k-th new draw of copy n, after one that changed nothing."""


@dataclass(frozen=True, slots=True)
class AugmentationKey:
    """Which copy of which sample is drawn.

    Attributes
    ----------
    sample
        What the sample is, whatever it is called: its SHA-256 or pixel digest.
    copy
        Number of the copy, from 0; a trainer gives the epoch.
    seed
        Seed of the whole.
    """

    sample: str
    copy: int = 0
    seed: int = 0


def step_generator(policy_digest: str, key: AugmentationKey, step: int) -> np.random.Generator:
    """Give the generator of one step of one copy.

    Parameters
    ----------
    policy_digest
        `Policy.digest`.
    key
        Sample, copy and seed.
    step
        Number of the step, from 0; -1 for draws that belong to the policy as a whole.

    Returns
    -------
    numpy.random.Generator
        Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), keyed by a BLAKE2 hash of all five.
    """
    words = f"{policy_digest}/{key.seed}/{key.sample}/{key.copy}/{step}".encode()
    bits = hashlib.blake2b(words, digest_size=16, person=b"oteo-augment").digest()
    # As one number: NumPy takes half as long for it as for an array of two.
    return np.random.Generator(np.random.Philox(key=int.from_bytes(bits, "little")))
