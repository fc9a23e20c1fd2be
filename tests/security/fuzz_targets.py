"""Every parser that reads what came over the network or from a card: what to give it, and what alone may leave it."""

import base64
import io
import json
import ssl
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from coordinator.labelled_images import decode_image
from coordinator.provisioning.authority import Authority
from coordinator.provisioning.card import card_text
from coordinator.provisioning.ledger import Certificate, Identity, Ledger, parse_ledger
from coordinator.security_checks import check_broker_log
from coordinator.update_view import decode_update_view
from edge_agent.console.bundle_command import run_bundle
from edge_agent.console.exit_codes import UserError
from edge_agent.protocol import fleet_messages, status, update_messages
from edge_agent.protocol.bundle import parse_bundle
from edge_agent.protocol.chunks import decode_chunk
from edge_agent.protocol.errors import ProtocolError
from edge_agent.protocol.feature_message import decode_features
from edge_agent.protocol.filter_edges import parse_edges
from edge_agent.protocol.frame_message import decode_frame
from edge_agent.protocol.head import MergeHead
from edge_agent.protocol.json_message import decode_json
from edge_agent.protocol.manifest import parse_manifest
from edge_agent.protocol.mqtt_reader import PacketReader
from edge_agent.protocol.pack import decode_pack
from edge_agent.protocol.prediction_message import decode_prediction
from edge_agent.protocol.signature import SigningKey, TrustedKeys
from edge_agent.protocol.topics import SiteTopics
from edge_agent.protocol.update_messages import parse_rollback
from edge_agent.protocol.update_topics import UpdateTopics
from firmware_images.first_boot.card_deployment import DeploymentProblemError, listed_files
from firmware_images.first_boot.card_reader import CardProblemsError
from firmware_images.first_boot.card_settings import Places, name_and_broker, parse_card
from firmware_images.first_boot.card_template import card_template, wiped_card
from firmware_images.first_boot.certificate_dates import validity
from firmware_images.partition_table import PartitionTableError, read_extents

REPOSITORY = Path(__file__).resolve().parent.parent.parent
TINY = REPOSITORY / "tests/fixtures/tiny"
PLACES = Places({"DE", "FR"}.__contains__, {"UTC", "Europe/Berlin"}.__contains__)
Parser = Callable[[bytes], object]


@dataclass(frozen=True)
class Target:
    """`parse` may raise `errors` and nothing else; `seeds` are good inputs, and near misses."""

    name: str
    parse: Parser
    errors: tuple[type[Exception], ...]
    seeds: tuple[bytes, ...]


def targets(folder: Path) -> list[Target]:
    """All of them. `folder`: for a bundle that is made as a seed."""
    return [*_messages(), *_files(folder), *_of_the_network(), *_of_the_card()]


def _golden(name: str) -> tuple[bytes, ...]:
    content = json.loads((REPOSITORY / f"tests/golden/{name}.json").read_text())
    return tuple(bytes.fromhex(vector["bytes_hex"]) for vector in [*content["vectors"], *content["refused"]])


def _messages() -> list[Target]:
    wrong = (ProtocolError,)
    updates, states = _golden("updates"), _golden("status")
    found = [
        Target("frame", decode_frame, wrong, _golden("frames")),
        Target("features", decode_features, wrong, (*_golden("features"), *_golden("channel_features"))),
        Target("pack", decode_pack, wrong, _golden("packs")),
        Target("answer", decode_prediction, wrong, _golden("predictions")),
        Target("chunk", decode_chunk, wrong, updates),
        Target("rollback order", parse_rollback, wrong, updates),
        Target("update view", decode_update_view, wrong, updates),
    ]
    found += _json_messages(
        status.decode_status, states, status.NodeState, status.NodeInfo, status.NodeTelemetry, status.CoordinatorInfo
    )
    found += _json_messages(
        update_messages.decode_update, updates,
        update_messages.DesiredMessage, update_messages.SwitchMessage, update_messages.NodeUpdate,
        update_messages.ChunkRequest, update_messages.DeployRequest, update_messages.DeployReply,
        update_messages.RolloutStatus,
    )  # fmt: skip
    picture = base64.b64encode(_pictures()[0]).decode()
    requests = [
        {"v": 1, "students": [0, 1], "by": "hand"},
        {"v": 1, "transaction": "t", "device": "pi-0", "students": [0]},
        {"v": 1, "transaction": "t", "image": picture},
        {"v": 1, "status": "ok", "transaction": "t", "data": {"a": [1, None]}},
        {
            "v": 1,
            "session": 1,
            "uptime_s": 1.5,
            "cpu_percent": 1,
            "memory_rss_bytes": 1,
            "open_frames": 0,
            "counts": {},
        },
    ]
    seeds = tuple(json.dumps(request).encode() for request in requests)
    return found + _json_messages(
        decode_json, seeds,
        fleet_messages.NodeAssignment, fleet_messages.AssignRequest, fleet_messages.ClassifyRequest,
        fleet_messages.Response, fleet_messages.CoordinatorTelemetry,
    )  # fmt: skip


def _json_messages(decode: Callable[..., object], seeds: tuple[bytes, ...], *kinds: type) -> list[Target]:
    return [Target(kind.__name__, partial(_decode, decode, kind), (ProtocolError,), seeds) for kind in kinds]


def _decode(decode: Callable[..., object], kind: type, content: bytes) -> object:
    return decode(kind, content)


def _files(folder: Path) -> list[Target]:
    manifest, head = (TINY / "manifest.json").read_bytes(), (TINY / "head.npz").read_bytes()
    key = SigningKey.generate()
    key_file, bundle = folder / "key", folder / "tiny.nonn"
    key_file.write_bytes(key.to_pem())
    key_file.chmod(0o600)
    run_bundle([str(TINY), "--key", str(key_file), "--out", str(bundle)], "fuzz")
    parsed = parse_manifest(manifest)
    edges = json.dumps({"v": 1, "edges": [[0, 1, 0.5]]}).encode()
    lines = f"# ours\n{key.public('me').to_line()}\n".encode()
    return [
        Target("manifest", parse_manifest, (ProtocolError,), (manifest,)),
        Target("head", partial(_head, parsed.widths, len(parsed.classes)), (ProtocolError,), (head, *_golden("heads"))),
        Target("bundle", parse_bundle, (ProtocolError,), (bundle.read_bytes(),)),
        Target("filter graph", lambda content: parse_edges(content, 16), (ProtocolError,), (edges,)),
        Target("trusted keys", lambda content: TrustedKeys.from_text(_text(content)), (ValueError,), (lines,)),
        Target("signing key", SigningKey.from_pem, (ValueError,), (key.to_pem(),)),
    ]


def _head(widths: Sequence[int], classes: int, content: bytes) -> object:
    return MergeHead.from_bytes(content, widths, classes)


def _of_the_network() -> list[Target]:
    topics = tuple(
        topic.encode()
        for topic in json.loads((REPOSITORY / "tests/golden/topics.json").read_text())["topics"].values()
        if isinstance(topic, str)
    )
    site = SiteTopics("home")
    chunk = f"nonn/1/home/chunk/{'a' * 64}/12".encode()
    packets = (
        bytes.fromhex("200900000622000a210014"), bytes.fromhex("300a000361" + "2f620000686921"),
        bytes.fromhex("4004010210" + "00"), bytes.fromhex("9003000101"), bytes.fromhex("d000"),
        bytes.fromhex("e0028e00"),
        bytes.fromhex("320b00036100620001020000686921"),
    )  # fmt: skip
    wrong = (ProtocolError,)
    log = b"2026-11-22: Client connection from 127.0.0.1 failed: error:0A00010B:SSL routines::wrong version number.\n"
    return [
        Target("feature topic", lambda c: site.parse_feature(_text(c)), wrong, topics),
        Target("leaf topic", lambda c: site.parse_leaf(_text(c), "node"), wrong, topics),
        Target("chunk topic", lambda c: UpdateTopics(site).parse_chunk(_text(c)), wrong, (*topics, chunk)),
        Target("mqtt 5 stream", lambda c: _stream(c, True), wrong, packets),
        Target("mqtt 3.1.1 stream", lambda c: _stream(c, False), wrong, packets),
        Target("upload", lambda c: decode_image(c, (8, 8, 3), "upload"), (UserError,), _pictures()),
        Target("broker log", lambda c: check_broker_log(_text(c).splitlines()), (), (log,)),
    ]


def _stream(content: bytes, is_5: bool) -> object:
    reader = PacketReader(is_5)
    middle = len(content) // 2
    return [*reader.feed(content[:middle]), *reader.feed(content[middle:])]


def _of_the_card() -> list[Target]:
    now = datetime.now(UTC)
    authority = Authority.create("home", now)
    issued = authority.issue_client("pi-0", now)
    tables = {
        "device": {"name": "pi-0", "site": "home", "student": [0, 1]}, "role": {"name": "agent"},
        "broker": {"host": "hub.local", "port": 8883}, "wifi": {"ssid": "Home", "psk": "(applied)", "country": "DE"},
        "camera": {"kind": "v4l2", "device": "/dev/video0", "frames_per_s": 5.0}, "time": {"zone": "Europe/Berlin"},
    }  # fmt: skip
    identity = Identity(
        name="pi-0", kind="agent", card=tables, certificates=(Certificate(serial="1f", expires=issued.expires),)
    )
    keys = f"{SigningKey.generate().public('us').to_line()}\n"
    card = card_text(identity, authority.certificate, issued.certificate, issued.key, keys, None, "longenough").encode()
    ledger = Ledger(
        schema=1, site="home", broker_host="h", broker_port=8883, broker_names=("h",), broker_folder="/x",
        identities=(identity,),
    )  # fmt: skip
    return [
        Target("card", _card, (CardProblemsError,), (card, card_template("agent").encode())),
        Target(
            "deployment on a card",
            lambda c: list(listed_files(c)),
            (DeploymentProblemError,),
            ((TINY / "manifest.json").read_bytes(),),
        ),
        Target("partition table", read_extents, (PartitionTableError,), (_table(),)),
        Target("name on a card", name_and_broker, (), (card,)),
        Target("certificate dates", lambda c: validity(_text(c)), (ValueError,), (issued.certificate.encode(),)),
        Target("certificate DER", _der, (ValueError,), (ssl.PEM_cert_to_DER_cert(issued.certificate),)),
        Target(
            "authority", lambda c: Authority.load(c, authority.key), (ValueError,), (authority.certificate.encode(),)
        ),
        Target("site.json", lambda c: parse_ledger(c, "site.json"), (UserError,), (ledger.to_bytes(),)),
    ]


def _card(content: bytes) -> object:
    settings = parse_card(content, PLACES)
    # What was taken must be readable again after the wipe.
    return parse_card(wiped_card(settings, len(content)), PLACES)


def _table() -> bytes:
    """The first sector of a card: one FAT partition."""
    entry = struct.pack("<B3sB3sII", 0x80, b"", 0x0C, b"", 8192, 524288)
    return bytes(446) + entry.ljust(64, b"\0") + b"\x55\xaa"


def _der(content: bytes) -> object:
    return validity(ssl.DER_cert_to_PEM_cert(content))


def _text(content: bytes) -> str:
    return content.decode("utf-8", errors="replace")


def _pictures() -> tuple[bytes, ...]:
    picture = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    made = []
    for kind in ("PNG", "JPEG", "BMP", "WEBP", "PPM", "GIF", "TIFF"):
        buffer = io.BytesIO()
        picture.save(buffer, format=kind)
        made.append(buffer.getvalue())
    return tuple(made)
