"""The reference of the site: the directive ``reference`` writes out a module from its docstrings, and names in backticks lead to it."""

from __future__ import annotations

import builtins
import dataclasses
import functools
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.addnodes import desc, desc_sig_keyword, desc_sig_space, pending_xref
from sphinx.application import Sphinx
from sphinx.domains import python
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective
from sphinx.util.inspect import stringify_signature
from sphinx.util.nodes import make_refnode

from cloud_runtimes import errors
from cloud_runtimes.client import SERVICES

_SHOWN = {*errors.__all__, *(name for name in vars(builtins) if name.endswith("Error"))}
"""Bases of a class that tell something."""
_SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields):$")


class Reference(SphinxDirective):
    """``reference``, the name of a module, and names in it if not all of its ``__all__``."""

    required_arguments = 1
    optional_arguments = 99

    def run(self) -> list[nodes.Node]:
        self.module = importlib.import_module(self.arguments[0])
        self.env.ref_context["py:module"] = self.module.__name__
        return [node for name in self.names() for node in self.thing(name, getattr(self.module, name))]

    def names(self) -> list[str]:
        """Return the names in the order of a reader: a module's as they are defined, of a package the service first."""
        if self.arguments[1:]:
            return self.arguments[1:]
        if hasattr(self.module, "__path__"):
            return sorted(self.module.__all__, key=lambda name: not name.endswith("Service"))
        return [name for name in vars(self.module) if name in self.module.__all__]

    def thing(self, name: str, value: Any) -> list[nodes.Node]:
        """Return what a name of a module is."""
        if inspect.isclass(value):
            return self.a_class(name, value)
        if inspect.isroutine(value):
            return self.entry(python.PyFunction, "function", name + _signature(value), value.__doc__)
        if inspect.ismodule(value):
            return [node for one in value.__all__ for node in self.thing(f"{name}.{one}", getattr(value, one))]
        return self.entry(python.PyVariable, "data", name, f"`{value}`")

    def a_class(self, name: str, cls: type) -> list[nodes.Node]:
        """Return a class with its members."""
        with_signature = dataclasses.is_dataclass(cls) or "    Args:" in (cls.__doc__ or "")
        signature = _signature(cls).removesuffix(" -> None") if with_signature else ""
        bases = ", ".join(f"`{base.__name__}`" for base in cls.__bases__ if base.__name__ in _SHOWN)
        text = inspect.cleandoc(cls.__doc__ or "") + (f"\n\nBases: {bases}" if bases else "")
        out = self.entry(python.PyClasslike, "class", name + signature, text)
        # as a class that has its members in its own content would leave it
        context = self.env.ref_context
        context["py:class"], context["py:classes"] = name, [name]
        out[-1][-1].extend(node for one in self.members(cls) for node in one)
        context["py:class"], context["py:classes"] = None, []
        return out

    def members(self, cls: type) -> Iterator[list[nodes.Node]]:
        """Yield the methods and properties, its own first, then those of bases that the module does not list."""
        seen: dict[str, Any] = {}
        for base in cls.__mro__:
            if base.__module__.startswith("cloud_runtimes") and (
                base is cls or base.__name__ not in self.module.__all__
            ):
                seen |= {name: value for name, value in vars(base).items() if name not in seen}
        for name, value in seen.items():
            if name.startswith("_") or (name.endswith("_async") and name.removesuffix("_async") in seen):
                continue
            if isinstance(value, (property, functools.cached_property)):
                yield self.entry(python.PyProperty, "property", name, value.__doc__)
            elif inspect.isroutine(value):
                value = getattr(cls, name)
                twin = f"\n{name}_async(...)" if f"{name}_async" in seen else ""
                yield self.entry(_Twins, "method", name + _signature(value) + twin, value.__doc__)

    def entry(self, kind: Any, objtype: str, signature: str, text: str | None) -> list[nodes.Node]:
        """Return an entry of Sphinx's Python domain, whose text is Markdown."""
        content = StringList(_markdown(text or "").splitlines(), self.module.__name__)
        out = kind(f"py:{objtype}", [signature], {}, content, self.lineno, 0, "", self.state, self.state_machine).run()
        for name in out[-1].findall(pending_xref):
            name.attributes.pop("refspecific", None)  # names of other modules are found by `link_annotation`
        return out


class _Twins(python.PyMethod):
    def get_signature_prefix(self, sig: str) -> list[nodes.Node]:
        return (
            [desc_sig_keyword("", "async"), desc_sig_space()] if "_async(" in sig else super().get_signature_prefix(sig)
        )


def _signature(value: Any) -> str:
    signature = inspect.signature(value)
    if next(iter(signature.parameters), None) == "self":
        signature = signature.replace(parameters=list(signature.parameters.values())[1:])
    return re.sub(r"= <[^>]*>", "= ...", stringify_signature(signature)).replace("kernel.", "")


def _markdown(text: str) -> str:
    """Turn a docstring's sections into lists; the rest is Markdown already."""
    out, listed = [], False
    text = re.sub(r"^>>> .*(?:\n.+)*", _fenced, inspect.cleandoc(text), flags=re.MULTILINE)
    for line in text.splitlines():
        if section := _SECTION.match(line):
            listed = True
            out += ["", f"**{section[1].replace('Args', 'Arguments')}**", ""]
        elif listed and (entry := re.match(r"    (\*{0,2}[\w., |\[\]]+): (.*)", line)):
            out.append(f"- {', '.join(f'`{name.strip()}`' for name in entry[1].split(','))}: {entry[2]}")
        else:
            listed = listed and (not line or line.startswith(" "))
            out.append(textwrap.dedent(line) if listed else line)
    return "\n".join(out)


def _fenced(example: re.Match[str]) -> str:
    """Return an example as a block of code."""
    return f"```pycon\n{re.sub('  # doctest: .*', '', example[0])}\n```"


def find(app: Sphinx, name: str, within: str = "") -> tuple[str, python.ObjectEntry] | None:
    """Find the object that a name in the documentation means; inside of a class, ``within``, its members first."""
    objects = app.env.domains.python_domain.objects
    if (service := re.match(r"client\.(\w+)\.(\w+)$", name)) and service[1] in SERVICES:
        name = f"{service[1].title().replace('Pubsub', 'PubSub')}Service.{service[2]}"
    if f"{within}.{name}" in objects:
        return f"{within}.{name}", objects[f"{within}.{name}"]
    if not name[:1].isupper() and "." not in name:
        return None
    matches = [full for full in objects if full == name or full.endswith(f".{name}")]
    # what authors of components see is often what users see
    matches = [full for full in matches if ".spi." not in full] or matches
    return (matches[0], objects[matches[0]]) if len(matches) == 1 else None


class LinkNames(SphinxPostTransform):
    """Links names in backticks to the reference."""

    default_priority = 400

    def run(self, **kwargs: Any) -> None:
        for node in list(self.document.findall(nodes.literal)):
            above, within = node.parent, ""
            while above is not None and not within:
                if isinstance(above, desc) and above["objtype"] == "class":
                    within = above[0]["ids"][0]
                above = above.parent
            match = find(self.app, re.sub(r"\(.*\)$", "", node.astext()), within)
            if match and not isinstance(node.parent, (nodes.reference, nodes.title)):
                page, (name, entry) = self.env.docname, match
                node.replace_self(
                    make_refnode(self.app.builder, page, entry.docname, entry.node_id, node.deepcopy(), name)
                )


def link_annotation(app: Sphinx, env: Any, node: pending_xref, content: nodes.Element) -> nodes.Element | None:
    """Link a name in a signature that another page explains; leave those of Python and of typing alone."""
    if node["refdomain"] != "py":
        return None
    match = find(app, node["reftarget"])
    return make_refnode(app.builder, node["refdoc"], match[1].docname, match[1].node_id, content) if match else content


def setup(app: Sphinx) -> None:
    """Connect what is above."""
    app.add_directive("reference", Reference)
    app.add_post_transform(LinkNames)
    app.connect("missing-reference", link_annotation)
