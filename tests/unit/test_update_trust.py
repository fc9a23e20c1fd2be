import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge_agent.protocol.errors import ProtocolError
from edge_agent.protocol.manifest import parse_manifest
from edge_agent.protocol.signature import SigningKey, TrustedKeys
from edge_agent.protocol.update_messages import RollbackOrder, SignedContent
from edge_agent.protocol.update_trust import TrustMemory, TrustPolicy, commit

TINY = parse_manifest((Path(__file__).parents[1] / "fixtures" / "tiny" / "manifest.json").read_bytes())
KEY, STRANGER = SigningKey.generate(), SigningKey.generate()
POLICY = TrustPolicy(TrustedKeys([KEY.public("")]), "1.2.0")
NOW = datetime(2026, 11, 22, tzinfo=UTC)


def signed(version, key=KEY, **changes):
    content = TINY.model_copy(update={"version": version, **changes}).to_bytes()
    return SignedContent.of(content, (key.sign("manifest", content),))


def judged(content, memory=TrustMemory(), rollback=None, installed=(), active=""):  # noqa: B008 (frozen)
    from edge_agent.protocol.manifest import deployment_id

    return POLICY.judge(content, rollback, memory, {deployment_id(m.raw): m.raw for m in installed}, active, NOW)


def order(target, undoes, serial=1, key=KEY, lives=timedelta(days=1)):
    content = RollbackOrder(
        deployment=target, undoes_version=undoes, serial=serial, expires=int((NOW + lives).timestamp())
    ).to_bytes()
    return SignedContent.of(content, (key.sign("rollback", content),))


def after(*versions):
    memory = TrustMemory()
    for version in versions:
        memory = commit(memory, judged(signed(version), memory))
    return memory


def test_newer_versions_are_taken_and_older_ones_refused():
    memory = after(1, 3)
    assert judged(signed(4), memory).manifest.version == 4
    assert judged(signed(3), memory).manifest.version == 3  # the same again, after a reboot
    for version in (1, 2):
        with pytest.raises(ProtocolError, match="downgrade"):
            judged(signed(version), memory)


def test_another_deployment_of_the_same_version_is_a_downgrade():
    with pytest.raises(ProtocolError, match="downgrade"):
        judged(signed(3, name="other"), after(3))


def test_expired_manifests_are_not_installed_but_installed_ones_stay():
    old = signed(2, expires=NOW - timedelta(seconds=1))
    with pytest.raises(ProtocolError, match="expired"):
        judged(old)
    assert judged(old, installed=[old]).manifest.version == 2


def test_wrong_key_truncated_long_and_mixed_up_manifests_are_refused():
    good = signed(2)
    with pytest.raises(ProtocolError, match="signed by"):
        judged(signed(2, STRANGER))
    for raw in (good.raw[:-20], good.raw * 10, good.raw.replace(b'"version": 2', b'"version": 9'), b"", b"{}"):
        with pytest.raises(ProtocolError, match="does not fit"):
            judged(SignedContent.of(raw, good.signatures))
    with pytest.raises(ProtocolError, match="does not fit"):
        judged(SignedContent.of(signed(3).raw, good.signatures))  # the signature of another deployment
    with pytest.raises(ProtocolError, match="base64"):
        judged(SignedContent(content="***", signatures=good.signatures))
    endless = b" " * 10_000_000
    with pytest.raises(ProtocolError, match="expected at most"):
        judged(SignedContent.model_construct(content="IA==", signatures=(KEY.sign("manifest", b" "),)).of(
            endless[:1_000_001], (KEY.sign("manifest", endless[:1_000_001]),)))  # fmt: skip


def test_an_agent_that_is_too_old_says_so():
    with pytest.raises(ProtocolError, match=r"needs version 1\.10\.0"):
        judged(signed(2, minimum_agent_version="1.10.0"))


def test_a_signed_order_allows_the_way_back_once_and_again_after_a_reboot():
    memory, old = after(1, 2), signed(1)
    target = judged(signed(1)).id
    back = judged(old, memory, order(target, 2))
    memory = commit(memory, back)
    assert judged(old, memory, order(target, 2)).id == target
    with pytest.raises(ProtocolError, match="downgrade"):
        judged(signed(2), memory)  # what was rolled back does not come back by a replay
    assert judged(signed(3), memory).manifest.version == 3


def test_a_rollback_order_can_not_be_replayed_after_a_newer_deployment():
    target, old = judged(signed(1)).id, signed(1)
    first = order(target, 2)
    memory = commit(after(1, 2), judged(old, after(1, 2), first))
    memory = commit(memory, judged(signed(3), memory))
    with pytest.raises(ProtocolError, match=r"older than the last|undoes versions"):
        judged(old, memory, first)
    with pytest.raises(ProtocolError, match="undoes versions up to 2"):
        judged(old, memory, order(target, 2, serial=2))
    assert judged(old, memory, order(target, 3, serial=2)).id == target


@pytest.mark.parametrize(
    ("rollback", "words"),
    [
        (lambda target: order("0" * 16, 2), "is for deployment"),
        (lambda target: order(target, 2, key=STRANGER), "signed by"),
        (lambda target: order(target, 2, lives=timedelta(seconds=-1)), "expired"),
        (lambda target: order(target, 1), "undoes versions"),
        (lambda target: SignedContent.of(json.dumps({"deployment": target}).encode(), ()), "not signed"),
    ],
)
def test_other_orders_are_refused(rollback, words):
    old = signed(1)
    with pytest.raises(ProtocolError, match=words):
        judged(old, after(1, 2), rollback(judged(old).id))


def test_what_the_device_came_with_needs_no_signature_while_it_answers():
    content = TINY.to_bytes()
    factory = SignedContent.of(content, ())
    with pytest.raises(ProtocolError, match="not signed"):
        judged(factory)
    from edge_agent.protocol.manifest import deployment_id

    assert judged(factory, after(1), installed=[factory], active=deployment_id(content)).manifest.version == 1
