"""What is known of αZ + βI without computing it: its largest singular values and how far its singular vectors agree."""

from __future__ import annotations

import functools
import math

import numpy as np

_POINTS = 4096
"""Places at which the density is computed: singular values are then right to four digits."""


@functools.lru_cache(maxsize=256)
def top_singular_values(
    width: int, rank: int, random: float, identity: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the `rank` largest singular values of αZ + βI [width, width], and u·v of each one's pair of vectors.

    Z has independent entries of variance 1/width. Both are the limits for large matrices, to which single ones come as
    near as 1/width: with g the trace of the resolvent of [[0, M], [Mᵀ, 0]] at w, and s = w − α²g,

        g = s / (s² − β²)        (Girko's Hermitization; Tao & Vu 2010, arXiv:0807.4898, appendix)

    is a cubic in g; −2·Im g/π is the density of the singular values at w, and the same resolvent's upper right block,
    β / (s² − β²), says how much of u lies along v. Let g be the root in the lower half-plane.

    Args:
        width: rows and columns of the matrix.
        rank: number of values, at most the width.
        random: α, positive.
        identity: β.
    """
    places = np.linspace(0.0, abs(identity) + 2 * random, _POINTS + 1)[1:]  # no singular value is larger, in the limit
    noise = random**2
    companion = np.zeros((_POINTS, 3, 3))
    companion[:, 0, 0] = 2 * places / noise
    companion[:, 0, 1] = -(places**2 - identity**2 + noise) / noise**2
    companion[:, 0, 2] = places / noise**2
    companion[:, 1, 0] = companion[:, 2, 1] = 1.0
    roots = np.linalg.eigvals(companion)
    trace = roots[np.arange(_POINTS), roots.imag.argmin(axis=1)]
    shifted = places - noise * trace
    across = identity / (shifted**2 - identity**2)
    density = np.maximum(-trace.imag, 0.0)
    inside = density > 1e-9
    agreement = np.divide(across.imag, trace.imag, out=np.zeros(_POINTS), where=inside)
    above = np.cumsum(density[::-1])
    wanted = (np.arange(rank) + 0.5) / width
    values = np.interp(wanted, above / above[-1], places[::-1])
    return tuple(values.tolist()), tuple(np.interp(values, places[inside], agreement[inside]).tolist())


def apart(agreements: tuple[float, ...]) -> list[float]:
    """Returns how much of each unit vector u lies across its v, from how much lies along it."""
    return [math.sqrt(max(0.0, 1.0 - along * along)) for along in agreements]
