"""nonn-coordinator: merges the students' features, answers, and tests the fleet."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

# Before NumPy is imported: our matrices are small, and threads of its BLAS take 0.1 s of CPU to start.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from coordinator.deploy import add_deploy_commands
from coordinator.provisioning.commands import add_commands as add_provisioning_commands
from edge_agent import __version__
from edge_agent.console.bundle_command import add_bundle_command
from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.console.log import start_logging
from edge_agent.console.own_certificate import wait_for_clock
from edge_agent.console.program import ProgramParser, StopFlag, run_program
from edge_agent.console.settings import add_setting_flags, load_settings
from edge_agent.protocol.errors import ManifestError
from edge_agent.protocol.topics import check_id

EPILOG = """examples:
  nonn-coordinator run --deployment docs/examples/cifar10-2x-wrn-16-1
  nonn-coordinator evaluate --dataset cifar10.zip --out answers.json
  nonn-coordinator classify cat.jpg dog.png --broker-host broker.local
  nonn-coordinator status
  nonn-coordinator doctor --broker-host broker.local
  nonn-coordinator init nonn-site --broker-host hub.local
  nonn-coordinator device add pi-1 --students 0

exit codes: 0 done, 1 wrong, lost or repeated answers, 64 usage, 65 bad input, 69 no broker, coordinator or device,
            74 disk, 78 bad settings, 130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script."""

    def job() -> int:
        # The parser too needs packages that an agent's installation lacks.
        arguments = _parser().parse_args(argv)
        return int(arguments.job(arguments))

    return run_program(job)


def _parser() -> argparse.ArgumentParser:
    from coordinator import assign_command, doctor, home_assistant, status_view
    from coordinator.settings import ClientSettings, CoordinatorSettings

    parser = ProgramParser("nonn-coordinator", __doc__, EPILOG)
    parser.add_argument("--version", action="version", version=f"nonn-coordinator {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="answer frames until stopped", description="Answer frames until stopped.")
    add_setting_flags(run, CoordinatorSettings)
    run.set_defaults(job=_run)

    evaluation = commands.add_parser(
        "evaluate",
        help="send a labelled data set through the fleet",
        description="Send every image of a data set through the fleet; print accuracy, latency and bytes.",
    )
    evaluation.add_argument(
        "--dataset", type=Path, required=True, metavar="PATH", help="folder or zip of test/CLASS/*.png"
    )
    evaluation.add_argument(
        "--expect", type=Path, metavar="FILE", help="answers.npz of nonn-trainer evaluate to compare"
    )
    evaluation.add_argument("--out", type=Path, metavar="FILE", help="write report and answers as JSON")
    evaluation.add_argument(
        "--rate", type=_positive_number, metavar="FPS", help="frames per second [as fast as answers come]"
    )
    evaluation.add_argument(
        "--tell-labels", action="store_true", help="publish the true classes, so that dashboard and metrics count"
    )
    _add_sending_flags(evaluation, window=4)
    add_setting_flags(evaluation, ClientSettings)
    evaluation.set_defaults(job=_evaluate)

    classify = commands.add_parser(
        "classify", help="classify image files", description="Classify image files; one line each."
    )
    classify.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="PNG, JPEG, ...: cropped and resized to fit"
    )
    _add_sending_flags(classify, window=1)
    add_setting_flags(classify, ClientSettings)
    classify.set_defaults(job=_classify)
    for part in (assign_command, status_view, doctor, home_assistant):
        part.add_command(commands)
    add_deploy_commands(commands)
    add_bundle_command(commands, "nonn-coordinator")
    add_provisioning_commands(commands)
    return parser


def _add_sending_flags(parser: argparse.ArgumentParser, window: int) -> None:
    parser.add_argument("--window", type=_positive, default=window, metavar="N", help=f"frames in flight [{window}]")
    parser.add_argument(
        "--source", type=_source, metavar="NAME", help="source to send as [client- and a random number]"
    )
    parser.add_argument(
        "--wait", type=_positive_number, default=10.0, metavar="S", help="seconds to wait for the fleet [10]"
    )
    parser.add_argument("--allow-missing", action="store_true", help="do not wait for missing students")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def _positive_number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return number


def _source(text: str) -> str:
    try:
        return check_id(text, "source")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _run(arguments: argparse.Namespace) -> int:
    from coordinator.observation import observed
    from coordinator.settings import CoordinatorSettings
    from coordinator.updates_wiring import first_deployment, open_shelf
    from coordinator.wiring import build_coordinator
    from edge_agent.protocol.head import MergeHead

    settings = load_settings(CoordinatorSettings, arguments, os.environ)
    start_logging(settings.log_format, settings.log_level)
    shelf = open_shelf(settings)
    deployment = first_deployment(settings, shelf)
    manifest = deployment.manifest
    if settings.quorum > len(manifest.students):
        message = f"quorum: {settings.quorum}; expected at most the deployment's {len(manifest.students)} students"
        raise UserError(message, ExitCode.CONFIGURATION)
    try:
        head = MergeHead.from_bytes(deployment.read(manifest.head), manifest.widths, len(manifest.classes))
    except ManifestError as error:
        raise UserError(f"{deployment.path / manifest.head.file}: {error}") from None
    stop = StopFlag()
    stop.listen()
    wait_for_clock(settings.broker, lambda: stop.stopped)
    app = build_coordinator(settings, deployment, head, shelf=shelf)
    with observed(app, head, shelf):
        logging.getLogger("coordinator").info(
            "site %s: deployment %s %s, %d students, %d classes",
            settings.site, manifest.name, deployment.id, len(manifest.students), len(manifest.classes),
        )  # fmt: skip
        app.run(lambda: stop.stopped)
    return ExitCode.OK


def _evaluate(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from coordinator.evaluate import compare, evaluate, print_report, read_expected, write_report
    from coordinator.frame_client import FrameClient
    from coordinator.labelled_images import LabelledImages
    from coordinator.settings import ClientSettings

    settings = load_settings(ClientSettings, arguments, os.environ)
    # What could go wrong at the end goes wrong now, not after ten thousand frames.
    expected = read_expected(arguments.expect) if arguments.expect else None
    if arguments.out and not arguments.out.parent.is_dir():
        raise UserError(f"{arguments.out.parent}: no such folder; expected one to write {arguments.out.name} into")
    images = LabelledImages(arguments.dataset)
    client = FrameClient(settings, arguments.source)
    try:
        info = client.wait_for_site(arguments.wait, not arguments.allow_missing)
        if arguments.tell_labels:
            client.labels = [image.class_name for image in images.images]
        report, answers = evaluate(client, info, images, arguments.window, arguments.rate)
    finally:
        client.close()
        images.close()
    if expected is not None:
        report["different_from_offline"] = compare(answers, expected, arguments.expect)
    if arguments.out:
        write_report(arguments.out, report, answers, images)
    if arguments.json:
        print(json.dumps(report))
    else:
        print_report(report, Console())
    wrong = report["lost"] + report["repeated"] + report.get("different_from_offline", 0)
    if wrong:
        print(
            f"error: {report['lost']} lost, {report['repeated']} repeated, "
            f"{report.get('different_from_offline', 0)} answers different from offline",
            file=sys.stderr,
        )
    return ExitCode.FAILED if wrong else ExitCode.OK


def _read_image(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; expected an image file") from None


def _classify(arguments: argparse.Namespace) -> int:
    from coordinator.frame_client import FrameClient
    from coordinator.labelled_images import decode_image
    from coordinator.settings import ClientSettings

    settings = load_settings(ClientSettings, arguments, os.environ)
    contents = [_read_image(path) for path in arguments.files]
    client = FrameClient(settings, arguments.source)
    try:
        info = client.wait_for_site(arguments.wait, not arguments.allow_missing, spare_absent=True)
        shape = (info.height, info.width, info.channels)
        images = [decode_image(c, shape, str(p)) for c, p in zip(contents, arguments.files, strict=True)]
        answers = {answer.index: answer for answer in client.classify(images, arguments.window)}
    finally:
        client.close()
    for index, path in enumerate(arguments.files):
        prediction = answers[index].prediction if index in answers else None
        if arguments.json:
            print(json.dumps({"file": str(path), "answer": prediction.model_dump() if prediction else None}))
        elif prediction is None or prediction.class_index is None:
            print(f"{path}: no answer")
        else:
            sure = prediction.probabilities[prediction.class_index]
            which = "students" if len(prediction.missing) > 1 else "student"
            note = f" (without {which} {', '.join(map(str, prediction.missing))})" if prediction.missing else ""
            print(f"{path}: {prediction.class_name} {sure:.1%}{note}, {prediction.latency_ms.total:.1f} ms")
    answered = all(i in answers and answers[i].prediction.class_index is not None for i in range(len(arguments.files)))
    return ExitCode.OK if answered else ExitCode.FAILED


if __name__ == "__main__":
    sys.exit(main())
