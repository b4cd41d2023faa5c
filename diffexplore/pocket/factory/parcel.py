"""A folder of models as a few files of limited size, side by side, and back: for machines that give back no more.

    python -m diffexplore.pocket.factory.parcel FOLDER_OF_PARCELS FOLDER   # unpack

A parcel is a safetensors file that holds other files as bytes under their paths; what is there twice is kept once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from diffexplore.record.file import written

LIMIT = 16 * 2**20 - 2**16
"""Bytes of a parcel at most."""
NAME = "parcel-{}.safetensors"


def pack(folder: Path, patterns: Iterable[str], out: Path, limit: int = LIMIT) -> list[Path]:
    """Put the files of a folder that fit the glob patterns into parcels in `out`; earlier parcels there are replaced.

    Returns:
        The parcels.

    Raises:
        ValueError: a file is larger than a parcel may be.
    """
    from safetensors.numpy import save

    files = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    first: dict[str, str] = {}
    same: dict[str, str] = {}
    kept: dict[str, np.ndarray] = {}
    for path in files:
        name, content = path.relative_to(folder).as_posix(), path.read_bytes()
        twin = first.setdefault(hashlib.sha256(content).hexdigest(), name)
        if twin != name:
            same[name] = twin
            continue
        if len(content) > limit - 2**16:
            raise ValueError(f"{name} has {len(content):,} bytes, and a parcel holds {limit:,}")
        kept[name] = np.frombuffer(content, np.uint8)
    bins: list[dict[str, np.ndarray]] = []
    for name in sorted(kept, key=lambda one: -kept[one].size):  # the largest first; each into the first that has room
        room = next((b for b in bins if _size(b) + kept[name].size + 300 <= limit - 2**16), None)
        if room is None:
            bins.append(room := {})
        room[name] = kept[name]
    out.mkdir(parents=True, exist_ok=True)
    made = []
    for number, content_of in enumerate(bins):
        path = out / NAME.format(number)
        with written(path) as file:
            file.write(save(content_of, {"same": json.dumps(same)} if not number else {}))
        made.append(path)
    for path in set(out.glob(NAME.format("*"))) - set(made):
        path.unlink()
    return made


def _size(content: dict[str, np.ndarray]) -> int:
    return sum(array.size + 300 for array in content.values())


def unpack(parcels: Path, folder: Path) -> list[Path]:
    """Write what the parcels in a folder hold into another.

    Returns:
        The files written.

    Raises:
        FileNotFoundError: there is no parcel.
        ValueError: a parcel names a file outside of the folder.
    """
    from safetensors import safe_open

    found = sorted(parcels.glob(NAME.format("*")))
    if not found:
        raise FileNotFoundError(f"{parcels} holds no parcel")
    contents: dict[str, bytes] = {}
    same: dict[str, str] = {}
    for parcel in found:
        with safe_open(parcel, "numpy") as file:
            same |= json.loads((file.metadata() or {}).get("same", "{}"))
            contents |= {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118
    contents |= {name: contents[twin] for name, twin in same.items()}
    made = []
    for name, content in contents.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"the parcel names {name!r}, which is outside of {folder}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with written(path) as out:
            out.write(content)
        made.append(path)
    return made


def main(argv: list[str] | None = None) -> None:
    """Unpack parcels."""
    parser = argparse.ArgumentParser(
        prog="python -m diffexplore.pocket.factory.parcel", description=__doc__.splitlines()[0]
    )
    parser.add_argument("parcels", type=Path, help="the folder that holds them")
    parser.add_argument("folder", type=Path, help="where to write what is in them")
    args = parser.parse_args(argv)
    print(f"{len(unpack(args.parcels, args.folder))} files in {args.folder}")


if __name__ == "__main__":
    main()
