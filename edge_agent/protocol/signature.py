"""Ed25519 signatures over manifests and rollback orders: who may change what a fleet runs. docs/updates.md.

Every signature covers a purpose line before the content, so that bytes signed as one thing never pass as another.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from edge_agent.protocol.errors import ManifestError

# Imported where a key is used: 6 MB that an agent which was asked to verify nothing need not hold.
if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

Purpose = Literal["manifest", "rollback"]
ALGORITHM = "ed25519"
MAX_SIGNATURES = 16  # more keys than any rotation needs; each costs a verification
_PUBLIC_KEY_BYTES = 32


class Signature(BaseModel):
    """One signature and the id of the key that made it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    key_id: str = Field(pattern=r"^[0-9a-f]{16}$")
    signature: str = Field(pattern=r"^[A-Za-z0-9+/]{86}==$", description="64 bytes in base64")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that a site trusts. `content`: the 32 raw bytes."""

    content: bytes
    comment: str = ""

    @property
    def key_id(self) -> str:
        """First 16 hex digits of the raw key's sha256.

        >>> PublicKey(bytes(32)).key_id
        '66687aadf862bd77'
        """
        return hashlib.sha256(self.content).hexdigest()[:16]

    def to_line(self) -> str:
        """One line of a trusted keys file."""
        return f"{ALGORITHM} {base64.b64encode(self.content).decode()} {self.comment}".rstrip()


class SigningKey:
    """A private key; it shows its id and nothing else."""

    def __init__(self, key: "Ed25519PrivateKey") -> None:
        self._key = key

    def __repr__(self) -> str:
        return f"SigningKey({self.public('').key_id})"

    @classmethod
    def generate(cls) -> "SigningKey":
        """A new key from the system's random numbers."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, content: bytes) -> "SigningKey":
        """Read PKCS8 PEM; ValueError without a word of the content."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        try:
            key = serialization.load_pem_private_key(content, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ValueError("not an unencrypted PEM private key") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("not an Ed25519 key")  # noqa: TRY004 (the content is wrong, not a type)
        return cls(key)

    def to_pem(self) -> bytes:
        """PKCS8 PEM, to be written with mode 0600."""
        from cryptography.hazmat.primitives import serialization

        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def public(self, comment: str) -> PublicKey:
        """The key that verifies."""
        from cryptography.hazmat.primitives import serialization

        raw = self._key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return PublicKey(raw, comment)

    def sign(self, purpose: Purpose, content: bytes) -> Signature:
        """Sign `content` for one purpose."""
        signature = base64.b64encode(self._key.sign(_message(purpose, content))).decode()
        return Signature(key_id=self.public("").key_id, signature=signature)


class TrustedKeys:
    """The public keys whose signatures count; one valid signature of any of them is enough."""

    def __init__(self, keys: Iterable[PublicKey]) -> None:
        self.keys: Mapping[str, PublicKey] = {key.key_id: key for key in keys}

    @classmethod
    def from_text(cls, text: str) -> "TrustedKeys":
        """Lines of `ed25519 BASE64 [comment]`, # for remarks; ValueError names the line."""
        keys = []
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip() and not line.lstrip().startswith("#"):
                try:
                    keys.append(_public_key(line))
                except ValueError as error:
                    raise ValueError(f"line {number}: {error}") from None
        if not keys:
            raise ValueError("no keys; expected lines of 'ed25519 BASE64 [comment]'")
        return cls(keys)

    def verify(self, purpose: Purpose, content: bytes, signatures: Iterable[Signature]) -> PublicKey:
        """The first trusted key that signed `content`; ManifestError says why there is none."""
        offered = list(signatures)[:MAX_SIGNATURES]
        if not offered:
            raise ManifestError(f"{purpose}: not signed")
        broken = False
        for signature in offered:
            key = self.keys.get(signature.key_id)
            if key is not None:
                if _is_valid(key, purpose, content, signature):
                    return key
                broken = True
        if broken:
            raise ManifestError(f"{purpose}: the signature does not fit its content")
        signers = ", ".join(signature.key_id for signature in offered)
        raise ManifestError(f"{purpose}: signed by {signers}; expected one of {', '.join(sorted(self.keys))}")


def _is_valid(key: PublicKey, purpose: Purpose, content: bytes, signature: Signature) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key.content).verify(
            base64.b64decode(signature.signature), _message(purpose, content)
        )
    except (InvalidSignature, ValueError):
        return False
    return True


def _public_key(line: str) -> PublicKey:
    algorithm, _, rest = line.strip().partition(" ")
    encoded, _, comment = rest.strip().partition(" ")
    if algorithm != ALGORITHM:
        raise ValueError(f"algorithm {algorithm[:20]!r}; expected {ALGORITHM}")
    try:
        content = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("the key is not base64") from None
    if len(content) != _PUBLIC_KEY_BYTES:
        raise ValueError(f"a key of {len(content)} bytes; expected {_PUBLIC_KEY_BYTES}")
    return PublicKey(content, comment.strip())


def _message(purpose: Purpose, content: bytes) -> bytes:
    return f"nonn-edge {purpose} v1\n".encode() + content
