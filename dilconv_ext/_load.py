"""Loads the compiled parts, after checking that they were built for the torch that is imported."""

from __future__ import annotations

from pathlib import Path

import torch

from . import _C

_REBUILD = "pip install --no-build-isolation --force-reinstall --no-deps"


def _release(version: str) -> str:
    """Strip a version's local part: "2.13.0+cpu" becomes "2.13.0"."""
    return version.split("+")[0]


def _mismatch(built: str) -> ImportError:
    return ImportError(
        f"dilconv_ext was built for torch {built}, but torch {torch.__version__} is imported: "
        f"to rebuild it, run `{_REBUILD} .` in its checkout"
    )


def _load() -> str:
    built = _C.build_info()["torch"]
    if _release(built) != _release(torch.__version__):
        raise _mismatch(built)
    libraries = sorted(Path(__file__).parent.glob("_ops*.so"))
    if not libraries:
        raise ImportError(f"dilconv_ext's ops library is missing: run `{_REBUILD} .` in a checkout")
    try:
        torch.ops.load_library(str(libraries[0]))
    except OSError as error:  # the same release built otherwise, such as with another C++ ABI
        raise _mismatch(built) from error
    _C.open(str(libraries[0]))
    return str(libraries[0])


LIBRARY = _load()
