# %% [markdown]
# # Receptive fields and gridding
#
# Dilation widens what an output pixel sees without more weights. Chosen badly, it also leaves
# holes. This page measures both, and then shows what a hole costs.

# %%
import matplotlib.pyplot as plt
import torch
from torch import nn

import dilconv_ext as dc

# %% [markdown]
# ## How the field grows
#
# Four 3×3 layers. Undilated ones add two pixels each; dilations that double reach 31 pixels with
# the same number of weights.

# %%
for rates in ((1, 1, 1, 1), (1, 2, 4, 8)):
    print(f"dilations {rates}:")
    print(dc.receptive_field([dc.Layer(3, dilation=rate) for rate in rates]), "\n")

# %% [markdown]
# ## Which pixels are read
#
# A size is not the whole story. A stack with the dilations 2, 2, 2, 2 has a field of 17 pixels, of
# which it reads every other one. `gridding` finds such holes, and suggests rates without any:

# %%
stacks = {
    "1, 1, 1, 1": (1, 1, 1, 1),
    "2, 2, 2, 2": (2, 2, 2, 2),
    "1, 2, 4, 8": (1, 2, 4, 8),
    "1, 2, 5, 9": (1, 2, 5, 9),
}
for title, rates in stacks.items():
    print(f"{title}: {dc.gridding([dc.Layer(3, dilation=rate) for rate in rates])}\n")

# %% [markdown]
# As pictures: in how many ways each pixel reaches the output. With all weights 1 that is the
# gradient of the middle output.


# %%
def stack(rates: tuple[int, ...], channels: int = 1) -> nn.Sequential:
    """Layers of one input and one output channel, of the size of their input."""
    sizes = [1, *[channels] * (len(rates) - 1), 1]
    return nn.Sequential(
        *(
            dc.DilatedConv2d(a, b, 3, padding="same", dilation=rate, bias=False)
            for a, b, rate in zip(sizes, sizes[1:], rates, strict=False)
        )
    )


figure, axes = plt.subplots(1, 4, figsize=(11, 3), layout="constrained")
for axis, (title, rates) in zip(axes, stacks.items(), strict=True):
    net = stack(rates)
    for weight in net.parameters():
        nn.init.ones_(weight)
    image = torch.zeros(1, 1, 37, 37, requires_grad=True)
    net(image)[0, 0, 18, 18].backward()
    ways = image.grad[0, 0]
    axis.imshow(ways.log1p().numpy(), cmap="viridis")
    axis.set(title=f"{title}: {int((ways > 0).sum())} pixels", xticks=[], yticks=[])

# %% [markdown]
# ## What a hole costs
#
# A task that is as easy as can be, if one sees the right pixel: copy the pixel three columns to the
# left. It lies within the field of the stack 2, 2, 2, but no path leads there. The stack 1, 2, 3,
# which `gridding` suggested for it, learns the task.


# %%
def train(rates: tuple[int, ...]) -> list[float]:
    """Mean squared errors of a linear network while it learns to copy."""
    torch.manual_seed(0)
    net = stack(rates, channels=4)
    optimiser = torch.optim.Adam(net.parameters(), 2e-2)
    errors = []
    for _ in range(150):
        image = torch.randn(8, 1, 24, 24)
        target = image.roll(3, dims=-1)
        error = (net(image) - target)[..., 6:-6, 6:-6].square().mean()
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
        errors.append(error.item())
    return errors


figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
last = {}
for rates in ((2, 2, 2), (1, 2, 3)):
    errors = train(rates)
    last[rates] = errors[-1]
    axis.plot(errors, label=f"dilations {rates}")
axis.set(xlabel="step", ylabel="mean squared error", ylim=(0, None))
axis.legend()
print({rates: round(error, 3) for rates, error in last.items()})
assert last[1, 2, 3] < 0.1 < 0.9 < last[2, 2, 2]

# %% [markdown]
# ## Of a whole model
#
# With an input size, `receptive_field` runs any module and follows its branches;
# `effective_field` measures how far the gradient really reaches.

# %%
net = stack((1, 2, 4, 8), channels=8)
print(dc.receptive_field(net, input_size=(1, 48, 48)))
print(dc.effective_field(net, input_size=(1, 48, 48)))
