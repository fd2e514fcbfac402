"""The documentation as a site: `make docs-site`.

The pages are plain Markdown that a repository's host shows too. So what Sphinx needs beyond Markdown happens here: an index page's list is its table of contents, a name in backticks that the reference has becomes a link, and the directive ``reference`` writes out a module from its docstrings.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from posixpath import dirname, join, normpath
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.addnodes import desc, desc_sig_keyword, desc_sig_space
from sphinx.application import Sphinx
from sphinx.domains import python
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective
from sphinx.util.inspect import stringify_signature
from sphinx.util.nodes import make_refnode

from cloud_runtimes import __version__
from cloud_runtimes.client import SERVICES

project = "Cloud Runtimes Python"
version = release = __version__
html_title = f"{project} {__version__}"
extensions = ["myst_parser"]
html_theme = "furo"
# the root is the repository's, since pages link to the README, to CONTRIBUTING and to SECURITY
root_doc = "docs/index"
include_patterns = ["docs/**.md", "*.md", "src_ext/README.md"]
exclude_patterns = [".*", "build", "dist", "cloud_runtimes", "tests", "**/.*"]
myst_heading_anchors = 4
nitpicky = True
python_maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"
html_static_path, html_css_files = ["_static"], ["site.css"]
html_show_copyright = False
html_copy_source = False

_LISTED = re.compile(r"^(?:[*-] |\d+\. |\| )\[([^\]]*)\]\(([^)#]+)\.md\)", re.MULTILINE)
_SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields):$")


def list_pages(app: Sphinx, page: str, source: list[str]) -> None:
    """Make the list of pages on an index page its table of contents."""
    if page.endswith("/index"):
        found = [f"{title} <{normpath(join('/', dirname(page), to))}>" for title, to in _LISTED.findall(source[0])]
        source[0] += "\n\n```{toctree}\n:hidden:\n\n" + "\n".join(found) + "\n```\n"


def find(app: Sphinx, name: str, within: str | None) -> tuple[str, python.ObjectEntry] | None:
    """Find the object that a name in the documentation means."""
    objects = app.env.domains.python_domain.objects
    service = re.match(r"client\.(\w+)\.(\w+)$", name)
    if service and service[1] in SERVICES:
        name = f"{service[1].capitalize() if service[1] != 'pubsub' else 'PubSub'}Service.{service[2]}"
    if within and f"{within}.{name}" in objects:
        return f"{within}.{name}", objects[f"{within}.{name}"]
    if name in objects and "." in name:
        return name, objects[name]
    if name[:1].isupper() or "." in name:
        found = [full for full in objects if full.endswith(f".{name}")]
        if len({objects[full].node_id for full in found}) == 1:
            return found[0], objects[found[0]]
    return None


class LinkNames(SphinxPostTransform):
    """Link names in backticks to the reference."""

    default_priority = 400

    def run(self, **kwargs: Any) -> None:
        for node in list(self.document.findall(nodes.literal)):
            if isinstance(node.parent, (nodes.reference, nodes.title)):
                continue
            within, above = None, node.parent
            while above is not None and within is None:
                if isinstance(above, desc) and above.get("objtype") == "class":
                    within = above[0]["ids"][0]
                above = above.parent
            found = find(self.app, re.sub(r"\(.*\)$", "", node.astext()), within)
            if found:
                name, entry = found
                link = make_refnode(
                    self.app.builder, self.env.docname, entry.docname, entry.node_id, node.deepcopy(), name
                )
                node.replace_self(link)


def link_annotation(app: Sphinx, env: Any, node: Any, content: nodes.Element) -> nodes.Element | None:
    """Link a name in a signature that another page explains; leave those of Python and of typing alone."""
    if node["refdomain"] != "py":
        return None
    found = find(app, node["reftarget"], None)
    return make_refnode(app.builder, node["refdoc"], found[1].docname, found[1].node_id, content) if found else content


class _Twins(python.PyMethod):
    def get_signature_prefix(self, sig: str) -> list[nodes.Node]:
        return (
            [desc_sig_keyword("", "async"), desc_sig_space()] if "_async(" in sig else super().get_signature_prefix(sig)
        )


class Reference(SphinxDirective):
    """Write out what a module offers: ``reference`` with its name, then the names, if not all of ``__all__``."""

    required_arguments = 1
    optional_arguments = 99

    def run(self) -> list[nodes.Node]:
        self.module = importlib.import_module(self.arguments[0])
        self.env.ref_context["py:module"] = self.module.__name__
        names = self.arguments[1:] or sorted(
            self.module.__all__, key=lambda name: not name.endswith(("Service", "Error"))
        )
        return [node for name in names for node in self.thing(name, getattr(self.module, name))]

    def thing(self, name: str, value: Any) -> list[nodes.Node]:
        if inspect.isclass(value):
            made = (
                dataclasses.is_dataclass(value) or "    Args:" in (value.__doc__ or "") or name == "CloudRuntimesClient"
            )
            out = self.entry(python.PyClasslike, "class", name + (_signature(value) if made else ""), value.__doc__)
            # as a class that has its members in its own content leaves them
            context = self.env.ref_context
            context["py:class"], context["py:classes"] = name, [name]
            out[-1][-1].extend(node for one in self.members(value) for node in one)
            context["py:class"], context["py:classes"] = None, []
            return out
        if inspect.isroutine(value):
            return self.entry(python.PyFunction, "function", name + _signature(value), value.__doc__)
        if inspect.ismodule(value):
            names = getattr(value, "__all__", [])
            return [n for one in names for n in self.thing(f"{name}.{one}", getattr(value, one))]
        return self.entry(python.PyVariable, "data", name, f"`{value}`")

    def members(self, cls: type) -> Iterator[list[nodes.Node]]:
        seen: dict[str, Any] = {}
        for base in cls.__mro__:
            elsewhere = base is not cls and base.__name__ in self.module.__all__
            if base.__module__.startswith("cloud_runtimes") and not elsewhere:
                seen = {**{n: v for n, v in vars(base).items() if n not in seen}, **seen}
        for name, value in seen.items():
            if name.startswith("_") or (name.endswith("_async") and name.removesuffix("_async") in seen):
                continue
            if isinstance(value, (property, functools.cached_property)):
                yield self.entry(python.PyProperty, "property", name, value.__doc__)
            elif inspect.isroutine(value):
                value = getattr(cls, name)
                twin = f"\n{name}_async(...)" if f"{name}_async" in seen else ""
                yield self.entry(_Twins, "method", name + _signature(value, bound=True) + twin, value.__doc__)

    def entry(self, kind: Any, objtype: str, signature: str, text: str | None) -> list[nodes.Node]:
        content = StringList(_markdown(text or "").splitlines(), self.module.__name__)
        return kind(f"py:{objtype}", [signature], {}, content, self.lineno, 0, "", self.state, self.state_machine).run()


def _signature(value: Any, bound: bool = False) -> str:
    found = inspect.signature(value)
    if bound and next(iter(found.parameters), None) == "self":
        found = found.replace(parameters=list(found.parameters.values())[1:])
    return re.sub(r"= <[^>]*>", "= ...", stringify_signature(found))


def _markdown(text: str) -> str:
    """Turn a docstring's sections into lists; the rest is Markdown already."""
    out, listed = [], False
    for line in inspect.cleandoc(text).replace("::\n", "\n").splitlines():
        if section := _SECTION.match(line):
            listed = True
            out += ["", f"**{ {'Args': 'Arguments'}.get(section[1], section[1]) }**", ""]
        elif listed and (entry := re.match(r"    (\*{0,2}[\w., |\[\]]+): (.*)", line)):
            names = ", ".join(f"`{name.strip()}`" for name in entry[1].split(","))
            out.append(f"- {names}: {entry[2]}")
        else:
            listed = (listed and line.startswith(" ")) or (not line and listed)
            out.append(textwrap.dedent(line) if listed else line)
    return "\n".join(out)


def write_root(app: Sphinx, error: Exception | None) -> None:
    """Lead from the root of the site to its first page."""
    if error is None:
        refresh = (
            f'<!doctype html><meta http-equiv="refresh" content="0; url={root_doc}.html"><title>{project}</title>\n'
        )
        Path(app.outdir, "index.html").write_text(refresh, encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Connect what is above."""
    app.connect("source-read", list_pages)
    app.connect("missing-reference", link_annotation)
    app.connect("build-finished", write_root)
    app.add_post_transform(LinkNames)
    app.add_directive("reference", Reference)
