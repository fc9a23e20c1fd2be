"""What the topics of frames and features mean, worked out once for each: every frame brings the same ones. Pure."""

from functools import lru_cache

from edge_agent.protocol.feature_message import FeatureMessage, decode_features
from edge_agent.protocol.manifest import Codec, Manifest
from edge_agent.protocol.pack import decode_pack
from edge_agent.protocol.topics import FeatureTopic, SiteTopics

# Topics kept: sources x students x devices of a large site.
PARSED_TOPICS = 4096


class TopicRoutes:
    """Reads topics of one site, and features of the deployments that it was told of."""

    def __init__(self, topics: SiteTopics) -> None:
        self._topics = topics
        self._codecs: dict[str, tuple[Codec, ...]] = {}  # by deployment: how each student's features travel
        self.branch = lru_cache(PARSED_TOPICS)(self._branch_of)
        self.frame = lru_cache(PARSED_TOPICS)(lambda topic: self._topics.parse_leaf(topic, "frame"))
        self._feature = lru_cache(PARSED_TOPICS)(self._feature_of)

    def read_features_of(self, deployment: str, manifest: Manifest) -> None:
        """From now on features of this deployment can be read, too."""
        self._codecs[deployment] = manifest.codecs
        self._feature.cache_clear()

    def read_only(self, deployment: str, manifest: Manifest) -> None:
        """From now on only features of this deployment can be read."""
        self._codecs.clear()
        self.read_features_of(deployment, manifest)

    def features(self, topic_text: str, payload: bytes) -> tuple[FeatureTopic, list[FeatureMessage]]:
        """Read a message of features, or a pack of them; ProtocolError if one is none, or not as its manifest says."""
        topic, codec = self._feature(topic_text)
        found = [decode_features(one) for one in decode_pack(payload)]
        # Codes need the ranges of their deployment's manifest; of unknown deployments nothing is merged anyway.
        if codec is not None:
            found = [one.with_ranges(codec.channel_ranges, codec.bits) if one.bits else one for one in found]
        return topic, found

    def _branch_of(self, topic: str) -> str:
        """First level below the site's root; '' for topics of others."""
        root = self._topics.root + "/"
        return topic.removeprefix(root).partition("/")[0] if topic.startswith(root) else ""

    def _feature_of(self, topic_text: str) -> tuple[FeatureTopic, Codec | None]:
        topic = self._topics.parse_feature(topic_text)
        codecs = self._codecs.get(topic.deployment, ())
        return topic, codecs[topic.student] if topic.student < len(codecs) else None
