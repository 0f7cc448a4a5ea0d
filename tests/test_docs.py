"""The examples in the documentation and in the docstrings print what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import dilconv_ext

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```pycon\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MODULES = sorted(
    name
    for _, name, _ in pkgutil.iter_modules(dilconv_ext.__path__, "dilconv_ext.")
    if not name.endswith(("__main__", "._C", "._fast", "._ops"))
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page(page: Path) -> None:
    """All blocks of a page are one session."""
    session = "\n".join(BLOCK.findall(page.read_text(encoding="utf-8")))
    examples = doctest.DocTestParser().get_doctest(session, {}, page.name, str(page), 0)
    results = doctest.DocTestRunner().run(examples)
    assert results.failed == 0


def test_the_tutorial_has_examples() -> None:
    """Were the blocks marked otherwise, nothing above would run."""
    tutorial = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    assert len(BLOCK.findall(tutorial)) >= 6
    assert tutorial.count(">>>") == "".join(BLOCK.findall(tutorial)).count(">>>")


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_every_public_name_is_in_the_reference() -> None:
    reference = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    modules = {"functional", "autograd", "ops", "padding", "distributed"}
    for name in dilconv_ext.__all__:
        if name != "__version__":
            assert f"::: dilconv_ext.{name}\n" in reference, name
    for name in modules:
        assert f"::: dilconv_ext.{name}\n" in reference, name
