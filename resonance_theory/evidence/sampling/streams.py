"""Addressed randomness: a stream belongs to (seed, name, block), never to the worker that happens to draw from it."""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["generator"]


def generator(seed: int, name: str, block: int) -> np.random.Generator:
    """The random generator of one block of one task; independent for different seeds, names or blocks.

    Philox (counter-based) under a SeedSequence whose spawn key is the name's BLAKE2b hash followed by the block.
    """
    digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
    words = [int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4)]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy=seed, spawn_key=(*words, block))))
