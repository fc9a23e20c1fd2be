"""Topics of model updates, below the site's root. Pure; docs/updates.md."""

import re

from edge_agent.protocol.errors import DecodeError
from edge_agent.protocol.topics import SiteTopics

_CHUNK = re.compile(r"chunk/([0-9a-f]{64})/(0|[1-9][0-9]{0,4})")


class UpdateTopics:
    """Build and parse them for one site."""

    def __init__(self, topics: SiteTopics) -> None:
        self.root = topics.root
        self.desired = f"{topics.root}/deployment/desired"
        self.switch = f"{topics.root}/deployment/switch"
        self.deploy_request = f"{topics.root}/request/deploy"
        self.deploy_reply = f"{topics.root}/response/deploy"
        self._chunks = f"{topics.root}/chunk/"

    def node(self, device: str) -> str:
        """How far a device is; `+` for all."""
        return f"{self.root}/node/{device}/update"

    def rollout(self, coordinator: str) -> str:
        """How a rollout goes."""
        return f"{self.root}/coordinator/{coordinator}/rollout"

    def chunk_requests(self, server: str) -> str:
        """Where `server` takes requests for chunks."""
        return f"{self.root}/request/chunks/{server}"

    def chunk(self, sha256: str, number: int) -> str:
        """One chunk of a file."""
        return f"{self._chunks}{sha256}/{number}"

    def chunks_of(self, sha256: str) -> str:
        """Filter for all chunks of a file."""
        return f"{self._chunks}{sha256}/+"

    def is_chunk(self, topic: str) -> bool:
        """Whether a message is a chunk of some file."""
        return topic.startswith(self._chunks)

    def parse_chunk(self, topic: str) -> tuple[str, int]:
        """(sha256, number) of a chunk's topic; DecodeError for any other."""
        match = _CHUNK.fullmatch(topic[len(self.root) + 1 :]) if topic.startswith(self._chunks) else None
        if match is None:
            raise DecodeError(f"topic {topic[:120]!r}: expected chunk/<sha256>/<number>")
        return match[1], int(match[2])
