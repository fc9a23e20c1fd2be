"""Fuzzes every parser that touches network or card for some minutes: `make fuzz MINUTES=5`. Prints what it found.

Good inputs are damaged as networks, cards and attackers damage them; Hypothesis shrinks what goes through to the least
that does. Only a parser's documented error may leave it.
"""

import argparse
import logging
import sys
import tempfile
import time
import warnings
from contextlib import suppress
from pathlib import Path

from fuzz_targets import Target, targets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# Where lengths, counts and signs go wrong; and words that JSON and TOML readers stumble over.
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 2**64 - 1)
WORDS = (
    b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"-1", b"-0", b"18446744073709551616", b"0.0000001", b'""', b"[]",
    b"{}", b'"\\ud800"', b"\xff\xfe", b"\x00", b"[" * 2000, b"9" * 5000, b'"""', b"'''", b"\r\n", b"../../etc/passwd",
    b"-----BEGIN CERTIFICATE-----", b"\xe2\x80\xae", b"1979-05-27T07:32:00Z", b"a.b.c = 1\n", b"+", b"#", b"/",
)  # fmt: skip
ROUND_EXAMPLES = 200


@st.composite
def damaged(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """A seed after up to six accidents."""
    content = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(content)))
        match draw(st.integers(0, 7)):
            case 0:
                content[start : start + 1] = bytes([draw(st.integers(0, 255))])
            case 1:
                content[start:start] = draw(st.binary(max_size=16))
            case 2:
                del content[start : start + draw(st.integers(1, 64))]
            case 3:
                del content[start:]
            case 4:
                piece = content[start : start + draw(st.integers(1, 64))]
                content[start:start] = piece * draw(st.integers(1, 4))
            case 5:
                size = draw(st.sampled_from((1, 2, 4, 8)))
                number = draw(st.sampled_from(NUMBERS)) & (256**size - 1)
                content[start : start + size] = number.to_bytes(size, draw(st.sampled_from(("little", "big"))))
            case 6:
                word = draw(st.sampled_from(WORDS))
                content[start : start + draw(st.integers(0, len(word)))] = word
            case _:
                other = draw(st.sampled_from(seeds))
                content[start:] = other[draw(st.integers(0, len(other))) :]
    return bytes(content)


def inputs(target: Target) -> st.SearchStrategy[bytes]:
    """Damaged seeds, and now and then noise."""
    return st.one_of(damaged(target.seeds), damaged(target.seeds), damaged(target.seeds), st.binary(max_size=200))


def fuzz(target: Target, examples: int) -> None:
    """Raise what a parser should not have raised, with the least input that makes it."""

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(inputs(target))
    def parses_or_says_why_not(content: bytes) -> None:
        with suppress(*target.errors):
            target.parse(content)

    parses_or_says_why_not()


def main() -> int:
    """Go round the targets until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--only", default="", help="targets whose name holds this")
    arguments = parser.parse_args()
    warnings.simplefilter("error")
    logging.disable()  # Pillow's opinion of broken files
    found: dict[str, str] = {}
    rounds = 0
    with tempfile.TemporaryDirectory() as folder:
        chosen = [target for target in targets(Path(folder)) if arguments.only in target.name]
        until = time.monotonic() + 60 * arguments.minutes
        while time.monotonic() < until:
            rounds += 1
            for target in [target for target in chosen if target.name not in found]:
                try:
                    fuzz(target, ROUND_EXAMPLES)
                except Exception as error:  # noqa: BLE001 (that is what we look for)
                    found[target.name] = f"{type(error).__name__}: {error}\n" + "\n".join(
                        getattr(error, "__notes__", [])
                    )
                    print(f"FOUND in {target.name}: {found[target.name]}", flush=True)
                if time.monotonic() >= until:
                    break
    print(f"{len(chosen)} parsers, about {rounds} x {ROUND_EXAMPLES} inputs each, {len(found)} let something else out")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
