"""nonn-image: builds, checks, boots and writes SD images for Raspberry Pis."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from edge_agent import __version__
from edge_agent.console.exit_codes import ExitCode
from edge_agent.console.program import ProgramParser, run_program
from firmware_images.spec import DEFAULT_SPEC

EPILOG = """examples:
  nonn-image build --output dist
  nonn-image deb --suite bookworm --output dist
  nonn-image check dist/nonn-edge.img.zst
  nonn-image boot-test dist/nonn-edge.img --machine virt --deployment docs/examples/cifar10-2x-wrn-16-1
  nonn-image boot-test dist/nonn-edge.img --deployment docs/examples/cifar10-2x-wrn-16-1 --pair router
  nonn-image imager-manifest dist --url https://downloads.example.org/nonn-edge
  nonn-image flash dist/nonn-edge.img.zst /dev/sdX --settings pi-kitchen.toml

exit codes: 0 done, 1 a boot test failed, 64 usage, 65 bad image or card file, 69 missing program, 74 disk, 78 bad spec
"""
AddParser = Callable[..., argparse.ArgumentParser]
STAGES = ("packages", "boot-files", "content", "image")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script."""
    arguments = _parser().parse_args(argv)
    return run_program(lambda: int(arguments.job(arguments)))


def default_cache() -> Path:
    """Return where stages are remembered: NONN_IMAGE_CACHE, or the user's cache folder."""
    named = os.environ.get("NONN_IMAGE_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else base / "nonn-image"


def _parser() -> argparse.ArgumentParser:
    parser = ProgramParser("nonn-image", __doc__, EPILOG)
    parser.add_argument("--version", action="version", version=f"nonn-image {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_build(commands.add_parser)
    _add_check(commands.add_parser)
    _add_deb(commands.add_parser)
    _add_boot_test(commands.add_parser)
    _add_manifest(commands.add_parser)
    _add_flash(commands.add_parser)
    return parser


def _add_build(add_parser: AddParser) -> None:
    build = add_parser("build", help="build an image", description="Build an image; finished stages are kept.")
    build.add_argument("--spec", type=Path, default=DEFAULT_SPEC, help="the image's description [nonn-edge.toml]")
    build.add_argument("--output", type=Path, default=Path("dist"), help="folder for the image and its files [dist]")
    build.add_argument(
        "--cache", type=Path, default=default_cache(), help="folder for finished stages [NONN_IMAGE_CACHE]"
    )
    build.add_argument("--mirror", help="Debian mirror [this machine's apt configuration]")
    build.add_argument(
        "--security-mirror", help="mirror of Debian's security updates [this machine's apt configuration]"
    )
    build.add_argument("--fresh", action="append", default=[], choices=STAGES, help="do this stage again (repeatable)")
    build.add_argument("--xz", action="store_true", help="also .img.xz (minutes)")
    build.add_argument("--sign", metavar="KEY", help="sign SHA256SUMS with this gpg key")
    build.set_defaults(job=_build)


def _add_check(add_parser: AddParser) -> None:
    check = add_parser("check", help="check an image or a card file without starting it")
    check.add_argument("image", type=Path, help=".img, .img.zst or .img.xz, or a card's .toml")
    check.add_argument("--spec", type=Path, default=DEFAULT_SPEC)
    check.add_argument("--board", help="also: does it start on this board (pi3, zero2w, pi4, pi5)?")
    check.set_defaults(job=_check)


def _add_deb(add_parser: AddParser) -> None:
    deb = add_parser("deb", help="build the Debian package for stock Raspberry Pi OS")
    deb.add_argument("--suite", choices=("bookworm", "trixie"), default="bookworm", help="Debian 12 or 13 [bookworm]")
    deb.add_argument("--output", type=Path, default=Path("dist"), help="folder for the package [dist]")
    deb.add_argument(
        "--cache", type=Path, default=default_cache(), help="folder for finished stages [NONN_IMAGE_CACHE]"
    )
    deb.set_defaults(job=_deb)


def _add_boot_test(add_parser: AddParser) -> None:
    boot = add_parser("boot-test", help="start an image in QEMU and watch it join a broker of this machine")
    boot.add_argument("image", type=Path, help="the .img")
    boot.add_argument("--machine", choices=("virt", "raspi3b"), default="virt")
    boot.add_argument("--deployment", type=Path, help="trained deployment: the device answers frames with it")
    boot.add_argument(
        "--role",
        choices=("agent", "coordinator", "both"),
        default="agent",
        help="coordinator: the broker, too, for an agent of this machine; both: all on the card [agent]",
    )
    boot.add_argument(
        "--pair",
        metavar="NETWORK",
        choices=("router", "ipv6", "cable"),
        help="two cards, hub and agent: at a home router, at one with IPv6 only, or on one cable (router, ipv6, cable)",
    )
    boot.add_argument("--work", type=Path, default=Path("boot-test"), help="folder for logs and the card [boot-test]")
    boot.add_argument("--timeout", type=float, default=900, help="seconds until it counts as failed [900]")
    boot.add_argument("--frames", type=int, default=4, help="frames sent once it has joined [4]")
    boot.add_argument("--power-cut", action="store_true", help="kill QEMU in the middle of an update and start again")
    boot.add_argument("--camera", action="store_true", help="let the device answer images of a virtual V4L2 camera too")
    boot.add_argument("--inspect", action="store_true", help="look around over ssh: units, mounts, restrictions, times")
    boot.add_argument("--tvm-deployment", type=Path, help="a second agent answers with its TVM students")
    boot.add_argument(
        "--trouble",
        choices=("small-card", "full-card", "no-network"),
        help="start a bad card: it has to say so",
    )
    boot.add_argument("--nice", type=int, default=10, help="QEMU's niceness [10]")
    boot.set_defaults(job=_boot_test)


def _add_manifest(add_parser: AddParser) -> None:
    manifest = add_parser("imager-manifest", help="write or check os_list.json for Raspberry Pi Imager")
    manifest.add_argument("folder", type=Path, help="a folder that `build` filled")
    manifest.add_argument("--url", help="where the image will be downloaded from; file:// works too")
    manifest.set_defaults(job=_manifest)


def _add_flash(add_parser: AddParser) -> None:
    flash = add_parser("flash", help="write an image to a card and read it back")
    flash.add_argument("image", type=Path, help=".img or .img.zst")
    flash.add_argument("device", type=Path, help="the card's device, such as /dev/sdX, or a file")
    flash.add_argument("--settings", type=Path, help="card file to put on it as nonn-edge.toml")
    flash.add_argument("--board", choices=("pi3", "zero2w", "pi4", "pi5"), help="refuse an image for other boards")
    flash.add_argument("--yes", action="store_true", help="do not ask; everything on the device is lost")
    flash.set_defaults(job=_flash)


def _build(arguments: argparse.Namespace) -> int:
    from firmware_images.apt_sources import host_mirrors
    from firmware_images.build import BuildOptions, build_image
    from firmware_images.release_files import ReleaseOptions
    from firmware_images.spec import load_spec

    spec = load_spec(arguments.spec)
    mirror, security = host_mirrors()
    options = BuildOptions(
        cache=arguments.cache,
        output=arguments.output,
        mirror=arguments.mirror or mirror,
        security_mirror=arguments.security_mirror or security,
        fresh=frozenset(arguments.fresh),
        release=ReleaseOptions(xz=arguments.xz, sign_key=arguments.sign),
    )
    print(build_image(spec, arguments.spec.parent, options))
    return ExitCode.OK


def _check(arguments: argparse.Namespace) -> int:
    from firmware_images.image_check import check_card_file, check_image
    from firmware_images.spec import load_spec

    if arguments.image.suffix == ".toml":
        lines = check_card_file(arguments.image)
    else:
        lines = check_image(load_spec(arguments.spec), arguments.image, arguments.board)
    print("\n".join(lines))
    return ExitCode.OK


def _deb(arguments: argparse.Namespace) -> int:
    from firmware_images.debian_package import SUITES, build_package
    from firmware_images.spec import load_spec

    print(build_package(load_spec(DEFAULT_SPEC), SUITES[arguments.suite], arguments.cache, arguments.output))
    return ExitCode.OK


def _boot_test(arguments: argparse.Namespace) -> int:
    if arguments.trouble is not None:
        from firmware_images.boot_trouble import trouble_test

        where = (arguments.image, arguments.machine, arguments.trouble, arguments.work)
        return trouble_test(*where, arguments.timeout, arguments.nice)
    from firmware_images.boot_run import BootTestOptions
    from firmware_images.boot_test import boot_test

    options = BootTestOptions(
        image=arguments.image,
        machine=arguments.machine,
        work=arguments.work,
        deployment=arguments.deployment,
        timeout_s=arguments.timeout,
        frames=arguments.frames,
        power_cut=arguments.power_cut,
        niceness=arguments.nice,
        camera=arguments.camera,
        inspect=arguments.inspect,
        tvm_deployment=arguments.tvm_deployment,
        role=arguments.role,
    )
    if arguments.pair is not None:
        from firmware_images.boot_pair import pair_test

        return pair_test(options, arguments.pair)
    return boot_test(options)


def _manifest(arguments: argparse.Namespace) -> int:
    from firmware_images.imager import check_catalogue, set_download

    path = arguments.folder / "os_list.json"
    if arguments.url is not None:
        set_download(path, arguments.url)
    entry = check_catalogue(path).os_list[0]
    print(f"{path}: {entry.name}, {entry.url}, {entry.image_download_size >> 20} MiB, {', '.join(entry.devices)}")
    return ExitCode.OK


def _flash(arguments: argparse.Namespace) -> int:
    from firmware_images.flash import flash

    flash(arguments.image, arguments.device, arguments.settings, arguments.board, assume_yes=arguments.yes)
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
