"""The notebooks of the documentation run to their end; what they say, they assert."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from third_party import package

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "docs" / "notebooks").glob("*.py"))
NEEDS = {"segmentation": "transformers"}


def test_there_are_notebooks() -> None:
    assert {"audio", "gridding", "segmentation"} <= {path.stem for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path: Path) -> None:
    """As a script, which it is too; `make docs` runs it as a notebook."""
    plots = pytest.importorskip("matplotlib.pyplot")
    plots.switch_backend("agg")
    if path.stem in NEEDS:
        package(NEEDS[path.stem])
    runpy.run_path(str(path))
    plots.close("all")
