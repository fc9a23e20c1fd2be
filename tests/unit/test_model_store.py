"""The power goes between any two file operations: what is on the disk then is always whole."""

import pytest
from failing_disk import NEW, OLD, TINY, LosesWhatIsNotSynced, PowerCutError, Steps, in_a_process_that_dies, kill
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.model_store import MAX_OPENINGS, MAX_STARTS, ModelStore
from edge_agent.protocol.chunks import CHUNK_BYTES, ChunkMap, chunk_length
from edge_agent.protocol.errors import ManifestError
from edge_agent.protocol.update_messages import SignedContent

ENTRIES = [TINY.manifest.golden_input, TINY.manifest.students[0].artifacts[0]]


def fetch(store, deployment, rollout):
    """What the updater does with a store, from the verified manifest to the committed switch."""
    name, manifest = deployment
    store.begin(name)
    store.disk.begin(name, manifest, SignedContent.of(manifest, ()), ENTRIES)
    for entry, chunks in store.disk.missing(name, ENTRIES):
        content = TINY.read(entry)
        for number in chunks.missing():
            start = number * CHUNK_BYTES
            store.disk.write_chunk(name, entry, number, content[start : start + chunk_length(len(content), number)])
            chunks.add(number)
            store.disk.save_map(name, entry, chunks)
        store.disk.finish_file(name, entry)
    store.opening(name, rollout)
    store.opened()
    store.activate(name, rollout)
    store.prove()
    store.disk.keep({store.record.active, store.record.previous})


def check_valid(store):
    assert store.record.active in (OLD[0], NEW[0])
    active = store.active
    assert active.id == store.record.active
    for entry in ENTRIES:
        assert active.read(entry) == TINY.read(entry)  # length and hash
    if store.record.previous:
        previous = store.disk.open(store.record.previous)
        assert all(previous.read(entry) for entry in ENTRIES)


def prepared(folder):
    store = ModelStore(folder)
    fetch(store, OLD, 1)
    return store


def count_steps(folder):
    prepared(folder)
    steps = Steps()
    fetch(ModelStore(folder, steps), NEW, 2)
    return steps.count


def test_killed_at_every_file_operation_the_device_holds_a_valid_deployment(tmp_path):
    total = count_steps(tmp_path / "whole")
    assert total > 30
    for n in range(1, total + 1):
        folder = tmp_path / str(n)
        prepared(folder)
        assert in_a_process_that_dies(lambda f=folder, at=n: fetch(ModelStore(f, Steps(at, kill)), NEW, 2)), n
        after = ModelStore(folder)
        check_valid(after)
        fetch(after, NEW, 2)  # and the update goes through at the next try
        check_valid(after)
        assert after.record.active == NEW[0]
        assert {path.name for path in (folder / "deployments").iterdir()} <= {OLD[0], NEW[0]}


def test_a_power_cut_that_loses_unsynced_data_leaves_a_valid_deployment(tmp_path):
    total = count_steps(tmp_path / "whole")
    for n in range(1, total + 1):
        folder = tmp_path / str(n)
        prepared(folder)
        with pytest.raises(PowerCutError):
            fetch(ModelStore(folder, LosesWhatIsNotSynced(n)), NEW, 2)
        after = ModelStore(folder)
        check_valid(after)
        try:
            fetch(after, NEW, 2)
        except ManifestError:  # a part whose map survived and whose bytes did not: found, dropped, fetched again
            fetch(after, NEW, 2)
        check_valid(after)
        assert after.record.active == NEW[0]


def test_a_full_disk_at_any_file_operation_stops_the_update_and_nothing_else(tmp_path):
    def full():
        raise OSError(28, "No space left on device")

    total = count_steps(tmp_path / "whole")
    for n in range(1, total + 1):
        folder = tmp_path / str(n)
        prepared(folder)
        with pytest.raises(OSError, match="No space"):
            fetch(ModelStore(folder, Steps(n, full)), NEW, 2)
        check_valid(ModelStore(folder))


def test_a_damaged_file_never_gets_its_name(tmp_path):
    store = prepared(tmp_path)
    entry = ENTRIES[1]
    store.begin(NEW[0])
    store.disk.begin(NEW[0], NEW[1], None, ENTRIES)
    store.disk.write_chunk(NEW[0], entry, 0, bytes(entry.size_bytes))
    with pytest.raises(ManifestError, match="sha256"):
        store.disk.finish_file(NEW[0], entry)
    assert not store.disk.holds(NEW[0], [entry])
    assert store.disk.missing(NEW[0], [entry])[0][1].missing() == [0]


def test_a_download_goes_on_where_it_stopped(tmp_path):
    store = ModelStore(tmp_path)
    entry = TINY.manifest.golden_input.model_copy(update={"size_bytes": 5 * CHUNK_BYTES})
    store.disk.begin(NEW[0], NEW[1], None, [entry])
    chunks = ChunkMap(entry.size_bytes)
    for number in (0, 3):
        store.disk.write_chunk(NEW[0], entry, number, bytes(CHUNK_BYTES))
        chunks.add(number)
    store.disk.save_map(NEW[0], entry, chunks)
    assert ModelStore(tmp_path).disk.missing(NEW[0], [entry])[0][1].missing() == [1, 2, 4]


def test_a_budget_is_kept(tmp_path):
    store = ModelStore(tmp_path, budget_bytes=1000)
    with pytest.raises(OSError, match="disk budget"):
        store.disk.begin(NEW[0], NEW[1], None, ENTRIES)
    assert not store.disk.manifests()


def test_a_new_deployment_that_keeps_crashing_is_left_and_the_reason_stays(tmp_path):
    store = prepared(tmp_path)
    fetch_unproven(store)
    reasons = [ModelStore(tmp_path).count_start() for _ in range(MAX_STARTS)]
    assert [bool(reason) for reason in reasons] == [False] * (MAX_STARTS - 1) + [True]
    after = ModelStore(tmp_path)
    assert after.record.active == OLD[0]
    assert "ended 3 times" in after.record.refused[NEW[0]].reason
    assert after.record.refused[NEW[0]].rollout == 2
    assert after.count_start() == ""


def fetch_unproven(store):
    name, manifest = NEW
    store.begin(name)
    store.disk.begin(name, manifest, None, ENTRIES)
    for entry in ENTRIES:
        store.disk.add_file(name, entry, TINY.read(entry))
    store.activate(name, 2)


def test_a_proven_deployment_is_not_left_whatever_happens(tmp_path):
    store = prepared(tmp_path)
    fetch_unproven(store)
    store.prove()
    for _ in range(10):
        assert ModelStore(tmp_path).count_start() == ""
    assert ModelStore(tmp_path).record.active == NEW[0]


def test_a_deployment_that_kills_the_agent_while_it_is_opened_is_refused(tmp_path):
    prepared(tmp_path)
    for _ in range(MAX_OPENINGS):
        store = ModelStore(tmp_path)
        assert store.count_start() == ""
        store.opening(NEW[0], 5)
    store = ModelStore(tmp_path)
    assert "died 2 times" in store.count_start()
    assert store.record.refused[NEW[0]].rollout == 5
    assert store.record.active == OLD[0]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(["activate new", "activate old", "prove", "start", "opening", "opened"]), max_size=12))
def test_whatever_happens_the_active_deployment_is_one_that_is_there(tmp_path_factory, events):
    folder = tmp_path_factory.mktemp("store")
    store = prepared(folder)
    for deployment in (NEW, OLD):
        store.disk.begin(deployment[0], deployment[1], None, ENTRIES)
        for entry in ENTRIES:
            if not store.disk.holds(deployment[0], [entry]):
                store.disk.add_file(deployment[0], entry, TINY.read(entry))
    for event in events:
        if event == "start":
            store = ModelStore(folder)
        acts = {
            "activate new": lambda s: s.activate(NEW[0], 2),
            "activate old": lambda s: s.activate(OLD[0], 3),
            "prove": lambda s: s.prove(),
            "start": lambda s: s.count_start(),
            "opening": lambda s: s.opening(NEW[0], 2),
            "opened": lambda s: s.opened(),
        }
        acts[event](store)
        check_valid(store)
