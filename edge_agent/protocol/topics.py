"""Build and parse topics: the tree under `nonn/1/<site>/` of docs/protocol.md, section 2."""

import re
from dataclasses import dataclass

from edge_agent.protocol.errors import DecodeError

PROTOCOL_MAJOR = 1
# Ids are MQTT topic levels, file names and host names at once: the common subset, as host names have it.
_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_STUDENT = re.compile(r"0|[1-9][0-9]{0,2}")  # one spelling for each number: one topic for each student
_DEPLOYMENT_ID = re.compile(r"[0-9a-f]{16}")
MAX_STUDENTS = 256


def check_id(text: str, what: str) -> str:
    """Return `text` if it is a legal id (a-z, 0-9, inner hyphens, 1 to 63 characters); else ValueError."""
    if not _ID.fullmatch(text):
        raise ValueError(f"{what} {text!r}: expected 1 to 63 of a-z, 0-9 and inner hyphens")
    return text


def check_sources(sources: tuple[str, ...]) -> tuple[str, ...]:
    """Return `sources` if each is a legal id and stands there once, or if it is `+` alone; else ValueError."""
    if not sources:
        raise ValueError("expected names of sources, or + for all")
    for source in sources:
        if source != "+":
            check_id(source, "source")
    if len(set(sources)) < len(sources):
        raise ValueError(f"sources {', '.join(sources)}: expected each of them once")
    if "+" in sources and len(sources) > 1:
        raise ValueError(f"sources {', '.join(sources)}: expected + alone, which is all of them, or names")
    return sources


@dataclass(frozen=True, slots=True)
class FeatureTopic:
    """`feature/<source>/<deployment>/<student>/<device>`, taken apart."""

    source: str
    deployment: str
    student: int
    device: str


class SiteTopics:
    """The topics of one site; every method returns a full topic or filter."""

    def __init__(self, site: str) -> None:
        self.site = check_id(site, "site")
        self.root = f"nonn/{PROTOCOL_MAJOR}/{site}"

    def frame(self, source: str) -> str:
        """Images of one source; `+` for all."""
        return f"{self.root}/frame/{source}"

    def shared_frame(self, source: str, share_group: str | None) -> str:
        """Filter for frames of one source; of those who name the same group, the broker gives each frame to one."""
        topic = self.frame(source)
        return topic if share_group is None else f"$share/{share_group}/{topic}"

    def feature(self, source: str, deployment: str, student: int, device: str) -> str:
        """Where one device publishes one student's features of one source."""
        return f"{self.root}/feature/{source}/{deployment}/{student}/{device}"

    def features_of(self, source: str) -> str:
        """Filter for all features of a source; `+` for all sources."""
        return f"{self.root}/feature/{source}/#"

    def prediction(self, source: str) -> str:
        """Answers for one source; `+` for all."""
        return f"{self.root}/prediction/{source}"

    def picture(self, source: str) -> str:
        """JPEG pictures of one source, for people."""
        return f"{self.root}/picture/{source}"

    def early_prediction(self, source: str) -> str:
        """Answers from some students, each followed by the frame's one answer on `prediction`."""
        return f"{self.root}/prediction/{source}/early"

    def request(self, verb: str) -> str:
        """Requests to the coordinator; verb: classify, assign."""
        return f"{self.root}/request/{verb}"

    def response(self, verb: str) -> str:
        """Answers to requests that name no response topic of their own."""
        return f"{self.root}/response/{verb}"

    def node(self, device: str, leaf: str) -> str:
        """`node/<device>/<leaf>`; leaf: state, info, telemetry, update, assignment."""
        return f"{self.root}/node/{device}/{leaf}"

    def coordinator(self, coordinator: str, leaf: str) -> str:
        """`coordinator/<coordinator>/<leaf>`; leaf: state, info, telemetry."""
        return f"{self.root}/coordinator/{coordinator}/{leaf}"

    def relative(self, topic: str) -> list[str]:
        """Levels below the site's root; DecodeError for a topic of another site or major version."""
        prefix = self.root + "/"
        if not topic.startswith(prefix):
            raise DecodeError(f"topic {topic[:120]!r}: expected one below {prefix}")
        return topic[len(prefix) :].split("/")

    def parse_feature(self, topic: str) -> FeatureTopic:
        """Take a feature topic apart; DecodeError names what is wrong."""
        levels = self.relative(topic)
        if len(levels) != 5 or levels[0] != "feature":
            raise DecodeError(f"topic {topic[:120]!r}: expected feature/<source>/<deployment>/<student>/<device>")
        _, source, deployment, student, device = levels
        if not _DEPLOYMENT_ID.fullmatch(deployment):
            raise DecodeError(f"topic {topic[:120]!r}: deployment is not 16 hex digits")
        if not (_STUDENT.fullmatch(student) and int(student) < MAX_STUDENTS):
            raise DecodeError(f"topic {topic[:120]!r}: student is not a number from 0 to {MAX_STUDENTS - 1}")
        return FeatureTopic(_decoded_id(source, topic), deployment, int(student), _decoded_id(device, topic))

    def parse_leaf(self, topic: str, branch: str) -> tuple[str, str]:
        """`<branch>/<id>/<leaf>` -> (id, leaf), `<branch>/<id>` -> (id, '')."""
        levels = self.relative(topic)
        if levels[0] != branch or len(levels) not in (2, 3):
            raise DecodeError(f"topic {topic[:120]!r}: expected {branch}/<id> or {branch}/<id>/<leaf>")
        return _decoded_id(levels[1], topic), levels[2] if len(levels) == 3 else ""


def _decoded_id(text: str, topic: str) -> str:
    try:
        return check_id(text, "id")
    except ValueError as error:
        raise DecodeError(f"topic {topic[:120]!r}: {error}") from None
