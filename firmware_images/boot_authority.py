"""A private authority that lives as long as one boot test: server, device and client certificates."""

from dataclasses import dataclass
from pathlib import Path

from firmware_images import programs

DAYS = 30


@dataclass(frozen=True)
class Identity:
    """A certificate and its key."""

    certificate: Path
    key: Path


class BootAuthority:
    """Signs certificates with openssl, elliptic curves throughout: a Pi checks them in a millisecond."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.certificate = folder / "ca.pem"
        self._key = folder / "ca.key"
        self._make_key(self._key)
        programs.run(
            ["openssl", "req", "-x509", "-new", "-key", self._key, "-days", str(DAYS), "-subj", "/CN=boot test",
             "-out", self.certificate]
        )  # fmt: skip

    def issue(self, name: str, addresses: tuple[str, ...] = ()) -> Identity:
        """Make a key and a certificate for `name`; with addresses it is a server's."""
        identity = Identity(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        self._make_key(identity.key)
        programs.run(["openssl", "req", "-new", "-key", identity.key, "-subj", f"/CN={name}", "-out", request])
        usage = "serverAuth" if addresses else "clientAuth"
        lines = [f"extendedKeyUsage={usage}", "basicConstraints=CA:FALSE"]
        if addresses:
            lines.append("subjectAltName=" + ",".join(f"IP:{address}" for address in addresses))
        extensions.write_text("\n".join(lines) + "\n")
        programs.run(
            ["openssl", "x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial",
             "-days", str(DAYS), "-extfile", extensions, "-out", identity.certificate]
        )  # fmt: skip
        return identity

    @staticmethod
    def _make_key(path: Path) -> None:
        programs.run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path])
