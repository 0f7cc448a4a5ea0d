"""Dilated convolutions for PyTorch: own C++ kernels behind drop-in functions and layers.

``functional`` holds the functions, equal to their namesakes in ``torch.nn.functional``; the layers
here are subclasses of torch.nn's, and ``convert`` moves a whole model to them.
"""

from importlib.metadata import PackageNotFoundError, version

from . import (  # noqa: F401
    _load,
    _onnx,
    autograd,
    functional,
    ops,
    padding,
)
from ._convert import Conversion, convert, revert
from ._explain import Choice, Explanation, explain
from ._gridding import Gridding, gridding
from ._options import options
from ._receptive_field import Layer, ReceptiveField, receptive_field
from ._traced_field import EffectiveField, effective_field
from .modules import (
    Conv1x1,
    DilatedConv1d,
    DilatedConv2d,
    DilatedConvTranspose1d,
    DilatedConvTranspose2d,
)

try:
    __version__ = version("dilconv_ext")
except PackageNotFoundError:  # built in place in a checkout, but not installed
    __version__ = "0+checkout"

__all__ = [
    "Choice",
    "Conv1x1",
    "Conversion",
    "DilatedConv1d",
    "DilatedConv2d",
    "DilatedConvTranspose1d",
    "DilatedConvTranspose2d",
    "EffectiveField",
    "Explanation",
    "Gridding",
    "Layer",
    "ReceptiveField",
    "__version__",
    "autograd",
    "convert",
    "effective_field",
    "explain",
    "functional",
    "gridding",
    "options",
    "receptive_field",
    "revert",
]
