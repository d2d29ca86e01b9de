"""Random numbers that depend on what they are for and on nothing else."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, purpose: str, index: int) -> np.random.Generator:
    """Give the generator for one purpose and one item.

    Parameters
    ----------
    seed
        Seed of the whole set.
    purpose
        What is drawn: generators of different purposes are independent.
    index
        Number of the item.

    Returns
    -------
    numpy.random.Generator
        Philox, a counter-based generator, keyed by a hash of the three: any item can be drawn alone, in any order.
    """
    key = hashlib.blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(key, dtype="<u8")))
