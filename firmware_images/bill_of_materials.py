"""CycloneDX 1.5: every Debian and Python package of the image, read from the tree itself."""

import email.parser
import json
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from firmware_images.spec import ImageSpec

_NAMESPACE = uuid.UUID("ed9e0001-0000-4000-8000-0000000000bf")


def bill_of_materials(spec: ImageSpec, root: Path, site: Path) -> dict[str, Any]:
    """Return the bill as a JSON-able document; the same tree gives the same document."""
    components = debian_components((root / "var/lib/dpkg/status").read_text(encoding="utf-8"), spec.suite)
    components += python_components(site)
    listed = "\n".join(component["bom-ref"] for component in components)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, listed)}",
        "version": 1,
        "metadata": {
            "timestamp": f"{datetime.fromtimestamp(spec.source_date_epoch, UTC):%Y-%m-%dT%H:%M:%SZ}",
            "component": {"type": "operating-system", "name": spec.name, "bom-ref": spec.name},
        },
        "components": components,
    }


def debian_components(status: str, suite: str) -> list[dict[str, Any]]:
    """Return the installed packages of dpkg's status file."""
    found = []
    for paragraph in status.split("\n\n"):
        if not paragraph.strip():
            continue
        fields = email.parser.HeaderParser().parsestr(paragraph)
        if not str(fields["Status"]).endswith(" installed"):
            continue
        name, version, architecture = fields["Package"], fields["Version"], fields["Architecture"]
        distribution = f"arch={architecture}&distro={suite}"
        url = f"pkg:deb/debian/{name}@{version.replace('+', '%2B')}?{distribution}"
        found.append(_component(name, version, url))
    return sorted(found, key=lambda component: str(component["name"]))


def python_components(site: Path) -> list[dict[str, Any]]:
    """Return the Python packages of a site folder, with their licences where they declare one."""
    found = []
    for metadata in sorted(site.glob("*.dist-info/METADATA")):
        fields = email.parser.HeaderParser().parsestr(metadata.read_text(encoding="utf-8"))
        name, version = fields["Name"], fields["Version"]
        component = _component(name, version, f"pkg:pypi/{name.lower().replace('_', '-')}@{version}")
        if licence := fields["License-Expression"]:
            component["licenses"] = [{"expression": licence}]
        found.append(component)
    return found


def _component(name: str, version: str, url: str) -> dict[str, Any]:
    return {"type": "library", "name": name, "version": version, "purl": url, "bom-ref": url}


def write_bill(spec: ImageSpec, root: Path, site: Path, target: Path) -> int:
    """Write the bill; return how many components it lists."""
    bill = bill_of_materials(spec, root, site)
    target.write_text(json.dumps(bill, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return len(bill["components"])
