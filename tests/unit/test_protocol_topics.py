"""Topics: what is built is parsed back, everything else is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.protocol.errors import DecodeError, ProtocolError
from edge_agent.protocol.topics import FeatureTopic, SiteTopics, check_id

ids = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
deployments = st.from_regex(r"[0-9a-f]{16}", fullmatch=True)
TOPICS = SiteTopics("home")
VALID = "nonn/1/home/feature/cam/0123456789abcdef/7/pi-1"


@given(ids, ids, deployments, st.integers(0, 255), ids)
def test_feature_topics_round_trip(site: str, source: str, deployment: str, student: int, device: str) -> None:
    topics = SiteTopics(site)
    topic = topics.feature(source, deployment, student, device)
    assert topics.parse_feature(topic) == FeatureTopic(source, deployment, student, device)
    assert topic.startswith(topics.features_of(source).removesuffix("#"))


@given(ids, ids)
def test_leaves_round_trip(site: str, name: str) -> None:
    topics = SiteTopics(site)
    assert topics.parse_leaf(topics.frame(name), "frame") == (name, "")
    assert topics.parse_leaf(topics.prediction(name), "prediction") == (name, "")
    assert topics.parse_leaf(topics.node(name, "state"), "node") == (name, "state")
    assert topics.parse_leaf(topics.coordinator(name, "info"), "coordinator") == (name, "info")


def test_the_tree_is_the_documented_one() -> None:
    assert TOPICS.frame("cam") == "nonn/1/home/frame/cam"
    assert TOPICS.feature("cam", "0123456789abcdef", 7, "pi-1") == VALID
    assert TOPICS.features_of("cam") == "nonn/1/home/feature/cam/#"
    assert TOPICS.prediction("cam") == "nonn/1/home/prediction/cam"
    assert TOPICS.node("pi-1", "state") == "nonn/1/home/node/pi-1/state"
    assert TOPICS.coordinator("main", "info") == "nonn/1/home/coordinator/main/info"


@given(
    st.text(max_size=80) | st.text("/nonhmefatur179abcd0-+#", max_size=80).map(lambda tail: TOPICS.root + "/" + tail)
)
def test_other_topics_raise_only_protocol_errors(topic: str) -> None:
    for branch in ("frame", "node", "coordinator", "prediction"):
        try:
            name, _ = TOPICS.parse_leaf(topic, branch)
        except ProtocolError:
            continue
        assert check_id(name, "id") == name
    try:
        parsed = TOPICS.parse_feature(topic)
    except ProtocolError:
        return
    assert TOPICS.feature(parsed.source, parsed.deployment, parsed.student, parsed.device) == topic


@given(st.integers(0, len(VALID) - 1))
def test_every_truncation_of_a_feature_topic_is_refused_or_names_another_device(length: int) -> None:
    try:
        parsed = TOPICS.parse_feature(VALID[:length])
    except DecodeError:
        return
    assert parsed.device == "p" or parsed.device == "pi"


@pytest.mark.parametrize(
    "topic",
    [
        "nonn/2/home/feature/cam/0123456789abcdef/7/pi-1",
        "nonn/1/other/feature/cam/0123456789abcdef/7/pi-1",
        "nonn/1/home",
        "nonn/1/home/",
        VALID + "/more",
        VALID.replace("/7/", "/256/"),
        VALID.replace("/7/", "/-1/"),
        VALID.replace("/7/", "/07/"),
        VALID.replace("/7/", "/٣/"),
        VALID.replace("/7/", "/" + "9" * 5000 + "/"),
        VALID.replace("/7/", "//"),
        VALID.replace("0123456789abcdef", "0123456789ABCDEF"),
        VALID.replace("0123456789abcdef", "0123456789abcde"),
        VALID.replace("/cam/", "/Cam/"),
        VALID.replace("pi-1", "pi-"),
        VALID.replace("pi-1", "p" * 64),
        VALID + "\n",
    ],
    ids=lambda topic: topic[-40:],
)
def test_feature_topics_that_are_refused(topic: str) -> None:
    with pytest.raises(DecodeError) as caught:
        TOPICS.parse_feature(topic)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "text", ["", "-", "a-", "-a", "A", "a_b", "a/b", "a+b", "#", "é", "a" * 64, "a\n", "a b", "\0"]
)
def test_ids_that_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected 1 to 63"):
        check_id(text, "device")
    with pytest.raises(ValueError, match="site"):
        SiteTopics(text)
