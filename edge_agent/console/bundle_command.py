"""The command `bundle`: a deployment in one signed file, and the keys for it."""

import argparse
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge_agent.console.atomic_file import write_atomically
from edge_agent.console.deployment_directory import MANIFEST_FILE, open_deployment
from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.console.program import ProgramParser
from edge_agent.console.update_settings import read_trusted_keys
from edge_agent.protocol.bundle import SUFFIX, Bundle, make_bundle, parse_bundle
from edge_agent.protocol.errors import ManifestError
from edge_agent.protocol.signature import SigningKey

DESCRIPTION = "A deployment in one signed file, for nonn-coordinator deploy."
EPILOG = """\
commands:
  bundle RUN [--out FILE] [--version N] [--expires YYYY-MM-DD] [--minimum-agent-version V] [--key FILE]
                                   pack RUN/export, or a deployment directory; signed at once with --key
  bundle keygen FILE [--comment WORDS]    a new key: FILE (private, mode 0600) and FILE.pub
  bundle sign BUNDLE --key FILE           add a signature; several keys make a rotation
  bundle verify BUNDLE --trusted-keys FILE
  bundle inspect BUNDLE [--json]

A trusted keys file is made of the lines of .pub files. Private keys never leave their file.
Exit codes: 0 done, 65 a bundle that is damaged or not signed by a trusted key, 74 disk, 78 keys
"""


def add_bundle_command(commands: Any, prog: str) -> None:
    """Add `bundle` to a program's commands."""
    # No flags of its own, not even --help: whatever follows is for the parser of the action.
    parser = commands.add_parser(
        "bundle", help="pack, sign, verify and show a deployment as one file", prefix_chars="\0", add_help=False
    )
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="RUN | keygen | sign | verify | inspect ...")
    parser.set_defaults(job=lambda arguments: run_bundle(arguments.words, f"{prog} bundle"))


def run_bundle(words: Sequence[str], prog: str) -> int:
    """Do what the words after `bundle` say."""
    arguments = parse_bundle_words(words, prog)
    return int(arguments.job(arguments))


def parse_bundle_words(words: Sequence[str], prog: str) -> argparse.Namespace:
    """The arguments, and in `job` what to do with them."""
    actions: dict[str, tuple[Callable[[ProgramParser], None], Callable[[argparse.Namespace], int]]] = {
        "keygen": (_keygen_flags, _keygen),
        "sign": (_sign_flags, _sign),
        "verify": (_verify_flags, _verify),
        "inspect": (_inspect_flags, _inspect),
    }
    action = words[0] if words and words[0] in actions else ""
    flags, job = actions.get(action, (_pack_flags, _pack))
    parser = ProgramParser(prog=f"{prog} {action}".rstrip(), description=DESCRIPTION, epilog=EPILOG)
    flags(parser)
    parser.set_defaults(job=job)
    return parser.parse_args(words[1:] if action else words)


def read_bundle(path: Path) -> Bundle:
    """Read and check a bundle; UserError says what is wrong with it."""
    try:
        return parse_bundle(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; expected a {SUFFIX} file") from None
    except ManifestError as error:
        raise UserError(f"{path}: {error}") from None


def read_signing_key(path: Path) -> SigningKey:
    """Read a private key that only its owner can read; UserError (78) otherwise, without a word of its content."""
    try:
        mode = path.stat().st_mode
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; expected a private key", ExitCode.CONFIGURATION) from None
    if mode & 0o077:
        message = f"{path}: mode {mode & 0o777:04o}; expected 0600: others may have read this key"
        raise UserError(message, ExitCode.CONFIGURATION)
    try:
        return SigningKey.from_pem(content)
    except ValueError as error:
        raise UserError(f"{path}: {error}; expected one of bundle keygen", ExitCode.CONFIGURATION) from None


def _pack_flags(parser: ProgramParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory or deployment directory")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"file to write [NAME-VERSION{SUFFIX}]")
    parser.add_argument("--version", type=int, metavar="N", help="version, higher than what the site runs")
    parser.add_argument("--expires", type=_day, metavar="YYYY-MM-DD", help="last day on which it may be installed")
    parser.add_argument("--minimum-agent-version", metavar="V", help="oldest agent that can run it")
    parser.add_argument("--key", type=Path, metavar="FILE", help="private key to sign with")


def _pack(arguments: argparse.Namespace) -> int:
    run: Path = arguments.run
    folder = run / "export" if (run / "export" / MANIFEST_FILE).is_file() else run
    deployment = open_deployment(folder)
    changes = {
        "version": arguments.version,
        "expires": arguments.expires,
        "minimum_agent_version": arguments.minimum_agent_version,
    }
    given = {name: value for name, value in changes.items() if value is not None}
    manifest = deployment.manifest.model_copy(update=given)
    content = manifest.to_bytes() if given else (folder / MANIFEST_FILE).read_bytes()
    try:
        bundle = make_bundle(content, deployment.read)
    except ManifestError as error:
        raise UserError(f"{folder}: {error}") from None
    if arguments.key is not None:
        bundle = _signed(bundle, read_signing_key(arguments.key))
    out = arguments.out or Path(f"{manifest.name}-{manifest.version}{SUFFIX}")
    write_atomically(out, bundle.to_bytes())
    signed = "signed" if bundle.signatures else "not signed"
    print(f"{out}: deployment {bundle.id}, {manifest.name} version {manifest.version}, {signed}")
    return ExitCode.OK


def _keygen_flags(parser: ProgramParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="private key to write; FILE.pub is the public one")
    parser.add_argument("--comment", default="", metavar="WORDS", help="whose key it is, in the public file")


def _keygen(arguments: argparse.Namespace) -> int:
    path: Path = arguments.file
    if path.exists():
        raise UserError(f"{path}: exists; a key that is overwritten is lost", ExitCode.CONFIGURATION)
    key = SigningKey.generate()
    public = key.public(" ".join(arguments.comment.split()))
    write_atomically(path, key.to_pem(), mode=0o600)
    write_atomically(path.with_name(path.name + ".pub"), f"{public.to_line()}\n".encode())
    print(f"{path}: private key {public.key_id}, keep it offline; {path}.pub: for trusted keys files")
    return ExitCode.OK


def _sign_flags(parser: ProgramParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--key", type=Path, required=True, metavar="FILE", help="private key")


def _sign(arguments: argparse.Namespace) -> int:
    bundle = _signed(read_bundle(arguments.bundle), read_signing_key(arguments.key))
    write_atomically(arguments.bundle, bundle.to_bytes())
    print(f"{arguments.bundle}: signed by {', '.join(s.key_id for s in bundle.signatures)}")
    return ExitCode.OK


def _verify_flags(parser: ProgramParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--trusted-keys", type=Path, required=True, metavar="FILE", help="public keys that count")


def _verify(arguments: argparse.Namespace) -> int:
    bundle = read_bundle(arguments.bundle)
    keys = read_trusted_keys(arguments.trusted_keys)
    try:
        key = keys.verify("manifest", bundle.manifest_bytes, bundle.signatures)
    except ManifestError as error:
        raise UserError(f"{arguments.bundle}: {error}") from None
    expires = bundle.manifest.expires
    if expires is not None and expires < datetime.now(UTC).replace(tzinfo=UTC if expires.tzinfo else None):
        raise UserError(f"{arguments.bundle}: expired on {expires:%Y-%m-%d}")
    print(f"{arguments.bundle}: deployment {bundle.id}, signed by {key.key_id} {key.comment}".rstrip())
    return ExitCode.OK


def _inspect_flags(parser: ProgramParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON")


def _inspect(arguments: argparse.Namespace) -> int:
    bundle = read_bundle(arguments.bundle)
    manifest = bundle.manifest
    if arguments.json:
        content = {"deployment": bundle.id, "signed_by": [s.key_id for s in bundle.signatures]}
        print(json.dumps(content | {"manifest": manifest.model_dump(mode="json", by_alias=True)}))
        return ExitCode.OK
    size = manifest.input
    print(f"deployment {bundle.id}: {manifest.name}, version {manifest.version}, created {manifest.created:%Y-%m-%d}")
    print(f"signed by  {', '.join(s.key_id for s in bundle.signatures) or 'nobody'}")
    print(f"expires    {manifest.expires:%Y-%m-%d}" if manifest.expires else "expires    never")
    print(f"agents     {manifest.minimum_agent_version} or newer")
    print(f"input      {size.height} x {size.width} x {size.channels}, {len(manifest.classes)} classes, "
          f"teacher {manifest.teacher}, {manifest.filters} filters")  # fmt: skip
    for student in manifest.students:
        codec = student.codec
        low, high = (codec.scale * (value - codec.zero_point) for value in (-128, 127))
        travel = f"{low:.3g} to {high:.3g}" if codec.ranges is None else f"{codec.encoding}, a range for each"
        print(f"student {student.index}  {student.network}, {student.width} features in {travel}, "
              f"self-test within {student.golden.tolerance:.3g}")  # fmt: skip
        for artifact in student.artifacts:
            print(f"  {artifact.file}: {artifact.engine} {artifact.precision} for {artifact.target}, "
                  f"{artifact.size_bytes} bytes")  # fmt: skip
    for name, value in sorted(manifest.metrics.items()):
        print(f"{name}  {value:.4g}")
    return ExitCode.OK


def _signed(bundle: Bundle, key: SigningKey) -> Bundle:
    signature = key.sign("manifest", bundle.manifest_bytes)
    others = tuple(s for s in bundle.signatures if s.key_id != signature.key_id)
    return Bundle(bundle.manifest_bytes, bundle.manifest, bundle.files, (*others, signature))


def _day(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(hour=23, minute=59, second=59, tzinfo=UTC)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date such as 2027-06-30") from None
