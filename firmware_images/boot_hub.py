"""A boot test of a device with role "both": broker, coordinator and agent from one card, seen from outside over TLS."""

from edge_agent.console.exit_codes import UserError
from firmware_images.boot_coordinator import DEADLINE_MS
from firmware_images.boot_run import BootRun
from firmware_images.qemu_machine import RunningMachine

UPDATE = 2  # version of the signed deployment; the card brings version 1
# A Pi takes milliseconds for what an emulated one takes seconds for; gone with the next start.
SLOW_COORDINATOR = f"""set -e
mkdir -p /run/systemd/system/edge-coordinator.service.d
printf '[Service]\\nEnvironment=NONN_DEADLINE_MS={DEADLINE_MS} NONN_ADAPTIVE_DEADLINE=false\\n' \\
  > /run/systemd/system/edge-coordinator.service.d/emulated.conf
systemctl daemon-reload; systemctl restart edge-coordinator
"""


def run_hub(run: BootRun) -> None:
    """Start with the card's deployment, take a signed one, and after a power cut start with that."""
    expected = run.deployment.id
    with run.started("first") as machine:
        if machine is None or not _runs(run, machine, expected, "first start"):
            return
        if run.options.power_cut:
            expected = run.site.deploy(UPDATE)
            if not run.updated(machine, expected, "first start"):
                return
            run.check_answers("first start, updated")
    if run.options.power_cut:
        with run.started("second") as machine:
            if machine is not None:
                _runs(run, machine, expected, "second start")


def _runs(run: BootRun, machine: RunningMachine, expected: str, when: str) -> bool:
    found = run.report.facts[f"{when}: deployment at birth"]
    if found != expected:
        run.report.fail(f"{when}: runs {found}, expected {expected}")
        return False
    try:
        if run.shell is not None:
            run.shell.run(SLOW_COORDINATOR)
        before = set(run.observer.predictions)
        # More than one frame: nobody listened to the broker while the shell was busy, and it may have hung up.
        if not run.sends_until(lambda: _is_merged(run, before)):
            run.report.fail(f"{when}: no answer with all students")
            return False
        run.took(f"{when}: its own coordinator merged all students", machine)
        run.check_answers(when)
        run.look_around()
    except UserError as error:
        run.report.fail(str(error))
        return False
    return True


def _is_merged(run: BootRun, before: set[int]) -> bool:
    answers = run.observer.predictions
    return any(answers[frame].result == "complete" for frame in answers.keys() - before)
