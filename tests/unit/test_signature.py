import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.protocol.errors import ManifestError
from edge_agent.protocol.signature import PublicKey, Signature, SigningKey, TrustedKeys

OURS, OLD, STRANGER = SigningKey.generate(), SigningKey.generate(), SigningKey.generate()
TRUSTED = TrustedKeys([OURS.public("ours"), OLD.public("last year's")])


@given(st.binary(max_size=200))
def test_what_a_trusted_key_signed_is_verified(content):
    assert TRUSTED.verify("manifest", content, [OURS.sign("manifest", content)]).comment == "ours"


@given(st.binary(min_size=1, max_size=60), st.integers(0, 479))
def test_any_flipped_bit_of_the_content_is_found(content, bit):
    signature = OURS.sign("manifest", content)
    changed = bytearray(content)
    changed[bit // 8 % len(content)] ^= 1 << bit % 8
    with pytest.raises(ManifestError, match="does not fit"):
        TRUSTED.verify("manifest", bytes(changed), [signature])


def test_a_strangers_signature_does_not_count():
    with pytest.raises(ManifestError, match="signed by"):
        TRUSTED.verify("manifest", b"x", [STRANGER.sign("manifest", b"x")])


def test_a_stranger_can_not_pass_under_our_key_id():
    forged = Signature(key_id=OURS.public("").key_id, signature=STRANGER.sign("manifest", b"x").signature)
    with pytest.raises(ManifestError, match="does not fit"):
        TRUSTED.verify("manifest", b"x", [forged])


def test_bytes_signed_for_one_purpose_do_not_pass_for_another():
    with pytest.raises(ManifestError):
        TRUSTED.verify("rollback", b"x", [OURS.sign("manifest", b"x")])


def test_during_a_rotation_one_of_two_signatures_is_enough():
    both = [STRANGER.sign("manifest", b"x"), OLD.sign("manifest", b"x")]
    assert TRUSTED.verify("manifest", b"x", both).comment == "last year's"


def test_nothing_is_not_a_signature():
    with pytest.raises(ManifestError, match="not signed"):
        TRUSTED.verify("manifest", b"x", [])


def test_a_key_of_an_algorithm_that_nobody_knows_is_no_key():
    head, body, foot, _ = OURS.to_pem().split(b"\n")
    foreign = base64.b64decode(body).replace(b"+ep", b"\xffep")  # the object identifier of Ed25519
    with pytest.raises(ValueError, match="PEM"):
        SigningKey.from_pem(b"\n".join([head, base64.b64encode(foreign), foot, b""]))


def test_a_private_key_shows_itself_nowhere():
    pem = OURS.to_pem()
    assert SigningKey.from_pem(pem).sign("manifest", b"x") == OURS.sign("manifest", b"x")
    assert "PRIVATE" not in repr(OURS)
    with pytest.raises(ValueError, match="PEM") as caught:
        SigningKey.from_pem(pem[:-40])
    assert pem.decode().splitlines()[1] not in str(caught.value)


def test_a_trusted_keys_file_round_trips_and_names_its_bad_line():
    text = "# keys of the site\n" + "\n".join(key.to_line() for key in TRUSTED.keys.values())
    assert TrustedKeys.from_text(text).keys == TRUSTED.keys
    for bad in ("rsa AAAA", "ed25519 !!!", "ed25519 AAAA", "ed25519"):
        with pytest.raises(ValueError, match="line 2"):
            TrustedKeys.from_text(f"{PublicKey(bytes(32)).to_line()}\n{bad}")
    with pytest.raises(ValueError, match="no keys"):
        TrustedKeys.from_text("# nothing\n")
