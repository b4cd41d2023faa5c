"""What a saved picture says of where it is from: the digital source type of the IPTC, in a packet of XMP.

The type is a term of IPTC's vocabulary, https://cv.iptc.org/newscodes/digitalsourcetype: *trained algorithmic media*
for a picture that a model made of noise, *composite with trained algorithmic media* for one that began as a real
picture. Programs that show such labels read them there.

It is a statement in the file and no more: whoever saves the picture anew without it, or takes a screenshot, has removed
it, and whoever writes it under a photograph has made a false one. It stands as plain text, uncompressed, so that
anything can find it.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from xml.sax.saxutils import quoteattr

from diffexplore.looks import chunks
from diffexplore.values import a_file
from diffexplore.words import shown

if TYPE_CHECKING:
    from diffexplore.settings import Settings

__all__ = ["ALGORITHMIC", "COMPOSITE", "is_marked", "packet", "source_of", "sources"]

_TERMS: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/"
ALGORITHMIC: Final = f"{_TERMS}trainedAlgorithmicMedia"
"""Made by a model, of noise."""
COMPOSITE: Final = f"{_TERMS}compositeWithTrainedAlgorithmicMedia"
"""Made by a model of a picture that was handed over."""

_FOUND: Final = re.compile(
    r"DigitalSourceType.{0,80}?cv\.iptc\.org/newscodes/digitalsourcetype/([A-Za-z]{1,80})", re.DOTALL
)
_MADE: Final = frozenset(one.rpartition("/")[2] for one in (ALGORITHMIC, COMPOSITE))


def source_of(settings: Settings, info: Mapping[str, Any] | None = None) -> str:
    """The term for a picture of a run: one that starts from a picture, with less than all noise on it, is a composite;
    a forward process, in which no model was asked, is no model's work: "".
    """
    if info and info.get("forward"):
        return ""
    return COMPOSITE if settings.strength is not None and settings.strength < 1 else ALGORITHMIC


def packet(source: str = ALGORITHMIC) -> str:
    """XMP (ISO 16684-1) that says of a picture that it is of a digital source type.

    Args:
        source: the term, as a URI.

    Returns:
        "" for a source that is none.
    """
    if not source:
        return ""
    # A byte order mark and an id that the standard fixes begin a packet, so that it is found in any file.
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">\n'
        ' <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\n'
        '  <rdf:Description rdf:about=""\n'
        '    xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:CreatorTool="diffexplore"\n'
        '    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"\n'
        f"    Iptc4xmpExt:DigitalSourceType={quoteattr(source)}/>\n"
        " </rdf:RDF>\n"
        "</x:xmpmeta>\n"
        '<?xpacket end="w"?>'
    )


def sources(file: str | bytes | os.PathLike[str]) -> list[str]:
    """The digital source types that the XMP of a PNG, WebP or JPEG names, by their terms, such as
    "trainedAlgorithmicMedia"; none where it says nothing, or what it says cannot be read. No pixel is decoded, and XMP
    is searched, not parsed: what strangers write there can be anything.

    Args:
        file: the path of a picture, or its bytes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: one sentence, for what is no path and no bytes.
    """
    if isinstance(file, bytes):
        return _in(io.BytesIO(file))
    if not isinstance(file, (str, os.PathLike)):
        raise ValueError(f"a picture file is a path or its bytes, got {shown(file)}")
    with a_file(file).open("rb") as opened:
        return _in(opened)


def is_marked(file: str | bytes | os.PathLike[str]) -> bool:
    """Whether a picture file says that a model made it, or a part of it. That it does not say so proves nothing.

    Args:
        file: the path of a PNG, WebP or JPEG, or its bytes.

    Raises:
        FileNotFoundError, ValueError: as :func:`sources`.
    """
    return not _MADE.isdisjoint(sources(file))


def _in(file: io.BufferedIOBase | io.BufferedReader) -> list[str]:
    try:
        said = chunks.texts(file, frozenset({chunks.XMP}))  # type: ignore[arg-type]
    except ValueError:
        return []
    return list(dict.fromkeys(_FOUND.findall(said.get(chunks.XMP, ""))))
