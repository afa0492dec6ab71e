"""The random numbers that the language is given: jitter, States.UUID, States.MathRandom."""

from __future__ import annotations

import random

_source = random.SystemRandom()


class SystemRandom:
    """Random numbers that nobody can foretell."""

    def bits(self, n: int) -> int:
        """Return an integer of n random bits."""
        return _source.getrandbits(n)

    def uniform(self) -> float:
        """Return a number from [0, 1)."""
        return _source.random()
