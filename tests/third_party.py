"""Other people's models, with random weights: what test_models.py converts.

The packages are those of the extra ``models``. A test whose package is missing is skipped; in CI it
fails.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

Shape = tuple[int, ...]


def package(name: str) -> Any:
    """Import a package; without it skip the test, or in CI, where it should be, fail it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        message = f"{error}: pip install 'dilconv_ext[models]'"
        return pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)


def torchvision() -> Any:
    """Import torchvision, which the two packages below import too.

    Its wheel on PyPI is built for CUDA, and beside torch's CPU wheel its own ops do not load. No
    model here uses them, but torchvision's import fails unless two of them are defined.
    """
    try:
        return package("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for module in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[module]
    for op in ("nms", "qnms"):
        signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        torch.library.define(f"torchvision::{op}", signature)
    return package("torchvision")


def timm(name: str, **options: Any) -> nn.Module:
    torchvision()
    return package("timm").create_model(name, output_stride=8, num_classes=5, **options)


def smp(name: str) -> nn.Module:
    torchvision()
    model = getattr(package("segmentation_models_pytorch"), name)
    return model(encoder_name="resnet18", encoder_weights=None)


def segmentation(name: str) -> nn.Module:
    """One of torchvision's segmentation models."""
    torchvision()
    build = getattr(importlib.import_module("torchvision.models.segmentation"), name)
    return build(weights=None, weights_backbone=None, num_classes=3)


def transformer(name: str, **config: Any) -> nn.Module:
    """A model of the package transformers, small."""
    transformers = package("transformers")
    kind = name.removesuffix("Model").removesuffix("ForSemanticSegmentation")
    return getattr(transformers, name)(getattr(transformers, f"{kind}Config")(**config))


def tcn() -> nn.Module:
    return package("pytorch_tcn").TCN(
        4, [8, 8, 8], kernel_size=3, dilations=[1, 2, 4], use_norm="weight_norm", dropout=0.0
    )


def tcn_layers() -> dict[str, Any]:
    return {"subclasses": (package("pytorch_tcn").TemporalConv1d,)}


def monai(name: str, *arguments: Any, **options: Any) -> nn.Module:
    package("monai")
    return getattr(importlib.import_module("monai.networks.nets"), name)(*arguments, **options)


@dataclass(frozen=True)
class Row:
    """One model: its constructor, the shape of its input, and what convert makes of it.

    ``converted`` is how many layers are converted; ``left`` are the classes of those that are not;
    ``options`` are convert's.
    """

    build: Callable[..., nn.Module]
    arguments: tuple[Any, ...]
    converted: int
    left: frozenset[str] = frozenset()
    shape: Shape = (1, 3, 64, 64)
    options: Callable[[], dict[str, Any]] = dict
    config: tuple[tuple[str, Any], ...] = ()
    fast: bool = False

    def __call__(self) -> nn.Module:
        torch.manual_seed(0)
        return self.build(*self.arguments, **dict(self.config)).double().eval()


def _config(**config: Any) -> tuple[tuple[str, Any], ...]:
    return tuple(config.items())


SAME = frozenset({"Conv2dSame"})
ROWS = {
    "timm resnet18": Row(timm, ("resnet18",), 20, fast=True),
    "timm regnet": Row(timm, ("regnety_002",), 70),
    "timm efficientnet": Row(timm, ("efficientnet_b0",), 81),
    "timm tf_efficientnet": Row(timm, ("tf_efficientnet_b0",), 78, SAME),
    "timm resnetv2": Row(timm, ("resnetv2_50",), 54),
    "timm nf_resnet": Row(timm, ("nf_resnet26",), 0, frozenset({"ScaledStdConv2d"})),
    "timm convnext": Row(timm, ("convnext_atto",), 39, SAME),
    "smp DeepLabV3": Row(smp, ("DeepLabV3",), 28),
    "smp DeepLabV3Plus": Row(smp, ("DeepLabV3Plus",), 35, fast=True),
    "smp PSPNet": Row(smp, ("PSPNet",), 26),
    "smp Unet": Row(smp, ("Unet",), 31),
    "smp Linknet": Row(smp, ("Linknet",), 36),
    "smp UPerNet": Row(smp, ("UPerNet",), 33),
    "torchvision DeepLabV3": Row(segmentation, ("deeplabv3_resnet50",), 61),
    "torchvision DeepLabV3 mobile": Row(
        segmentation, ("deeplabv3_mobilenet_v3_large",), 70, fast=True
    ),
    "torchvision FCN": Row(segmentation, ("fcn_resnet50",), 55),
    "torchvision LRASPP": Row(segmentation, ("lraspp_mobilenet_v3_large",), 66),
    "pytorch-tcn": Row(
        tcn, (), 1, frozenset({"ParametrizedTemporalConv1d"}), (2, 4, 30), fast=True
    ),
    "pytorch-tcn, subclasses named": Row(
        tcn, (), 7, shape=(2, 4, 30), options=tcn_layers, fast=True
    ),
    "transformers SegFormer": Row(
        transformer,
        ("SegformerForSemanticSegmentation",),
        13,
        config=_config(
            num_labels=3,
            hidden_sizes=[8, 16, 24, 32],
            depths=[1] * 4,
            decoder_hidden_size=16,
            num_attention_heads=[1, 1, 2, 2],
        ),
    ),
    "transformers HiFi-GAN": Row(
        transformer,
        ("SpeechT5HifiGan",),
        40,
        shape=(1, 12, 8),
        config=_config(
            model_in_dim=8,
            upsample_initial_channel=32,
            upsample_rates=[4, 4],
            upsample_kernel_sizes=[8, 8],
        ),
        fast=True,
    ),
    "transformers DAC": Row(
        transformer,
        ("DacModel",),
        64,
        shape=(1, 1, 2048),
        config=_config(
            encoder_hidden_size=8,
            decoder_hidden_size=64,
            n_codebooks=2,
            hidden_size=64,
            codebook_dim=4,
        ),
    ),
    "transformers wav2vec 2.0": Row(
        transformer,
        ("Wav2Vec2Model",),
        8,
        shape=(1, 4000),
        config=_config(
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            conv_dim=(16,) * 7,
        ),
    ),
    "monai BasicUNet": Row(
        monai, ("BasicUNet",), 23, config=_config(spatial_dims=2, in_channels=3, out_channels=2)
    ),
    "monai DynUNet": Row(
        monai,
        ("DynUNet", 2, 3, 2, [3, 3, 3], [1, 2, 2], [2, 2]),
        13,
        config=_config(filters=[8, 16, 16]),
    ),
    "monai SegResNet": Row(
        monai,
        ("SegResNet",),
        32,
        config=_config(spatial_dims=2, in_channels=3, out_channels=2, init_filters=8),
    ),
}
