"""What is wrong with the device itself, as the first boot left it in a text file: a card's mistakes, a full disk."""

from pathlib import Path

# A message stays small and a dashboard readable, whatever somebody wrote into the file.
MAX_PROBLEMS = 20
MAX_CHARACTERS = 300


def read_problems(path: Path | None) -> tuple[str, ...]:
    """Return the file's lines; none if there is no file, which is how it should be."""
    if path is None:
        return ()
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    return tuple(line.strip()[:MAX_CHARACTERS] for line in lines if line.strip())[:MAX_PROBLEMS]
