"""The example networks, each written once and built from whichever layer classes it is given.

`Classifier(DILCONV)` and `Classifier(TORCH)` have the same parameters under the same names, so one
can load the other's `state_dict` and the two can be compared to the last bit of rounding.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

import dilconv_ext as dc


class SameUpperConvTranspose2d(nn.ConvTranspose2d):
    """torch.nn's transposed convolution, aligned as Keras' 'same': output = stride × input.

    The full result is (kernel − 1) · dilation + 1 − stride too long on each axis; 'same_upper'
    takes half of that off the front and the rest, including the odd one, off the end. `padding=1,
    output_padding=1` would be a pixel off.

    Args:
        in_channels, out_channels, kernel_size, stride, dilation, groups, bias: as in
            `torch.nn.ConvTranspose2d`.
        padding: only "same_upper"; there so that the signature matches
            `dilconv_ext.DilatedConvTranspose2d`.

    Raises:
        ValueError: for any other padding, or where the full result is shorter than stride × input.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: str = "same_upper",
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            dilation=dilation,
            groups=groups,
            bias=bias,
        )
        if padding != "same_upper":
            raise ValueError(f"padding must be 'same_upper', not {padding!r}")
        axes = zip(self.kernel_size, self.dilation, self.stride, strict=True)
        self.excess = [(kernel - 1) * step + 1 - stride for kernel, step, stride in axes]
        if min(self.excess) < 0:
            raise ValueError(
                f"stride {self.stride} leaves gaps that 'same_upper' would have to pad"
            )

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(N, in_channels, H, W) → (N, out_channels, H · stride, W · stride)."""
        full = super().forward(input, output_size)
        for axis, excess in enumerate(self.excess, start=-2):
            full = full.narrow(axis, excess // 2, full.shape[axis] - excess)
        return full


class Layers(NamedTuple):
    """The layer classes a network is built from."""

    conv: Callable[..., nn.Conv2d]
    conv_transpose: Callable[..., nn.ConvTranspose2d]


TORCH = Layers(nn.Conv2d, SameUpperConvTranspose2d)
DILCONV = Layers(dc.DilatedConv2d, dc.DilatedConvTranspose2d)


class Classifier(nn.Module):
    """Three dilated 3×3 convolutions (32, 64, 128 channels) with ReLU, then dense layers.

    Nothing is padded, so a 28×28 image becomes 26×26, 22×22 and 14×14 with dilations 1, 2, 4; by
    then each position sees 15×15 pixels of the input.

    Args:
        layers: the layer classes.
        dilations: of the three convolutions.
        dense: width of an extra dense layer before the last one; 0 for none.
        size: height and width of the images.
    """

    def __init__(
        self,
        layers: Layers = DILCONV,
        dilations: Sequence[int] = (1, 2, 4),
        dense: int = 0,
        size: int = 28,
    ) -> None:
        super().__init__()
        self.features = nn.Sequential()
        channels = 1
        for width, dilation in zip((32, 64, 128), dilations, strict=True):
            self.features.append(layers.conv(channels, width, 3, dilation=dilation))
            self.features.append(nn.ReLU())
            channels = width
            size -= 2 * dilation
        self.head = nn.Sequential(nn.Flatten())
        flat = channels * size * size
        if dense:
            self.head.extend([nn.Linear(flat, dense), nn.ReLU()])
        self.head.append(nn.Linear(dense or flat, 10))

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1, size, size) images → (N, 10) logits."""
        return self.head(self.features(images))


class SpeechClassifier(nn.Module):
    """Three dilated 3×3 'same' convolutions (64 channels) over time × frequency, then dense layers.

    With `frames=None` the maximum over time stands between them, and any length goes in. Frames
    past a sequence's length are set to zero after every layer, so what is in the padding, and how
    much, changes nothing.

    Args:
        layers: the layer classes.
        dilations: of the three convolutions, in time and frequency.
        kernel_frames: the kernels' extent in time; 1 leaves a bag of frames, which knows no order.
        frames: the fixed number of frames that the flattened variant needs, or None for any number.
        bins: filter-bank channels per frame.
        classes: number of words.
    """

    def __init__(
        self,
        layers: Layers = DILCONV,
        dilations: Sequence[int] = (1, 2, 3),
        kernel_frames: int = 3,
        frames: int | None = None,
        bins: int = 40,
        classes: int = 10,
    ) -> None:
        super().__init__()
        self.frames = frames
        self.convs = nn.ModuleList()
        channels = 1
        for dilation in dilations:
            self.convs.append(
                layers.conv(channels, 64, (kernel_frames, 3), padding="same", dilation=dilation)
            )
            channels = 64
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * (frames or 1) * bins, 256),
            nn.ReLU(),
            nn.Linear(256, classes),
        )
        # PyTorch's own initial weights shrink what they pass on threefold per layer; by the logits
        # all words look alike, and training stays at chance for long. He's keep it at one size.
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """(N, T, bins) filter-bank features of (N,) valid frames each → (N, classes) logits."""
        valid = torch.arange(features.shape[1], device=features.device) < lengths[:, None]
        mask = valid[:, None, :, None].to(features.dtype)
        hidden = features[:, None] * mask
        for conv in self.convs:
            hidden = conv(hidden).relu() * mask
        if self.frames is None:
            hidden = hidden.amax(dim=2)  # a masked frame is 0, which never exceeds a ReLU's output
        return self.head(hidden)


class Generator(nn.Module):
    """Image and noise in, an image of twice the size out.

    A dense layer turns the noise into a second plane beside the image; three dilated 5×5 'same'
    convolutions (64 channels) with ReLU mix them over 29×29 positions; a transposed 3×3 convolution
    of stride 2 with Keras' 'same' alignment and a sigmoid draw the result.

    Args:
        layers: the layer classes.
        dilations: of the three convolutions.
        noise: length of the noise vector.
        size: height and width of the input image.
    """

    def __init__(
        self,
        layers: Layers = DILCONV,
        dilations: Sequence[int] = (1, 2, 4),
        noise: int = 100,
        size: int = 14,
    ) -> None:
        super().__init__()
        self.noise_plane = nn.Sequential(
            nn.Linear(noise, size * size), nn.Unflatten(1, (1, size, size))
        )
        self.convs = nn.Sequential()
        channels = 2
        for dilation in dilations:
            self.convs.append(layers.conv(channels, 64, 5, padding="same", dilation=dilation))
            self.convs.append(nn.ReLU())
            channels = 64
        self.upsample = layers.conv_transpose(channels, 1, 3, stride=2, padding="same_upper")

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        """(N, 1, size, size) images, (N, noise) noise → (N, 1, 2 · size, 2 · size) in (0, 1)."""
        planes = torch.cat([images, self.noise_plane(noise)], dim=1)
        return self.upsample(self.convs(planes)).sigmoid()
