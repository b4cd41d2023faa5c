"""A folder goes into parcels of limited size and comes out the same."""

import numpy as np
import pytest

from diffexplore.pocket.factory import parcel

LIMIT = 400_000


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name, size in {
        "a/large.safetensors": 300_000,
        "b/other.safetensors": 290_000,
        "b/x.json": 10,
        "c.txt": 0,
    }.items():
        path = tmp_path / "from" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.bytes(size))
    (tmp_path / "from" / "b" / "twin.safetensors").write_bytes(
        (tmp_path / "from" / "a" / "large.safetensors").read_bytes()
    )
    (tmp_path / "from" / "left.pt").write_bytes(b"not asked for")
    return tmp_path / "from"


def test_everything_comes_out_as_it_went_in(folder, tmp_path):
    made = parcel.pack(folder, ["a/**/*", "b/**/*", "*.txt"], tmp_path / "out", LIMIT)
    assert len(made) == 2
    assert all(path.stat().st_size <= LIMIT for path in made)
    back = parcel.unpack(tmp_path / "out", tmp_path / "back")
    assert len(back) == 5
    for path in back:
        assert path.read_bytes() == (folder / path.relative_to(tmp_path / "back")).read_bytes()
    assert not (tmp_path / "back" / "left.pt").exists()


def test_earlier_parcels_are_replaced(folder, tmp_path):
    parcel.pack(folder, ["**/*"], tmp_path / "out", LIMIT)
    parcel.pack(folder, ["*.txt"], tmp_path / "out", LIMIT)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["parcel-0.safetensors"]


def test_what_cannot_be_packed_or_unpacked_is_said(folder, tmp_path):
    with pytest.raises(ValueError, match=r"a/large.safetensors has 300,000 bytes, and a parcel holds 200,000"):
        parcel.pack(folder, ["**/*"], tmp_path / "out", 200_000)
    with pytest.raises(FileNotFoundError, match="holds no parcel"):
        parcel.unpack(tmp_path, tmp_path / "back")


def test_a_parcel_writes_nothing_outside_of_its_folder(tmp_path):
    from safetensors.numpy import save_file

    save_file({"../outside.txt": np.zeros(3, np.uint8)}, tmp_path / "parcel-0.safetensors")
    with pytest.raises(ValueError, match="outside of"):
        parcel.unpack(tmp_path, tmp_path / "back")
    assert not (tmp_path / "outside.txt").exists()
