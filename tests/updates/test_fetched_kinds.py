"""Which artifacts of an update a device fetches: of the kind that it chose before, and all where that fails."""

import json
from pathlib import Path

import pytest
from fleet import Observer, Site, all_run, running
from made_deployments import TINY, seal, write_directory
from real_broker import MOSQUITTO

from edge_agent.console.deployment_directory import open_deployment
from edge_agent.protocol.bundle import Bundle
from edge_agent.protocol.manifest import file_entry

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed"),
]


class KindsSite(Site):
    """Every student as int8 and as float32, as the exporter makes them."""

    def bundle(self, number: int, *, swapped: str = "", **_: object) -> Bundle:  # type: ignore[override]
        """The file `swapped` of student 0 is one of student 1: its features are not what the manifest says."""
        base = open_deployment(TINY).manifest
        files = {entry.file: (TINY / entry.file).read_bytes() for entry in base.files()}
        if swapped:
            files[swapped] = files[swapped.replace("-0", "-1")]
        students = []
        for student in base.students:
            artifacts = []
            for artifact in student.artifacts:
                files[artifact.file] += number.to_bytes(4, "little") + bytes(200_000)
                entry = file_entry(Path(artifact.file), files[artifact.file])
                artifacts.append(artifact.model_copy(update=entry.model_dump()))
            students.append(student.model_copy(update={"artifacts": tuple(artifacts)}))
        made = seal(base.model_copy(update={"version": number, "students": tuple(students)}), files, self.key)
        self.folders.append(write_directory(made, self.folder / made.id))
        (self.folder / f"{number}.nonn").write_bytes(made.to_bytes())
        return made


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = KindsSite(tmp_path_factory.mktemp("kinds"))
    with running(site.fleet):
        yield site


@pytest.fixture
def observer(site):
    observer = Observer(site.fleet)
    yield observer
    observer.close()


def fetched(site, deployment: str) -> list[str]:
    """Artifacts of student 0 that its device has."""
    folder = site.fleet.folder / "pi-0" / "deployments" / deployment
    return sorted(path.name for path in folder.glob("student-0.*"))


def told(observer) -> dict:
    """What the device says of its student in its retained info."""
    return observer.json("node/pi-0/info")["students"][0]


def test_an_update_brings_the_kind_that_was_chosen_and_another_only_where_that_fails(site, observer):
    observer.wait("start", all_run(site.fleet, site.first.id), 90)
    both = ["student-0.float32.tflite", "student-0.int8.tflite"]
    assert fetched(site, site.first.id) == both
    first = told(observer)
    assert sorted(first["times_ms"]) == both
    chosen = first["artifact"]
    other = next(name for name in both if name != chosen)

    second = site.bundle(2)
    assert site.deploy(2).returncode == 0
    observer.wait("second", all_run(site.fleet, second.id))
    assert fetched(site, second.id) == [chosen]
    assert told(observer)["artifact"] == chosen
    assert list(told(observer)["times_ms"]) == [chosen]  # timed before it was trusted, in a process of its own

    third = site.bundle(3, swapped=chosen)
    assert site.deploy(3).returncode == 0
    observer.wait("third", all_run(site.fleet, third.id))
    assert fetched(site, third.id) == both
    assert told(observer)["artifact"] == other
    assert chosen in told(observer)["artifacts_refused"]
    assert "fetching all artifacts that fit" in site.fleet.log("pi-0")

    fourth = site.bundle(4)
    assert site.deploy(4).returncode == 0
    observer.wait("fourth", all_run(site.fleet, fourth.id))
    assert fetched(site, fourth.id) == [other]


def test_after_a_restart_the_choice_still_counts_and_nothing_is_fetched_again(site, observer):
    observer.wait("start", all_run(site.fleet, site.folders[-1].name), 90)
    before, session = fetched(site, site.folders[-1].name), observer.json("node/pi-0/info")["session"]
    observer.history.clear()
    site.fleet.kill("pi-0")
    site.fleet.restart("pi-0")
    observer.wait("it is back", lambda o: o.json("node/pi-0/info").get("session") != session)
    for _ in range(60):  # 3 s in which it takes up again what its site desires
        observer.step()
    said = [json.loads(content) for topic, content in observer.history if topic == "node/pi-0/update"]
    assert said
    assert {update["state"] for update in said} == {"active"}
    assert fetched(site, site.folders[-1].name) == before
