import io
import json
import stat
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.console.bundle_command import run_bundle
from edge_agent.console.exit_codes import UserError
from edge_agent.protocol.bundle import Bundle, make_bundle, parse_bundle
from edge_agent.protocol.errors import ManifestError
from edge_agent.protocol.signature import SigningKey

TINY = Path(__file__).parents[1] / "fixtures" / "tiny"
KEY = SigningKey.generate()
PLAIN = make_bundle((TINY / "manifest.json").read_bytes(), lambda entry: (TINY / entry.file).read_bytes())
SIGNED = Bundle(PLAIN.manifest_bytes, PLAIN.manifest, PLAIN.files, (KEY.sign("manifest", PLAIN.manifest_bytes),))
CONTENT = SIGNED.to_bytes()


def packed(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def members() -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(CONTENT)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_bundle_round_trips_and_is_the_same_bytes_every_time():
    assert parse_bundle(CONTENT) == SIGNED
    assert parse_bundle(CONTENT).to_bytes() == CONTENT


@settings(max_examples=200)
@given(st.integers(0, len(CONTENT) - 1))
def test_every_truncation_is_refused(length):
    with pytest.raises(ManifestError):
        parse_bundle(CONTENT[:length])


@settings(max_examples=300)
@given(st.integers(0, len(CONTENT) - 1), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_changes_nothing_that_counts(position, change):
    damaged = bytearray(CONTENT)
    damaged[position] ^= change
    try:
        found = parse_bundle(bytes(damaged))
    except ManifestError:
        return
    # Times and attributes of the zip's own headers carry no meaning; signatures are judged by their keys.
    assert found.files == SIGNED.files
    assert found.manifest_bytes == SIGNED.manifest_bytes


@given(st.binary(max_size=300))
def test_garbage_raises_only_our_error(content):
    with pytest.raises(ManifestError):
        parse_bundle(content)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m | {"extra.bin": b"x"}, "not in the manifest"),
        (lambda m: {k: v for k, v in m.items() if k != "head.npz"}, "head.npz is missing"),
        (lambda m: m | {"head.npz": m["head.npz"] + b"x"}, "head.npz"),
        (lambda m: m | {"head.npz": bytes(len(m["head.npz"]))}, "sha256"),
        (lambda m: m | {"student-0.int8.tflite": m["student-1.int8.tflite"]}, "student-0.int8.tflite"),
        (lambda m: m | {"manifest.json": m["manifest.json"] * 10}, "manifest"),
        (lambda m: m | {"manifest.json": b" " * 10_000_000}, "expected at most"),
        (lambda m: m | {"signatures.json": b"[{}]"}, "signatures"),
        (lambda m: m | {"signatures.json": b"x" * 100_000}, "signatures.json"),
    ],
)
def test_what_does_not_fit_the_manifest_is_refused(change, words):
    with pytest.raises(ManifestError, match=words):
        parse_bundle(packed(list(change(members()).items())))


def test_a_compressed_member_is_not_unpacked():
    with pytest.raises(ManifestError, match="compressed"):
        parse_bundle(packed(list(members().items()), zipfile.ZIP_DEFLATED))


def test_the_command_packs_signs_verifies_and_inspects(tmp_path, capsys):
    key, out = tmp_path / "release.key", tmp_path / "tiny.nonn"
    run_bundle(["keygen", str(key), "--comment", "release 2026"], "bundle")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    public = tmp_path / "release.key.pub"
    run_bundle([str(TINY), "--out", str(out), "--version", "7", "--expires", "2099-01-31", "--key", str(key)], "bundle")
    run_bundle(["verify", str(out), "--trusted-keys", str(public)], "bundle")
    assert parse_bundle(out.read_bytes()).manifest.version == 7
    run_bundle(["inspect", str(out), "--json"], "bundle")
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["manifest"]["expires"] == "2099-01-31T23:59:59Z"
    run_bundle(["inspect", str(out)], "bundle")
    shown = capsys.readouterr().out
    assert "student 2" in shown
    assert "PRIVATE" not in shown


def test_the_command_refuses_strangers_open_keys_and_overwriting(tmp_path):
    key, other, out = tmp_path / "a", tmp_path / "b", tmp_path / "tiny.nonn"
    run_bundle(["keygen", str(key)], "bundle")
    run_bundle(["keygen", str(other)], "bundle")
    run_bundle([str(TINY), "--out", str(out)], "bundle")
    with pytest.raises(UserError, match="not signed"):
        run_bundle(["verify", str(out), "--trusted-keys", f"{key}.pub"], "bundle")
    run_bundle(["sign", str(out), "--key", str(other)], "bundle")
    with pytest.raises(UserError, match="signed by"):
        run_bundle(["verify", str(out), "--trusted-keys", f"{key}.pub"], "bundle")
    run_bundle(["sign", str(out), "--key", str(key)], "bundle")
    run_bundle(["verify", str(out), "--trusted-keys", f"{key}.pub"], "bundle")
    with pytest.raises(UserError, match="exists"):
        run_bundle(["keygen", str(key)], "bundle")
    key.chmod(0o644)
    with pytest.raises(UserError, match="0600"):
        run_bundle(["sign", str(out), "--key", str(key)], "bundle")
