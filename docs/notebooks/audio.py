# %% [markdown]
# # Dilated 1-D convolutions for audio
#
# A second of sound has tens of thousands of samples. Dilations that double let a small stack of
# layers look back over thousands of them: WaveNet and the temporal convolutional networks are
# built so.

# %%
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dilconv_ext as dc

# %% [markdown]
# ## A causal layer
#
# torch.nn pads both ends alike, so a causal layer needs `F.pad` before it. Here `padding` may be
# (left, right): all of it on the left, and no sample sees the future.

# %%
torch.manual_seed(0)
causal = dc.DilatedConv1d(1, 1, 3, dilation=4, padding=(8, 0))
reference = nn.Conv1d(1, 1, 3, dilation=4)
reference.load_state_dict(causal.state_dict())
sound = torch.randn(1, 1, 100)
torch.testing.assert_close(causal(sound), reference(F.pad(sound, (8, 0))))

changed = sound.clone()
changed[..., 60:] = 0
same = (causal(sound) == causal(changed))[0, 0]
print(f"outputs before the change that stayed: {int(same[:60].sum())} of 60")
assert same[:60].all()

# %% [markdown]
# ## How far back
#
# Eight layers of kernel 2, as in WaveNet: 9 samples without dilation, 256 with. At 16 kHz that is
# half a millisecond, and 16.

# %%
for rates in ([1] * 8, [2**i for i in range(8)]):
    field = dc.receptive_field([dc.Layer((1, 2), dilation=(1, rate)) for rate in rates])
    print(f"dilations {rates}: {field.size[1]} samples, {field.size[1] / 16:.1f} ms")


# %% [markdown]
# ## What it is good for
#
# Sound with an echo 100 samples late: each sample is 0.9 times the one 100 before, and noise of
# variance 1. Whoever sees the echo can predict the next sample with an error of 1; whoever does not
# has to live with the variance of the sound, 1 / (1 - 0.81) = 5.3.


# %%
def echoing(samples: int) -> Tensor:
    sound = torch.randn(8, 1, samples + 2000)
    for start in range(100, sound.shape[-1], 100):
        sound[..., start : start + 100] += 0.9 * sound[..., start - 100 : start]
    return sound[..., -samples:]


class Predictor(nn.Module):
    """A stack of causal layers, each added to its input."""

    def __init__(self, rates: list[int], channels: int = 16) -> None:
        super().__init__()
        self.lift = dc.DilatedConv1d(1, channels, 1)
        self.layers = nn.ModuleList(
            dc.DilatedConv1d(channels, channels, 2, dilation=rate, padding=(rate, 0))
            for rate in rates
        )
        self.head = dc.DilatedConv1d(channels, 1, 1)

    def forward(self, sound: Tensor) -> Tensor:
        x = self.lift(sound)
        for layer in self.layers:
            x = x + layer(x).tanh()
        return self.head(x)


def train(rates: list[int]) -> list[float]:
    torch.manual_seed(1)
    net = Predictor(rates)
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    errors = []
    for _ in range(100):
        sound = echoing(600)
        predicted = net(sound[..., :-1])
        error = (predicted - sound[..., 1:])[..., 256:].square().mean()
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
        errors.append(error.item())
    return errors


figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
last = {}
for title, rates in (("undilated", [1] * 8), ("dilated", [2**i for i in range(8)])):
    errors = train(rates)
    last[title] = sum(errors[-10:]) / 10
    axis.plot(errors, label=title)
axis.axhline(1, color="grey", linestyle=":", label="what noise allows")
axis.set(xlabel="step", ylabel="mean squared error", ylim=(0, None))
axis.legend()
print({title: round(error, 2) for title, error in last.items()})
assert last["dilated"] < 2.5 < 4 < last["undilated"]

# %% [markdown]
# ## From frames to samples
#
# Vocoders go the other way, from a frame every few milliseconds to samples, by transposed layers.
# "same_upper" makes the output exactly stride times as long, for every kernel:

# %%
vocoder = nn.Sequential(
    dc.DilatedConv1d(80, 32, 7, padding="same"),
    nn.LeakyReLU(0.1),
    dc.DilatedConvTranspose1d(32, 16, 16, stride=8, padding="same_upper"),
    nn.LeakyReLU(0.1),
    dc.DilatedConvTranspose1d(16, 8, 15, stride=8, padding="same_upper"),
    nn.LeakyReLU(0.1),
    dc.DilatedConv1d(8, 1, 7, padding="same"),
)
frames = torch.randn(1, 80, 50)
print(tuple(vocoder(frames).shape))
assert vocoder(frames).shape == (1, 1, 50 * 64)

# %% [markdown]
# Models that somebody else wrote need none of this: `dc.convert(model)` takes their `nn.Conv1d`
# and `nn.ConvTranspose1d` as they are. Recordings that are too long for one device can be spread
# over several: see [several processes](../distributed.md).
