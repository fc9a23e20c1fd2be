"""Who may say and hear what: one table, and mosquitto's access file made of it. Pure.

What hangs on a device's name alone is a pattern, so that a new device changes nothing at the broker. A right that not
every device has is an entry of its own. Patterns hold for everybody who has a certificate, so those who are no
devices are denied what they do not need. docs/security.md.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from edge_agent.protocol.topics import SiteTopics

Role = Literal["device", "camera", "coordinator", "operator", "viewer"]
Access = Literal["read", "write", "readwrite", "deny"]


@dataclass(frozen=True)
class Right:
    """One line: `topic` below the site's root, with {name}, {source} and {coordinator} for whose right it is."""

    access: Access
    topic: str


def _rights(*lines: str) -> tuple[Right, ...]:
    pairs = [line.split(" ", 1) for line in lines]
    return tuple(Right(access, topic) for access, topic in pairs)  # type: ignore[arg-type]


RIGHTS: dict[Role, tuple[Right, ...]] = {
    # Every certificate's, with its own name for {name}.
    "device": _rights(
        "read frame/+",
        "write feature/+/+/+/{name}",
        "readwrite node/{name}/state",
        "write node/{name}/info",
        "write node/{name}/telemetry",
        "write node/{name}/update",
        "read node/{name}/assignment",
        "read coordinator/+/info",
        "read deployment/desired",
        "read deployment/switch",
        "write request/chunks/+",
        "read chunk/+/+",
        "readwrite doctor/#",
    ),
    "camera": _rights("write frame/{source}", "write picture/{source}"),
    "coordinator": _rights(
        "deny feature/+/+/+/{name}",
        "deny node/{name}/+",
        "write frame/dashboard",
        "write frame/request-{coordinator}",
        "read feature/#",
        "write prediction/#",
        "read node/+/+",
        "write node/+/assignment",
        "readwrite coordinator/{coordinator}/+",
        "readwrite deployment/+",
        "read request/+",
        "read request/chunks/{coordinator}",
        "readwrite chunk/+/+",
        "write response/#",
        "read label/+",
        "read prediction/dashboard",
        "read picture/+",
    ),
    "operator": _rights(
        "deny feature/+/+/+/{name}",
        "write frame/+",
        "write label/+",
        "read prediction/#",
        # Writing what devices and coordinators keep at the broker: `purge` clears it when they are gone for good.
        "readwrite node/+/+",
        "readwrite coordinator/+/+",
        "readwrite deployment/+",
        "write request/+",
        "read request/chunks/+",
        "read response/#",
        "write chunk/+/+",
        "read picture/+",
    ),
    "viewer": _rights(
        "deny frame/+",
        "deny feature/+/+/+/{name}",
        "deny node/{name}/+",
        "deny request/#",
        "deny chunk/#",
        "deny deployment/#",
        "read prediction/#",
        "read node/+/+",
        "read coordinator/+/+",
        "read picture/+",
    ),
}
# Outside the site's root.
EVERYBODY = _rights("read $SYS/broker/version")
HOME_ASSISTANT = {"coordinator": _rights("write homeassistant/#", "read homeassistant/status")}


@dataclass(frozen=True)
class Member:
    """Somebody with rights beyond a plain device's, or with none at all any more."""

    name: str
    roles: tuple[Role, ...]
    coordinator: str = ""
    sources: tuple[str, ...] = ()
    revoked: bool = False


def access_file(site: str, members: Iterable[Member]) -> str:
    """The site's access file for mosquitto; names are those of the certificates."""
    root = SiteTopics(site).root
    lines = [
        f"# Who may do what at site {site}, written by nonn-coordinator: changes belong into coordinator/provisioning.",
        "# %u is the name in the certificate. Whatever is not named here is refused.",
        *(_line("pattern", right, "", name="%u") for right in EVERYBODY),
        *(_line("pattern", right, root, name="%u") for right in RIGHTS["device"]),
    ]
    for member in members:
        lines += ["", f"user {member.name}"]
        lines += ["topic deny #"] if member.revoked else _member_lines(member, root)
    return "\n".join(lines) + "\n"


def _member_lines(member: Member, root: str) -> list[str]:
    lines = []
    for role in member.roles:
        if role == "device":
            continue  # the patterns above
        for right in RIGHTS[role]:
            if right.access == "deny" and "device" in member.roles:
                continue  # a device that is more than a device keeps what devices may do
            names = {"name": member.name, "coordinator": member.coordinator}
            sources = member.sources if "{source}" in right.topic else ("",)
            lines += [_line("topic", right, root, source=source, **names) for source in sources]
        lines += [_line("topic", right, "") for right in HOME_ASSISTANT.get(role, ())]
    return list(dict.fromkeys(lines))


def _line(kind: str, right: Right, root: str, **names: str) -> str:
    topic = right.topic.format(**names)
    return f"{kind} {right.access} {root}/{topic}" if root else f"{kind} {right.access} {topic}"
