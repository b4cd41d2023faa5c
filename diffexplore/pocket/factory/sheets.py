"""Pictures of the factory side by side, to be looked at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def save_grid(pictures: torch.Tensor, path: Path, columns: int, side: int | None = None) -> None:
    """Pictures (N, 3, S, S) in -1..1 row by row as a PNG or JPEG, a row that is not full filled with white.

    Args:
        pictures: what is shown.
        path: where to.
        columns: in a row.
        side: of a cell in pixels; None: as large as they are.
    """
    from PIL import Image

    pixels = ((pictures.float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    rows, size = -(-len(pixels) // columns), pixels.shape[1]
    pixels = np.concatenate([pixels, np.full((rows * columns - len(pixels), *pixels.shape[1:]), 255, np.uint8)])
    grid = pixels.reshape(rows, columns, size, size, 3).swapaxes(1, 2).reshape(rows * size, columns * size, 3)
    side = side or size
    Image.fromarray(grid).resize((columns * side, rows * side), Image.Resampling.NEAREST).save(path)
