"""The documents as a static site, `make docs`: the repository is its source, so that links hold as they stand."""  # noqa: INP001

import re
import tomllib
from pathlib import Path
from typing import Any

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "NoNN Edge"
author = copyright = "the NoNN Edge authors"  # noqa: A001
version = release = PROJECT["version"]

extensions = ["myst_parser", "sphinx.ext.githubpages"]
source_suffix = {".md": "markdown"}
root_doc = "README"
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/**"]
exclude_patterns = [
    # Names of folders that are not worth walking.
    ".*", "*.egg-info", "benchmarks", "boot-test", "build", "coordinator", "dist", "edge_agent", "firmware_images",
    "runs", "systemd", "tests", "trainer",
]  # fmt: skip
nitpicky = True
highlight_language = "none"
myst_heading_anchors = 4

html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["index.html"]  # leads to README.html
html_copy_source = False
html_show_sphinx = False

# Pages that no list names make Sphinx complain, and `make docs` fail: this one is complete.
NAVIGATION = {
    "Use it": [
        "docs/README",
        "docs/install",
        "docs/images",
        "docs/operations",
        "docs/dashboard",
        "docs/cookbook",
        "docs/examples/README",
        "docs/security",
    ],
    "Train": ["docs/training", "docs/partition", "docs/updates", "docs/runtimes"],
    "What to expect": ["docs/results", "docs/scaling", "docs/reliability"],
    "Inside": ["docs/architecture", "docs/protocol", "docs/glossary", "docs/packaging", "CONTRIBUTING", "CHANGELOG"],
}
DECISIONS = sorted(path.stem for path in (REPOSITORY / "docs/decisions").glob("[0-9]*.md"))


def _toctree(pages: list[str], caption: str = "") -> str:
    options = [f":caption: {caption}"] if caption else []
    return "\n".join(["", "```{toctree}", ":hidden:", *options, "", *pages, "```", ""])


def _complete_source(_app: Sphinx, docname: str, source: list[str]) -> None:
    """Navigation comes from here, and links to folders lead to what describes them: GitHub's pages stay as they are."""
    if docname == "README":
        source[0] += "".join(_toctree(pages, caption) for caption, pages in NAVIGATION.items())
        source[0] += _toctree(["docs/decisions/README"])
    if docname == "docs/decisions/README":
        source[0] += _toctree(DECISIONS)
    folder = (REPOSITORY / docname).parent

    def folder_link(match: re.Match[str]) -> str:
        text, target = match.groups()
        if not (folder / target).is_dir():
            return match[0]
        page = folder / target / "README.md"
        return f"[{text}]({target.rstrip('/')}/README.md)" if page.is_file() else text

    source[0] = re.sub(r"(?<!!)\[([^\]]*)\]\(([^)#:\s]+)\)", folder_link, source[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx calls this."""
    app.connect("source-read", _complete_source)
    app.add_lexer("mermaid", TextLexer)  # GitHub draws it; without a network it is read as text
    return {"parallel_read_safe": True}
