"""Cards, and what the tests of the first boot do with them."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from coordinator.provisioning.access_rules import Member, access_file
from coordinator.provisioning.authority import Authority
from firmware_images.first_boot.card_settings import Places
from firmware_images.first_boot.provision import DeviceFolders, Outcome, apply_card, write_problems

TINY = Path(__file__).parent.parent.parent / "fixtures/tiny"
PLACES = Places({"DE", "FR"}.__contains__, {"UTC", "Europe/Berlin"}.__contains__)
NOW = datetime.now(UTC)
PLAIN = '[device]\nname = "pi-a"\nstudent = 2\n[broker]\nhost = "10.0.0.1"\ninsecure = true\n'
PUBLIC_KEY = "ed25519 " + "A" * 43 + "= release"
WIFI = '[wifi]\nssid = "K\u00fcche"\npsk = "open sesame \\" \\\\"\ncountry = "DE"\n'


@contextmanager
def writable() -> Iterator[None]:
    yield


def tls_card(authority: Authority, name: str = "pi-a", **tables: str) -> str:
    identity = authority.issue_client(name, NOW, days=30)
    pem = {"ca": authority.certificate, "cert": identity.certificate, "key": identity.key}
    broker = "".join(f'{key} = """\n{text}"""\n' for key, text in pem.items())
    return f'[device]\nname = "{name}"\nstudent = 0\n[broker]\nhost = "hub.local"\n{broker}' + "".join(tables.values())


def hub_card(authority: Authority) -> str:
    """A card of a device that is agent, coordinator and broker."""
    server = authority.issue_server("hub", ["127.0.0.1"], NOW)
    texts = {
        "cert": server.certificate, "key": server.key,
        "acl": access_file("home", [Member("hub", ("device", "coordinator"), "main")]),
        "crl": authority.revocation_list([], 1),
    }  # fmt: skip
    table = "[broker_server]\n" + "".join(f'{key} = """\n{text}"""\n' for key, text in texts.items())
    return tls_card(authority, "hub", role='[role]\nname = "both"\n', server=table)


def apply(folders: DeviceFolders, text: str | None = None) -> Outcome:
    if text is not None:
        (folders.card / "nonn-edge.toml").write_bytes(text.encode())
    applied = apply_card(folders, writable, NOW)
    write_problems(folders, writable, applied.problems)
    return applied.outcome


def error_text(folders: DeviceFolders) -> str:
    return (folders.card / "nonn-edge-error.txt").read_bytes().decode()


def copy_of(folders: DeviceFolders, target: Path) -> DeviceFolders:
    shutil.copytree(folders.card, target / "card")
    shutil.copytree(folders.root, target / "root", symlinks=True)
    return DeviceFolders(target / "card", target / "root", owners=False)


def snapshot_of(folders: DeviceFolders) -> dict[str, bytes]:
    """Every file of card and root: path -> content or link target."""
    found = {}
    for base in (folders.card, folders.root):
        for path in sorted(base.rglob("*")):
            if path.is_symlink():
                found[f"{base.name}/{path.relative_to(base)}"] = str(path.readlink()).encode()
            elif path.is_file():
                found[f"{base.name}/{path.relative_to(base)}"] = path.read_bytes()
    return found
