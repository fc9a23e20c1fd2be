"""A boot test of a device with role "agent": students, camera, an update that a power cut ends, TVM."""

import time
import tomllib
from pathlib import Path

from edge_agent.console.deployment_directory import open_deployment
from edge_agent.console.exit_codes import UserError
from edge_agent.protocol.status import NodeInfo
from edge_agent.student_slot import open_student
from firmware_images.boot_answers import compare_answers
from firmware_images.boot_inspection import TVM_AGENT, DeviceShell, start_tvm_agent
from firmware_images.boot_run import BootRun
from firmware_images.boot_site import SiteObserver

FIRST_UPDATE, SECOND_UPDATE = 2, 3  # versions; the coordinator starts with version 1
CUT_AT = 0.3  # of the second download


def run_agent(run: BootRun) -> None:
    """Start, take the retained deployment, answer; cut the power in the middle of an update; start again."""
    wanted = run.site.deploy(FIRST_UPDATE)
    with run.started("first") as machine:
        if machine is None or not run.updated(machine, wanted, "first start"):
            return
        run.check_answers("first start")
        if run.shell is not None:
            _inspect(run, run.shell)
        if not run.options.power_cut:
            return
        first, wanted = wanted, run.site.deploy(SECOND_UPDATE)
        if not _wait_for_download(run, wanted):
            return
        run.took("power cut in the middle of a download", machine)
    with run.started("second") as machine:
        if machine is None:
            return
        if run.report.facts["second start: deployment at birth"] != first:
            run.report.fail(f"second start: runs {run.observer.deployment}, expected {first}, as before the cut")
        if run.updated(machine, wanted, "second start"):
            run.check_answers("second start")


def _wait_for_download(run: BootRun, wanted: str) -> bool:
    def under_way() -> bool:
        update = run.observer.update
        return bool(update and update.target == wanted and update.state == "downloading" and update.progress >= CUT_AT)

    if run.observer.wait_until(under_way, time.monotonic() + run.options.timeout_s):
        return True
    run.report.fail(f"the second update never came to {CUT_AT:.0%} of its download; last word {run.observer.update}")
    return False


def _inspect(run: BootRun, shell: DeviceShell) -> None:
    """Look around over ssh; then let a second agent answer with TVM."""
    try:
        run.look_around()
        if run.options.tvm_deployment is not None:
            _check_tvm(run, shell, run.options.tvm_deployment)
    except UserError as error:
        run.report.fail(str(error))


def _check_tvm(run: BootRun, shell: DeviceShell, folder: Path) -> None:
    device = f"edge-{run.options.machine}-{TVM_AGENT}"
    identity = tomllib.loads(run.site.card(device, [1]))["broker"]
    start_tvm_agent(shell, folder, device, identity["cert"], identity["key"])
    observer = SiteObserver(run.site.login(), device, "device")
    try:
        birth = observer.wait_for_birth(0, time.monotonic() + run.options.timeout_s)
        if birth is None or not isinstance(birth.info, NodeInfo):
            status = shell.run(f"systemctl status --no-pager edge-agent@{TVM_AGENT} | tail -5; true")
            run.report.fail(f"TVM agent: not born: {status}")
            return
        run.report.note(f"edge-agent@{TVM_AGENT}: {birth.info.students[0].engine}, {birth.info.students[0].artifact}")
        run.report.facts["TVM agent: engine"] = birth.info.students[0].engine
        deployment = open_deployment(folder)
        # TVM's module is machine code of the other CPU: this machine answers with the same float32 network.
        here = open_student(deployment, birth.info.students[0].student, "tflite", "float32", 1)
        compare_answers(observer, [here], deployment, run.options.frames, run.report, "TVM agent")
    finally:
        observer.close()
        shell.run(f"systemctl stop edge-agent@{TVM_AGENT}")
