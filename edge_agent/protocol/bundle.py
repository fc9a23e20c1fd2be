"""A deployment in one file: a zip of stored members, in a fixed order, the same bytes for the same content. Pure.

manifest.json, signatures.json, then every file of the manifest. Nothing is unpacked that the manifest does not list,
and no member longer than it says.
"""

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field

from pydantic import TypeAdapter, ValidationError

from edge_agent.protocol.errors import ManifestError
from edge_agent.protocol.manifest import MAX_MANIFEST_BYTES, FileEntry, Manifest, deployment_id, parse_manifest
from edge_agent.protocol.signature import MAX_SIGNATURES, Signature
from edge_agent.protocol.update_messages import SignedContent

SUFFIX = ".nonn"
MANIFEST_MEMBER, SIGNATURES_MEMBER = "manifest.json", "signatures.json"
MAX_SIGNATURES_BYTES = 256 * MAX_SIGNATURES
_EPOCH = (1980, 1, 1, 0, 0, 0)  # zip's earliest time: no clock in the bytes
_SIGNATURES = TypeAdapter(tuple[Signature, ...])


@dataclass(frozen=True)
class Bundle:
    """A whole deployment in memory. `files`: content by name, checked against the manifest."""

    manifest_bytes: bytes
    manifest: Manifest
    files: dict[str, bytes] = field(repr=False)
    signatures: tuple[Signature, ...] = ()

    @property
    def id(self) -> str:
        """The deployment id: a hash of the manifest, which holds the hash of everything else."""
        return deployment_id(self.manifest_bytes)

    @property
    def signed_manifest(self) -> SignedContent:
        """The manifest as it travels."""
        return SignedContent.of(self.manifest_bytes, self.signatures)

    def to_bytes(self) -> bytes:
        """The file."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            _add(archive, MANIFEST_MEMBER, self.manifest_bytes)
            _add(archive, SIGNATURES_MEMBER, _encode_signatures(self.signatures))
            for entry in self.manifest.files():
                _add(archive, entry.file, self.files[entry.file])
        return buffer.getvalue()


def make_bundle(
    manifest_bytes: bytes, read: Callable[[FileEntry], bytes], signatures: tuple[Signature, ...] = ()
) -> Bundle:
    """Collect every file of the manifest; `read` gives the bytes. ManifestError if one is not as listed."""
    manifest = parse_manifest(manifest_bytes)
    files = {entry.file: entry.check(read(entry)) for entry in manifest.files()}
    return Bundle(manifest_bytes, manifest, files, signatures)


def parse_bundle(content: bytes) -> Bundle:
    """Read a bundle and check lengths and hashes, not signatures; ManifestError says what does not fit."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _read(archive)
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, RuntimeError, OverflowError) as error:
        raise ManifestError(f"bundle: not a {SUFFIX} file ({str(error)[:100]})") from None


def _read(archive: zipfile.ZipFile) -> Bundle:
    members = {member.filename: member for member in archive.infolist()}
    if len(members) != len(archive.infolist()):
        raise ManifestError("bundle: two members of one name")
    if any(member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 for member in members.values()):
        raise ManifestError("bundle: compressed or encrypted members; expected stored ones")
    manifest_bytes = _member(archive, members, MANIFEST_MEMBER, MAX_MANIFEST_BYTES)
    signatures = _decode_signatures(_member(archive, members, SIGNATURES_MEMBER, MAX_SIGNATURES_BYTES))
    bundle = make_bundle(
        manifest_bytes, lambda entry: _member(archive, members, entry.file, entry.size_bytes), signatures
    )
    extra = sorted(set(members) - {MANIFEST_MEMBER, SIGNATURES_MEMBER} - set(bundle.files))
    if extra:
        raise ManifestError(f"bundle: {extra[0]}: not in the manifest")
    return bundle


def _member(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], name: str, max_bytes: int) -> bytes:
    if name not in members:
        raise ManifestError(f"bundle: {name} is missing")
    if members[name].file_size > max_bytes:
        raise ManifestError(f"bundle: {name}: {members[name].file_size} bytes, expected at most {max_bytes}")
    return archive.read(name)


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    member = zipfile.ZipInfo(name, _EPOCH)
    member.external_attr = 0o644 << 16
    archive.writestr(member, content)


def _encode_signatures(signatures: tuple[Signature, ...]) -> bytes:
    return (json.dumps([signature.model_dump() for signature in signatures], indent=2, sort_keys=True) + "\n").encode()


def _decode_signatures(content: bytes) -> tuple[Signature, ...]:
    try:
        signatures = _SIGNATURES.validate_json(content)
    except ValidationError as error:
        raise ManifestError(f"bundle: signatures: {error.errors(include_url=False)[0]['msg']}") from None
    if len(signatures) > MAX_SIGNATURES:
        raise ManifestError(f"bundle: {len(signatures)} signatures, expected at most {MAX_SIGNATURES}")
    return signatures
