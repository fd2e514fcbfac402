"""The documentation as a site: `make docs-site`.

The pages are plain Markdown that a repository's host shows too. So what Sphinx needs beyond Markdown happens here and in `docstrings.py`: an index page's list is its table of contents, and a name in backticks that the reference has becomes a link.
"""

from __future__ import annotations

import os
import re
import sys
from importlib import import_module
from pathlib import Path
from posixpath import dirname, join, normpath
from typing import Any

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))
# the kernels' twins have the signatures and the whole docstrings
os.environ["CLOUD_RUNTIMES_NATIVE"] = "off"

project = "Cloud Runtimes Python"
version = release = import_module("cloud_runtimes").__version__
extensions = ["myst_parser", "docstrings"]
# the root is the repository's, since pages link to the README, to CONTRIBUTING and to SECURITY
root_doc = "docs/index"
include_patterns = ["docs/**.md", "*.md", "src_ext/README.md"]
exclude_patterns = [".*", "build", "dist", "cloud_runtimes", "tests", "**/.*"]
nitpicky = True
highlight_language = "sh"  # of blocks that name none
myst_heading_anchors = 4
python_maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"
html_title = f"{project} {version}"
html_theme = "furo"
html_static_path, html_css_files, html_js_files = ["_static"], ["site.css"], ["site.js"]
html_search_scorer = str(Path(__file__).parent / "scorer.js")
html_show_copyright = html_copy_source = False

_LISTED = re.compile(r"^(?:[*-] |\d+\. |\| )\[([^\]]*)\]\(([^)#]+)\.md\)", re.MULTILINE)

_PARAMETERS = re.compile(r"<dl>\s*(<dd>.*?</dd>)\s*</dl>", re.DOTALL)


def list_pages(app: Sphinx, page: str, source: list[str]) -> None:
    """Make the list of pages on an index page its table of contents."""
    if page.endswith("/index"):
        entries = [f"{title} <{normpath(join('/', dirname(page), to))}>" for title, to in _LISTED.findall(source[0])]
        source[0] += "\n\n```{toctree}\n:hidden:\n\n" + "\n".join(entries) + "\n```\n"


def write_root(app: Sphinx, error: Exception | None) -> None:
    """Lead from the root of the site to its first page."""
    if error is None:
        refresh = (
            f'<!doctype html><meta http-equiv="refresh" content="0; url={root_doc}.html"><title>{project}</title>\n'
        )
        Path(app.outdir, "index.html").write_text(refresh, encoding="utf-8")


def write_parameters(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Make the parameters of a signature, which Sphinx writes as definitions of nothing, plain blocks: screen readers stumble over those."""
    if "body" in context:
        context["body"] = _PARAMETERS.sub(
            lambda found: f'<div>{found[1].replace("dd>", "div>")}</div>', str(context["body"])
        )


def setup(app: Sphinx) -> None:
    """Connect what is above."""
    app.connect("source-read", list_pages)
    app.connect("html-page-context", write_parameters)
    app.connect("build-finished", write_root)
