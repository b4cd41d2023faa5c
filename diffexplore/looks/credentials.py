"""Content Credentials: a signed statement in a picture file that a model made it (C2PA, https://c2pa.org), written and
verified by the library of the Content Authenticity Initiative, in the extra ``marks``.

The signature proves that the file is, to the bit, what was signed, and by whose key. Whose key it is, the certificate
says; a certificate that is made on the spot, which is what one gets without one of one's own, is signed by nobody and
says nothing about who. And a picture without credentials is no sign of anything: they are gone with the next program
that does not know them, and with every screenshot.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from diffexplore.looks.marks import ALGORITHMIC
from diffexplore.record.file import written
from diffexplore.values import a_file, a_path
from diffexplore.words import sentence, shown

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["Credentials", "credentials", "sign"]

_FORMATS: Final = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
_MOST: Final = 2**28  # bytes of a file that is read
# Nothing of a picture makes this machine ask another one.
_OFFLINE: Final = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
_NOBODY: Final = "made on the spot"
_MISSING: Final = "Content Credentials need the extra marks: pip install 'diffexplore[marks]'"


@dataclass(frozen=True)
class Credentials:
    """What a picture's Content Credentials say, and what of it holds.

    Attributes:
        by: the organisation in the certificate, and its name; as good as who signed that.
        trusted: whether the certificate is from one of those that the standard's list trusts. One made on the spot is
            not.
        intact: whether the file is what was signed, to the bit, and the signature is right. Of the statement itself
            some bytes are filling, which the standard leaves out.
        sources: digital source types of its actions, such as "trainedAlgorithmicMedia".
        program: what wrote it.
        wrong: what does not hold, in the words of the standard; "signingCredential.untrusted" is not among them.
    """

    by: str
    trusted: bool
    intact: bool
    sources: tuple[str, ...]
    program: str
    wrong: tuple[str, ...]

    def __str__(self) -> str:
        made = "made by a model" if any("lgorithmicMedia" in one for one in self.sources) else "of unknown making"
        if not self.intact:
            return f"These credentials do not hold ({', '.join(self.wrong)}): the picture was changed, or they were."
        who = f"signed by {self.by}" if self.trusted else f"signed by whoever calls themselves {self.by!r}"
        return f"{made[0].upper()}{made[1:]}, unchanged since, {who}."


def sign(
    picture: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    certificate: str | os.PathLike[str] | None = None,
    key: str | os.PathLike[str] | None = None,
    source: str = ALGORITHMIC,
) -> Credentials:
    """Write Content Credentials into a picture file: that it was created, by a model.

    Args:
        picture: a .png, .jpg or .webp.
        out: where to write; None: in place of `picture`.
        certificate: a PEM file of the certificate and those it is signed by, for a key on the curve P-256; with
            `key`. None: one that is made on the spot, which proves nothing about who signed.
        key: a PEM file of its private key, not encrypted. It is read, used and forgotten.
        source: a digital source type, as a URI (`looks.marks`).

    Returns:
        What stands in the file now.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: one sentence, for another kind of file, a certificate that is refused, or one without a key.
        ImportError: without the extra ``marks``; says how to get it.
        OSError: the file cannot be written.
    """
    place, kind = _file(picture)
    target = place if out is None else Path(a_path(out))  # `~` is read where it is written
    if _FORMATS.get(target.suffix.lower()) != kind:
        raise ValueError(
            f"it is written in the format that it has, {place.suffix}, got {shown(os.fspath(target), 200)}"
        )
    if (certificate is None) != (key is None):
        raise ValueError("a certificate and its key go together, got one of them")
    c2pa = _library()
    chain, secret = _made() if certificate is None or key is None else (_read(certificate), _read(key))
    manifest = {
        "claim_generator_info": [{"name": "diffexplore"}],
        "title": place.name,
        "format": kind,
        "assertions": [
            {
                "label": "c2pa.actions.v2",
                "data": {"actions": [{"action": "c2pa.created", "digitalSourceType": source}]},
            }
        ],
    }
    made = io.BytesIO()
    try:
        signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo("es256", chain, secret, None))
        builder = c2pa.Builder(json.dumps(manifest), c2pa.Context.from_dict(_OFFLINE))
        builder.sign(signer, kind, io.BytesIO(_read(place)), made)
    except c2pa.C2paError as error:
        raise ValueError(f"{shown(place.name)} could not be signed: {sentence(error)}") from None
    with written(target) as file:
        file.write(made.getvalue())
    found = credentials(target)
    assert found is not None, "they were written just now"
    return found


def credentials(picture: str | os.PathLike[str]) -> Credentials | None:
    """What the Content Credentials of a picture file say; None where it has none. Nothing is fetched from elsewhere.

    Args:
        picture: a .png, .jpg or .webp.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: one sentence, for another kind of file, or credentials that cannot be read.
        ImportError: without the extra ``marks``; says how to get it.
    """
    place, kind = _file(picture)
    c2pa = _library()
    try:
        reader = c2pa.Reader(kind, io.BytesIO(_read(place)), context=c2pa.Context.from_dict(_OFFLINE))
        told, state = json.loads(reader.json()), str(reader.get_validation_state())
    except c2pa.C2paError.ManifestNotFound:
        return None
    except (c2pa.C2paError, ValueError) as error:
        raise ValueError(f"the credentials of {shown(place.name)} cannot be read: {sentence(error)}") from None
    return _told(told, state)


def _told(told: dict[str, Any], state: str) -> Credentials:
    manifest = told.get("manifests", {}).get(told.get("active_manifest"), {})
    signed = manifest.get("signature_info", {})
    found = [
        str(action.get("digitalSourceType", "")).rpartition("/")[2]
        for assertion in manifest.get("assertions", ())
        if str(assertion.get("label", "")).startswith("c2pa.actions")
        for action in assertion.get("data", {}).get("actions", ())
    ]
    failed = told.get("validation_results", {}).get("activeManifest", {}).get("failure", ())
    wrong = [str(one.get("code")) for one in failed if one.get("code") != "signingCredential.untrusted"]
    names = [str(signed[name]) for name in ("issuer", "common_name") if signed.get(name)]
    programs = [str(one.get("name", "")) for one in manifest.get("claim_generator_info", ())]
    return Credentials(
        ", ".join(names) or "nobody", state == "Trusted", state in ("Valid", "Trusted"),
        tuple(dict.fromkeys(one for one in found if one)), ", ".join(programs), tuple(dict.fromkeys(wrong)),
    )  # fmt: skip


def _library() -> ModuleType:
    try:
        import c2pa
    except ImportError:
        raise ImportError(_MISSING) from None
    return c2pa


def _file(picture: Any) -> tuple[Path, str]:
    if not isinstance(picture, (str, os.PathLike)):
        raise ValueError(f"a picture file is said by its path, got {shown(picture)}")
    kind = _FORMATS.get(Path(picture).suffix.lower())
    if kind is None:
        raise ValueError(f"credentials are for {', '.join(_FORMATS)}; got {shown(os.fspath(picture), 200)}")
    return a_file(picture), kind


def _read(file: str | os.PathLike[str]) -> bytes:
    place = a_file(file)
    if place.stat().st_size > _MOST:
        raise ValueError(f"{shown(place.name)} has {place.stat().st_size:,} bytes, at most {_MOST:,} are read")
    return place.read_bytes()


def _made() -> tuple[bytes, bytes]:
    """A certificate for a year, of a root that nobody knows, and its key; both as PEM. A new one each time: kept, a key
    of ours would be a secret to look after.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
    except ImportError:
        raise ImportError(_MISSING) from None
    now = dt.datetime.now(dt.UTC)
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

    def named(what: str) -> Any:
        pairs = ((NameOID.COMMON_NAME, f"{_NOBODY}{what}"), (NameOID.ORGANIZATION_NAME, "nobody"))
        return x509.Name([x509.NameAttribute(oid, text) for oid, text in pairs])

    def certificate(subject: Any, public: Any, root: bool) -> bytes:
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
             "decipher_only"), False,
        )  # fmt: skip
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(named(", root"))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=365))
            .add_extension(x509.BasicConstraints(ca=root, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
            .add_extension(
                x509.KeyUsage(digital_signature=not root, key_cert_sign=root, crl_sign=root, **usage), critical=True
            )
        )
        if not root:  # what the standard asks of a signer of claims, section 14.5
            made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        return made.sign(root_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    chain = certificate(named(""), key.public_key(), False) + certificate(named(", root"), root_key.public_key(), True)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return chain, secret
