"""Which Debian mirror to use: the one that this machine uses, unless told otherwise."""

import re
from pathlib import Path

DEFAULT_MIRROR = "http://deb.debian.org/debian"
DEFAULT_SECURITY = "http://deb.debian.org/debian-security"
RASPBERRY_PI_ARCHIVE = "http://archive.raspberrypi.com/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
RASPBERRY_PI_KEYRING = "/usr/share/keyrings/raspberrypi-archive-keyring.gpg"
COMPONENTS = "main non-free-firmware"  # the Pi's boot files and Wi-Fi firmware are non-free-firmware


def host_mirrors(apt_folder: Path = Path("/etc/apt")) -> tuple[str, str]:
    """Return the mirror and the security mirror of this machine's apt; Debian's own where it names none."""
    urls: list[str] = []
    for path in [apt_folder / "sources.list", *sorted((apt_folder / "sources.list.d").glob("*"))]:
        if path.suffix in {".list", ".sources"} and path.is_file():
            urls += mirror_urls(path.read_text(encoding="utf-8", errors="replace"))
    security = [url for url in urls if "security" in url]
    debian = [url for url in urls if url.endswith("/debian")]
    return (debian or [DEFAULT_MIRROR])[0], (security or [DEFAULT_SECURITY])[0]


def mirror_urls(text: str) -> list[str]:
    r"""Return the archive URLs of a sources.list or deb822 file, in order, without a trailing slash.

    >>> mirror_urls("deb [arch=arm64] http://a.example/debian/ bookworm main\nURIs: http://b.example/debian")
    ['http://a.example/debian', 'http://b.example/debian']
    """
    found: list[str] = []
    for line in text.splitlines():
        one_line = re.match(r"\s*deb\s+(?:\[[^\]]*\]\s+)?(\S+)", line)
        deb822 = re.match(r"\s*URIs:\s*(.+)", line, re.IGNORECASE)
        if one_line:
            found.append(one_line[1].rstrip("/"))
        elif deb822:
            found += [url.rstrip("/") for url in deb822[1].split()]
    return found


def fetch_failure(log: str) -> str:
    """Say which archive apt could not reach, and what to do; '' if that was not the trouble.

    >>> fetch_failure("E: Failed to fetch http://a.example/debian/dists/sid/InRelease  Could not resolve 'a.example'")
    "http://a.example/debian: Could not resolve 'a.example'; name a mirror that this machine reaches with --mirror"
    """
    found = re.search(r"Failed to fetch (\S+?)/(?:dists|pool)/\S+\s+(.+)", log)
    if found is None:
        return ""
    archive, reason = found[1], found[2].strip()
    if archive == RASPBERRY_PI_ARCHIVE:
        return f'{archive}: {reason}; base "raspios" is built where this archive can be reached (docs/images.md)'
    security = "--security-mirror" if "security" in archive else "--mirror"
    return f"{archive}: {reason}; name a mirror that this machine reaches with {security}"


def sources_list(suite: str, base: str, mirror: str, security: str) -> str:
    """Write the sources.list that the image is built from."""
    lines = [
        f"deb [signed-by={KEYRING}] {mirror} {suite} {COMPONENTS}",
        f"deb [signed-by={KEYRING}] {mirror} {suite}-updates {COMPONENTS}",
        f"deb [signed-by={KEYRING}] {security} {suite}-security {COMPONENTS}",
    ]
    if base == "raspios":
        lines.append(f"deb [signed-by={RASPBERRY_PI_KEYRING}] {RASPBERRY_PI_ARCHIVE} {suite} main")
    return "\n".join(lines) + "\n"
