# %% [markdown]
# # Convert a segmentation model
#
# `dilconv_ext` computes the convolutions of a model that somebody else wrote. Here that is
# DeepLabv3 on MobileViT from the package `transformers`, small and with random weights, so that
# nothing is downloaded.

# %%
import copy
import sys

import torch
from torch import nn

try:
    import torchvision  # noqa: F401
except (ImportError, RuntimeError):
    # Built for another torch, and transformers would fail with it, which can do without.
    sys.modules["torchvision"] = None  # type: ignore[assignment]
from transformers import MobileViTConfig, MobileViTForSemanticSegmentation

import dilconv_ext as dc

torch.manual_seed(0)
config = MobileViTConfig(
    hidden_sizes=[32, 48, 64],
    neck_hidden_sizes=[8, 16, 16, 24, 24, 32, 64],
    num_attention_heads=2,
    aspp_out_channels=32,
    output_stride=8,
    num_labels=2,
    classifier_dropout_prob=0.0,
    aspp_dropout_prob=0.0,
)
theirs = MobileViTForSemanticSegmentation(config)

# %% [markdown]
# Its dilated layers are the branches of the atrous spatial pyramid, and one of the backbone, whose
# last stages dilate instead of striding:

# %%
for name, module in theirs.named_modules():
    if isinstance(module, nn.Conv2d) and max(module.dilation) > 1:
        print(f"{name}: {module}")

# %% [markdown]
# ## Convert
#
# `convert` changes the class of each layer in place. The copy is for comparison only. What was
# left with torch, and why, would be in the report.

# %%
ours = dc.convert(copy.deepcopy(theirs))
converted = [m for m in ours.modules() if isinstance(m, dc.DilatedConv2d)]
left = [m for m in ours.modules() if type(m) is nn.Conv2d]
print(f"{len(converted)} layers converted, {len(left)} left")

# %% [markdown]
# The same parameters under the same names, the same output and the same gradients, but for
# rounding. In double precision rounding is about 1e-16:

# %%
images = torch.rand(2, 3, 128, 128)
results = []
for model in (theirs, ours):
    model = copy.deepcopy(model).double().eval()
    logits = model(images.double()).logits
    gradients = torch.autograd.grad(logits.square().mean(), tuple(model.parameters()))
    results.append((logits.detach(), torch.cat([gradient.flatten() for gradient in gradients])))
for what, expected, actual in zip(("outputs", "gradients"), *results, strict=True):
    difference = ((actual - expected).norm() / expected.norm()).item()
    print(f"{expected.numel()} {what} differ by {difference:.0e}")
    assert difference < 1e-12
assert list(ours.state_dict()) == list(theirs.state_dict())

# %% [markdown]
# ## Which kernel runs where
#
# `explain` names the kernel of a layer, once it knows the layer's input. A hook sees it:


# %%
def report(layer: nn.Conv2d, inputs: tuple[torch.Tensor, ...]) -> None:
    plan = dc.explain(
        inputs[0], layer.weight, None, layer.stride, layer.padding, layer.dilation, layer.groups
    )
    print(f"{tuple(inputs[0].shape)!s:20} {layer.extra_repr()}: {plan.forward.kernel}")


hooks = [m.register_forward_pre_hook(report) for m in converted if max(m.dilation) > 1]
with torch.no_grad():
    ours(images)
for hook in hooks:
    hook.remove()

# %% [markdown]
# ## Train
#
# A discs-on-noise data set, and the ordinary training loop. Both models see the same images, and
# their losses go the same way.


# %%
def batch(size: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise with a brighter disc, and the mask of the disc."""
    axis = torch.arange(128.0)
    centre, radius = torch.randint(30, 98, (2, size, 1, 1), generator=generator), 24
    mask = (axis[:, None] - centre[0]) ** 2 + (axis - centre[1]) ** 2 < radius**2
    noise = torch.rand(size, 3, 128, 128, generator=generator)
    return noise * 0.6 + 0.4 * mask[:, None], mask.long()


losses: dict[str, list[float]] = {"torch.nn": [], "dilconv_ext": []}
for label, model in (("torch.nn", theirs), ("dilconv_ext", ours)):
    optimiser = torch.optim.AdamW(model.train().parameters(), 1e-2)
    generator = torch.Generator().manual_seed(1)
    for _ in range(8):
        x, mask = batch(4, generator)
        loss = model(x, labels=mask).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses[label].append(loss.item())
for label, values in losses.items():
    print(f"{label:12}", " ".join(f"{value:.3f}" for value in values))
assert losses["dilconv_ext"][-1] < losses["dilconv_ext"][0]

# %% [markdown]
# ## Only some layers, and back
#
# `where=` chooses layers, for example the dilated ones; `revert` undoes it all. The report of what
# was left goes to the logger `dilconv_ext`.

# %%
dc.revert(ours)
dc.convert(ours, where=lambda name, module: max(module.dilation) > 1)
print(sum(isinstance(m, dc.DilatedConv2d) for m in ours.modules()), "dilated layers converted")
