"""Chunks that are lost, reordered, repeated, damaged or forged: real server, real store, a bad link between them."""

import hashlib
import random
import time

import pytest

from coordinator.artifact_server import ArtifactServer
from coordinator.deploy_client import MemoryFile
from edge_agent.console.artifact_download import MAX_ATTEMPTS, ArtifactDownload
from edge_agent.console.deployment_store import DeploymentStore
from edge_agent.console.worker import Worker
from edge_agent.protocol.chunks import CHUNK_BYTES, encode_chunk
from edge_agent.protocol.errors import ManifestError, ProtocolError
from edge_agent.protocol.link import Message
from edge_agent.protocol.manifest import FileEntry
from edge_agent.protocol.topics import SiteTopics
from edge_agent.protocol.update_topics import UpdateTopics

TOPICS = UpdateTopics(SiteTopics("home"))
ID = "0" * 16


def entry_of(name, content):
    return FileEntry(file=name, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


class BadLink:
    """Delivers what is published, after what `harm` makes of it: a list of payloads, in any order."""

    connected = True

    def __init__(self, harm):
        self._harm = harm
        self.waiting = []
        self.subscribed = set()

    def publish(self, message):
        self.waiting += [(message.topic, payload) for payload in self._harm(message)]
        return True

    def subscribe(self, topic_filter, qos):
        self.subscribed.add(topic_filter)

    def unsubscribe(self, topic_filter):
        self.subscribed.discard(topic_filter)


def fetch(folder, files, harm, shuffle=None, most_s=3000.0):
    entries = [entry_of(name, content) for name, content in files.items()]
    link = BadLink(harm)
    store = DeploymentStore(folder)
    store.begin(ID, b"{}", None, entries)
    ended, worker = [], Worker("test")
    by_hash = {entry.sha256: MemoryFile(files[entry.file]) for entry in entries}
    server = ArtifactServer(link, TOPICS, "main", by_hash.get, bytes_per_s=1e9)
    download = ArtifactDownload(store, worker, link, TOPICS, "pi", ended.append)
    download.start("main", ID, entries)
    now, refused = 0.0, 0
    while not ended:
        now += 0.2
        assert now < most_s
        worker.deliver()
        download.tick(now)
        server.tick(now)
        waiting, link.waiting = link.waiting, []
        if shuffle:
            shuffle.shuffle(waiting)
        for topic, payload in waiting:
            try:
                if not server.receive(Message(topic, payload, False)) and TOPICS.is_chunk(topic):
                    download.receive(topic, payload)
            except ProtocolError:
                refused += 1
        while worker.pending:
            time.sleep(0.0005)
            worker.deliver()
    worker.close()
    assert not link.subscribed
    return store, entries, ended[0], refused, server


FILES = {"a.tflite": random.Random(1).randbytes(9 * CHUNK_BYTES + 77), "b.bin": b"golden"}


def test_a_good_link_brings_each_chunk_once(tmp_path):
    store, entries, error, refused, server = fetch(tmp_path, FILES, lambda m: [m.payload])
    assert error is None
    assert refused == 0
    assert store.holds(ID, entries)
    assert server.sent_chunks == 11


@pytest.mark.parametrize("seed", range(8))
def test_lost_repeated_reordered_and_damaged_chunks_cost_time_alone(tmp_path, seed):
    dice = random.Random(seed)

    def harm(message):
        fate = dice.random()
        if fate < 0.2:
            return []
        if fate < 0.4:
            return [message.payload] * 3
        if fate < 0.6:
            damaged = bytearray(message.payload)
            damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
            return [bytes(damaged), message.payload[: dice.randrange(len(message.payload))]]
        return [message.payload]

    store, entries, error, refused, _ = fetch(tmp_path, FILES, harm, dice)
    assert error is None
    assert refused > 0
    assert store.holds(ID, entries)
    assert (tmp_path / "deployments" / ID / "a.tflite").read_bytes() == FILES["a.tflite"]


def test_a_forged_chunk_is_found_by_the_hash_and_fetched_again(tmp_path):
    forged = []

    def harm(message):
        if TOPICS.is_chunk(message.topic) and message.topic.endswith("/4") and not forged:
            forged.append(message)
            return [encode_chunk(bytes(CHUNK_BYTES))]  # its own checksum is right
        return [message.payload]

    store, entries, error, _, _ = fetch(tmp_path, FILES, harm)
    assert error is None
    assert store.holds(ID, entries)


def test_endless_forgery_ends_with_the_reason_and_without_a_file(tmp_path):
    def harm(message):
        if TOPICS.is_chunk(message.topic) and message.topic.endswith("/4"):
            return [encode_chunk(bytes(CHUNK_BYTES))]
        return [message.payload]

    store, entries, error, _, server = fetch(tmp_path, FILES, harm)
    assert isinstance(error, ManifestError)
    assert "sha256" in str(error)
    assert not store.holds(ID, entries[:1])
    assert server.sent_chunks == 10 * MAX_ATTEMPTS


def test_a_full_disk_ends_the_download_with_the_reason(tmp_path):
    class Full(DeploymentStore):
        def write_chunk(self, *arguments):
            raise OSError(28, "No space left on device")

    worker, ended = Worker("test"), []
    link = BadLink(lambda m: [m.payload])
    entry = entry_of("a.tflite", FILES["a.tflite"])
    store = Full(tmp_path)
    store.begin(ID, b"{}", None, [entry])
    download = ArtifactDownload(store, worker, link, TOPICS, "pi", ended.append)
    download.start("main", ID, [entry])
    download.receive(TOPICS.chunk(entry.sha256, 0), encode_chunk(FILES["a.tflite"][:CHUNK_BYTES]))
    while not ended:
        worker.deliver()
    worker.close()
    assert ended[0].errno == 28


def test_the_rate_is_bounded_and_what_nobody_offers_is_not_sent():
    link = BadLink(lambda m: [m.payload])
    content = bytes(64 * CHUNK_BYTES)
    entry = entry_of("a", content)
    server = ArtifactServer(link, TOPICS, "main", {entry.sha256: MemoryFile(content)}.get, bytes_per_s=500_000)
    server.tick(0.0)
    for sha256 in (entry.sha256, "f" * 64):
        for start in range(0, 64, 16):
            request = f'{{"v":1,"device":"pi","sha256":"{sha256}","chunks":{list(range(start, start + 16))}}}'
            server.receive(Message(TOPICS.chunk_requests("main"), request.encode(), False))
    for step in range(1, 101):
        server.tick(step / 50)
    assert 0.85 * 1_000_000 < server.sent_bytes < 1.1 * 1_000_000
    assert {topic.split("/")[-2] for topic, _ in link.waiting} == {entry.sha256}
