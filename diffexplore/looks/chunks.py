"""The texts in a picture file: PNG's text chunks, before and after the pixels, and the EXIF of PNG, WebP and JPEG.

The file is walked piece by piece and no pixel is decoded, so a picture of any size costs what its texts cost. It comes
from a stranger: pieces and sizes are capped, and every problem is one sentence.
"""

import struct
import zlib
from collections.abc import Iterator, Set
from typing import BinaryIO, Final

__all__ = ["DESCRIPTION", "MAX_TEXT", "USER_COMMENT", "XMP", "texts"]

MAX_TEXT: Final = 2**20
"""Characters of one text; a prompt of 10,000 words is about 60,000."""
MAX_PIECES: Final = 2**16
"""Pieces of a file that are looked at; a PNG of 100 megabytes has some 12,000."""
MAX_EXIF: Final = 8
"""Of them, pieces of EXIF that are read; there should be one."""

DESCRIPTION: Final = 0x010E
"""The EXIF tag for what a picture is of."""
USER_COMMENT: Final = 0x9286
"""The EXIF tag, in the directory of its own, where most programs put what a PNG has under ``parameters``."""

XMP: Final = "XML:com.adobe.xmp"
"""The key of a PNG's XMP, which other files have without one."""

_EXIF: Final = 0x8769
_XMP_OF_JPEG: Final = b"http://ns.adobe.com/xap/1.0/\0"
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_MAX_BYTES: Final = 4 * MAX_TEXT + 256


def texts(file: BinaryIO, wanted: frozenset[str]) -> dict[str, str]:
    """The texts of a PNG, WebP or JPEG by their keys; of several with one key the first.

    XMP is :data:`XMP` in any of them. An EXIF user comment is ``parameters``, where most programs put what a PNG has
    under that key. Of the other texts in EXIF, those that start with a wanted key and a colon are taken.

    Args:
        file: the file, which can be read from any place of it.
        wanted: the keys to look for.

    Raises:
        ValueError: the file is none of these, is damaged before the texts end, or has too many pieces or too long a
            text; the sentence goes on from the file's name.
    """
    found: dict[str, str] = {}
    missing = set(wanted)  # what was found is not unpacked again
    head = file.read(12)
    file.seek(0)
    try:
        if head.startswith(_PNG):
            pieces = _of_png(file, missing)
        elif head.startswith(b"\xff\xd8\xff"):
            pieces = _of_jpeg(file, missing)
        elif head[:4] == b"RIFF" and head[8:] == b"WEBP":
            pieces = _of_webp(file, missing)
        else:
            raise ValueError("is not a readable PNG, WebP or JPEG")
        for key, text in pieces:
            if key in missing:
                found[key] = text
                missing.remove(key)
            if not missing:
                break
    except (EOFError, ValueError) as error:
        # What was read before the damage is whole.
        if not found and isinstance(error, EOFError):
            raise ValueError("is not a readable PNG, WebP or JPEG: it breaks off") from None
        if not found:
            raise
    for text in found.values():
        if len(text) > MAX_TEXT:
            raise ValueError(f"holds a text of {len(text):,} characters, at most {MAX_TEXT:,} are read")
    return found


def _read(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise EOFError
    return data


# PNG (ISO/IEC 15948)


def _of_png(file: BinaryIO, missing: Set[str]) -> Iterator[tuple[str, str]]:
    file.seek(len(_PNG))
    exif = 0
    for _ in range(MAX_PIECES):
        length, kind = struct.unpack(">I4s", _read(file, 8))
        if length >= 2**31 or not kind.isalpha():
            raise ValueError("is not a readable PNG, WebP or JPEG: its pieces are damaged")
        if kind == b"IEND":
            return
        if kind not in (b"tEXt", b"zTXt", b"iTXt", b"eXIf"):
            file.seek(length + 4, 1)
            continue
        # The key is at most 79 bytes: a text that nobody asked for is stepped over.
        head = _read(file, min(length, 80))
        key = head.partition(b"\0")[0].decode("latin-1")
        if kind != b"eXIf" and key not in missing:
            file.seek(length - len(head) + 4, 1)
            continue
        if length > _MAX_BYTES:
            raise ValueError(f"holds a text of {length:,} bytes, at most {MAX_TEXT:,} are read")
        data = head + _read(file, length - len(head))
        if zlib.crc32(kind + data) != struct.unpack(">I", _read(file, 4))[0]:
            raise ValueError(f"holds a damaged text {key!r}")
        if kind == b"eXIf" and exif < MAX_EXIF:
            exif += 1
            yield from _of_exif(data, missing)
        elif kind != b"eXIf":
            yield key, _png_text(kind, data)
    raise ValueError(f"is in more than {MAX_PIECES:,} pieces")


def _png_text(kind: bytes, data: bytes) -> str:
    key, _, rest = data.partition(b"\0")
    if kind == b"tEXt":
        return rest.decode("latin-1")
    if kind == b"zTXt":
        return _inflated(rest[1:], key).decode("latin-1")
    compressed, rest = rest[:1] == b"\1", rest[2:]
    text = rest.partition(b"\0")[2].partition(b"\0")[2]  # after the language and the translated key
    try:
        return (_inflated(text, key) if compressed else text).decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"holds a damaged text {key.decode('latin-1')!r}") from None


def _inflated(data: bytes, key: bytes) -> bytes:
    unpack = zlib.decompressobj()
    try:
        out = unpack.decompress(data, _MAX_BYTES)
    except zlib.error:
        raise ValueError(f"holds a damaged text {key.decode('latin-1')!r}") from None
    if unpack.unconsumed_tail:
        raise ValueError(f"holds a text that unpacks to more than {_MAX_BYTES:,} bytes, at most {MAX_TEXT:,} are read")
    return out


# JPEG (ITU-T T.81) and WebP (RFC 9649)


def _of_jpeg(file: BinaryIO, missing: Set[str]) -> Iterator[tuple[str, str]]:
    file.seek(2)
    exif = 0
    for _ in range(MAX_PIECES):
        marker = _read(file, 2)
        if marker[0] != 0xFF:
            raise ValueError("is not a readable PNG, WebP or JPEG: its pieces are damaged")
        if marker[1] == 0xFF:  # filling
            file.seek(-1, 1)
            continue
        if marker[1] in (0xD9, 0xDA):  # the end, or the pixels: EXIF stands before them
            return
        if marker[1] in (0x01, *range(0xD0, 0xD8)):  # markers that stand alone
            continue
        length = struct.unpack(">H", _read(file, 2))[0] - 2
        if length < 0:
            raise ValueError("is not a readable PNG, WebP or JPEG: its pieces are damaged")
        data = _read(file, length)
        if marker[1] == 0xE1 and data.startswith(b"Exif\0\0") and exif < MAX_EXIF:
            exif += 1
            yield from _of_exif(data, missing)
        elif marker[1] == 0xE1 and data.startswith(_XMP_OF_JPEG):
            yield XMP, data.removeprefix(_XMP_OF_JPEG).decode("utf-8", "replace")
    raise ValueError(f"is in more than {MAX_PIECES:,} pieces")


def _of_webp(file: BinaryIO, missing: Set[str]) -> Iterator[tuple[str, str]]:
    end = 8 + struct.unpack("<I", _read(file, 8)[4:])[0]
    file.seek(12)
    exif = 0
    for _ in range(MAX_PIECES):
        if file.tell() + 8 > end:
            return
        kind, length = struct.unpack("<4sI", _read(file, 8))
        if kind == b"EXIF" and exif < MAX_EXIF:
            exif += 1
            if length > _MAX_BYTES:
                raise ValueError(f"holds {length:,} bytes of EXIF, at most {_MAX_BYTES:,} are read")
            yield from _of_exif(_read(file, length), missing)
            file.seek(length % 2, 1)
        elif kind == b"XMP " and XMP in missing and length <= _MAX_BYTES:
            yield XMP, _read(file, length).decode("utf-8", "replace")
            file.seek(length % 2, 1)
        else:
            file.seek(length + length % 2, 1)
    raise ValueError(f"is in more than {MAX_PIECES:,} pieces")


# EXIF (CIPA DC-008), which is a TIFF with no picture


def _of_exif(data: bytes, missing: Set[str]) -> Iterator[tuple[str, str]]:
    tiff = data.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return
    inner = -1
    try:
        for tag, start, count in _entries(tiff, order, struct.unpack_from(f"{order}I", tiff, 4)[0]):
            if tag == _EXIF:
                inner = struct.unpack_from(f"{order}I", tiff, start)[0]
            # Many tags may share one long text: only that which is wanted is taken out.
            key, colon, _ = tiff[start : start + min(count, 80)].decode("utf-8", "replace").partition(":")
            if colon and key in missing:
                text = tiff[start : start + count].decode("utf-8", "replace").rstrip("\0")
                yield key, text.partition(":")[2]
        if inner >= 0 and "parameters" in missing:
            for tag, start, count in _entries(tiff, order, inner):
                if tag == USER_COMMENT and count:
                    yield "parameters", _comment(tiff[start : start + count])
                    break
    except struct.error:  # damaged: what came before is whole
        return


def _entries(tiff: bytes, order: str, at: int) -> Iterator[tuple[int, int, int]]:
    """The tags of one directory that hold bytes or text, where those start and how many they are; and the pointers to
    another directory."""
    for place in range(at + 2, at + 2 + 12 * struct.unpack_from(f"{order}H", tiff, at)[0], 12):
        tag, kind, count, where = struct.unpack_from(f"{order}HHII", tiff, place)
        if kind in (1, 2, 7):
            yield tag, place + 8 if count <= 4 else where, count
        elif kind == 4 and count == 1:
            yield tag, place + 8, 4


def _comment(data: bytes) -> str:
    """An EXIF user comment: eight bytes say how the rest is coded."""
    code, text = data[:8], data[8:]
    if code == b"UNICODE\0":
        # The standard leaves the order of bytes open: in most texts the high bytes are zero.
        order = "utf-16-le" if text[1::2].count(0) > text[::2].count(0) else "utf-16-be"
        return text.decode(order, "replace").removeprefix("\ufeff").rstrip("\0")
    return text.decode("utf-8", "replace").strip("\0")
