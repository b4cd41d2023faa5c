"""Pictures of the factory side by side, to be looked at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    import torch

    from diffexplore.pocket.factory.measure import Evidence


def save_grid(pictures: torch.Tensor, path: Path, columns: int, side: int | None = None) -> None:
    """Pictures (N, 3, S, S) in -1..1 row by row as a PNG or JPEG, a row that is not full filled with white.

    Args:
        pictures: what is shown.
        path: where to.
        columns: in a row.
        side: of a cell in pixels; None: as large as they are.
    """
    pixels = ((pictures.float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    rows, size = -(-len(pixels) // columns), pixels.shape[1]
    pixels = np.concatenate([pixels, np.full((rows * columns - len(pixels), *pixels.shape[1:]), 255, np.uint8)])
    grid = pixels.reshape(rows, columns, size, size, 3).swapaxes(1, 2).reshape(rows * size, columns * size, 3)
    side = side or size
    Image.fromarray(grid).resize((columns * side, rows * side), Image.Resampling.NEAREST).save(path)


def subject_pages(evidence: Evidence, out: Path, *, named: bool = True, cell: int = 128, rows: int = 12) -> list[Path]:
    """Pages of the contact sheet: each row the art of a subject and eight pictures of it. Without names and art, for
    somebody who is to say what they are, if not `named`."""
    pages: list[Path] = []
    out.mkdir(parents=True, exist_ok=True)
    font = ImageFont.load_default(14)
    names = evidence.subjects
    left = cell if named else 0
    for start in range(0, len(names), rows):
        part = names[start : start + rows]
        page = Image.new("RGB", (left + evidence.sheet.shape[1] * cell, len(part) * cell), "white")
        pen = ImageDraw.Draw(page)
        for k, name in enumerate(part):
            pictures = [evidence.art[start + k]] * named + list(evidence.sheet[start + k])
            for column, pixels in enumerate(pictures):
                tile = Image.fromarray(pixels).resize((cell, cell), Image.Resampling.BICUBIC)
                page.paste(tile, (column * cell, k * cell))
            if named:
                pen.text((3, k * cell + 2), name, "black", font)
        pages.append(out / f"subjects-{len(pages) + 1}.png")
        page.save(pages[-1])
    return pages


def pair_page(above: np.ndarray, below: np.ndarray, path: Path, columns: int = 16) -> None:
    """Pictures (N, S, S, 3) uint8 as a PNG, each with its partner below it."""
    side = above.shape[1]
    page = Image.new("RGB", (columns * side, -(-len(above) // columns) * 2 * side), "white")
    for k, pair in enumerate(zip(above, below, strict=True)):
        row, column = divmod(k, columns)
        for lower, pixels in enumerate(pair):
            page.paste(Image.fromarray(pixels), (column * side, (2 * row + lower) * side))
    page.save(path)


def on_white(cutout: Image.Image, size: int) -> np.ndarray:
    """A picture with transparency in the middle of a white square, (size, size, 3) uint8."""
    paper = Image.new("RGBA", (size, size), "white")
    paper.alpha_composite(cutout, ((size - cutout.width) // 2, (size - cutout.height) // 2))
    return np.asarray(paper.convert("RGB"))
