"""The notebooks of the documentation run to their end; what they say, they assert."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from third_party import package

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "docs" / "notebooks").glob("*.py"))
NEEDS = {"segmentation": "transformers"}


def test_there_are_notebooks() -> None:
    assert {"audio", "gridding", "segmentation"} <= {path.stem for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path: Path) -> None:
    """As a script, which it is too, in a process of its own; `make docs` runs it as a notebook.

    What other tests import, and how, does not help it.
    """
    pytest.importorskip("matplotlib")
    if path.stem in NEEDS and find_spec(NEEDS[path.stem]) is None:
        package(NEEDS[path.stem])
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", str(path)],
        env={**os.environ, "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
