"""How alike two pictures look: structural similarity over blocks of 8 × 8 pixels (Wang et al., 2004)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_BLOCK = 8
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def ssim_map(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """The similarity (up to 1) of each block of two grey pictures of the same size."""
    a, b = _blocks(one), _blocks(other)
    mean_a, mean_b = a.mean(axis=(1, 3)), b.mean(axis=(1, 3))
    var_a, var_b = a.var(axis=(1, 3)), b.var(axis=(1, 3))
    together = (a * b).mean(axis=(1, 3)) - mean_a * mean_b
    similar: npt.NDArray[np.float64] = (
        (2 * mean_a * mean_b + _C1)
        * (2 * together + _C2)
        / ((mean_a**2 + mean_b**2 + _C1) * (var_a + var_b + _C2))
    )
    return similar


def _blocks(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    rows, columns = (length // _BLOCK for length in picture.shape)
    whole = picture[: rows * _BLOCK, : columns * _BLOCK].astype(np.float64)
    return whole.reshape(rows, _BLOCK, columns, _BLOCK)
