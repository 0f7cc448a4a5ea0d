"""Ten "words", each another order of the same four syllables: only context in time tells them.

A word is four syllables, each a few frames of gliding formants over 40 filter-bank channels, with
pauses between them that every speaker makes of another length. All words are made of the same
frames; which word it is, only their order says. Each pause is at least six frames, so a network
that sees 7 frames (three undilated 3×3 layers) never sees two syllables at once, and one that sees
13 (dilations 1, 2, 3, the same number of weights) always can.

Trained and compared: the dilated network, the same undilated, and the same on single frames (a bag
of frames). The dilated one is also tested on recordings whose frames are shuffled in time. Only the
dilated network on ordered frames does better than chance. With `--fixed-length` the dense layer
joins distant frames by itself, so there dilation is not needed; the bag of frames stays as it is.
"""

import argparse
from functools import partial

import matplotlib.pyplot as plt
import torch
from sklearn.metrics import ConfusionMatrixDisplay
from torch import Tensor, nn
from torch.nn import functional as F

import dilconv_ext as dc
from common import History, Split, accuracy, parser, predict, prepare, report, train
from comparison import comparison_rows
from nets import DILCONV, SpeechClassifier
from pictures import learning_curve, save

BINS = 40
SYLLABLES = ("ba", "di", "gu", "ko")
# Two formants per syllable, each as filter-bank channels at its onset and at its end.
FORMANTS = (((8, 13), (18, 22)), ((9, 5), (30, 33)), ((14, 7), (24, 15)), ((5, 9), (14, 17)))
WORDS = tuple(
    tuple(int(digit) for digit in order)
    for order in ("0123", "0231", "0312", "1032", "1203", "1320", "2013", "2130", "3021", "3210")
)
SYLLABLE_FRAMES = (3, 4)  # shortest and longest
PAUSE_FRAMES = (6, 7)
EDGE_FRAMES = (6, 10)  # of silence before and after the word
MOST_FRAMES = 4 * SYLLABLE_FRAMES[1] + 3 * PAUSE_FRAMES[1] + 2 * EDGE_FRAMES[1]


# --- data ---


def between(limits: tuple[int, int]) -> int:
    """A random integer, both limits included."""
    return int(torch.randint(limits[0], limits[1] + 1, ()))


def syllable(number: int, voice: float) -> Tensor:
    """(frames, bins) energies of one syllable; `voice` shifts all formants, as speakers do."""
    frames = between(SYLLABLE_FRAMES)
    time = torch.linspace(0, 1, frames)[:, None]
    envelope = 0.6 + 0.4 * torch.sin(torch.pi * time)
    channels = torch.arange(BINS)
    energy = torch.zeros(frames, BINS)
    for onset, end in FORMANTS[number]:
        centre = onset + (end - onset) * time + voice + 0.3 * torch.randn(())
        energy += (0.7 + 0.6 * torch.rand(())) * torch.exp(-0.5 * ((channels - centre) / 1.4) ** 2)
    return envelope * energy


def recording(word: int) -> Tensor:
    """(T, bins) log energies of one word, spoken by a random voice in a noisy room.

    Normalised to mean 0 and deviation 1 over the whole recording, which tells nothing of order.
    """
    voice = float(torch.randn(()))
    # Everything is drawn in one order for all words, then put in the word's order.
    syllables = [syllable(number, voice) for number in range(len(SYLLABLES))]
    pauses = [torch.zeros(between(PAUSE_FRAMES), BINS) for _ in range(len(SYLLABLES) - 1)]
    start, end = (torch.zeros(between(EDGE_FRAMES), BINS) for _ in range(2))
    parts = [start]
    for number, pause in zip(WORDS[word], [*pauses, end], strict=True):
        parts += [syllables[number], pause]
    energy = torch.cat(parts)
    features = torch.log10(energy + 0.1 * torch.rand(energy.shape).add(0.2))
    return (features - features.mean()) / features.std()


def recordings(count: int, frames: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features (count, frames, bins), zero after each end; lengths (count,); words (count,)."""
    words = torch.arange(count) % len(WORDS)
    features = torch.zeros(count, frames, BINS)
    lengths = torch.zeros(count, dtype=torch.int64)
    for index, word in enumerate(words.tolist()):
        frame_energies = recording(word)
        lengths[index] = len(frame_energies)
        features[index, : lengths[index]] = frame_energies
    return features, lengths, words


def shuffled_in_time(features: Tensor, lengths: Tensor) -> Tensor:
    """The same recordings with the frames of each in random order."""
    result = features.clone()
    for index, length in enumerate(lengths.tolist()):
        result[index, :length] = features[index, torch.randperm(length)]
    return result


# --- training ---


def loss(network: nn.Module, features: Tensor, lengths: Tensor, words: Tensor) -> Tensor:
    """Cross-entropy of the network's logits."""
    return F.cross_entropy(network(features, lengths), words)


def padding_difference(network: SpeechClassifier, features: Tensor, lengths: Tensor) -> float:
    """Largest difference between logits from a padded batch and from each recording alone."""
    together = predict(network, features, lengths)
    alone = [
        predict(network, features[i : i + 1, :length], lengths[i : i + 1])
        for i, length in enumerate(lengths.tolist())
    ]
    return (together - torch.cat(alone)).abs().max().item()


# --- pictures ---


def word_name(word: int) -> str:
    """The word as it is spoken, such as "ba-di-gu-ko"."""
    return "-".join(SYLLABLES[number] for number in WORDS[word])


def draw_inputs(data: Split, options: argparse.Namespace) -> None:
    """Draw a few recordings, with the span of time that each network sees."""
    features, lengths, words = (tensor[:6].cpu() for tensor in data.test)
    figure, grid = plt.subplots(2, 3, figsize=(10, 4.6), sharex=True, sharey=True)
    for axes, feature, length, word in zip(grid.flat, features, lengths, words, strict=True):
        axes.imshow(
            feature[:length].T, origin="lower", aspect="auto", cmap="magma", interpolation="nearest"
        )
        axes.set_title(word_name(int(word)))
    for frames, height in ((7, 37), (13, 34)):
        grid[0, 0].plot([24, 24 + frames], [height, height], color="white", linewidth=3)
    figure.supxlabel("frame", fontsize=10)
    figure.supylabel("filter-bank channel", fontsize=10)
    figure.suptitle(
        "The same four syllables in different orders "
        "(bars: the 7 and 13 frames that a network without and with dilation sees)"
    )
    save(figure, options, "inputs")


def draw_confusion(network: nn.Module, data: Split, options: argparse.Namespace) -> None:
    """Draw how often each word was taken for each."""
    *inputs, words = data.test
    figure, axes = plt.subplots(figsize=(7, 6))
    names = [word_name(word) for word in range(len(WORDS))]
    ConfusionMatrixDisplay.from_predictions(
        words.cpu(),
        predict(network, *inputs).argmax(1).cpu(),
        labels=range(len(WORDS)),
        display_labels=names,
        xticks_rotation=60,
        cmap="Blues",
        colorbar=False,
        ax=axes,
    )
    axes.set(xlabel="recognised", ylabel="spoken", title="Held-out words, dilated network")
    axes.spines[["top", "right"]].set_visible(True)
    save(figure, options, "confusion")


def main() -> None:
    """Train the three networks, measure, compare, draw."""
    options_parser = parser(__doc__, "speech", epochs=4)
    options_parser.add_argument(
        "--fixed-length",
        action="store_true",
        help="flatten a fixed number of frames instead of taking the maximum over time",
    )
    options = options_parser.parse_args()
    prepare(options)
    frames = MOST_FRAMES if options.fixed_length else None
    # The flattened variant needs fewer recordings, and each costs more: its dense layer is large.
    counts = (128, 64) if options.quick else (640 if options.fixed_length else 1280, 300)
    train_set, test_set = (
        tuple(tensor.to(options.device) for tensor in recordings(count, MOST_FRAMES))
        for count in counts
    )
    data = Split(train_set, test_set)

    dilated = partial(SpeechClassifier, frames=frames)
    contenders = {
        "dilated 1, 2, 3": dilated,
        "undilated": partial(SpeechClassifier, frames=frames, dilations=(1, 1, 1)),
        "bag of frames": partial(SpeechClassifier, kernel_frames=1),
    }
    histories: dict[str, History] = {}
    networks: dict[str, SpeechClassifier] = {}
    rows: dict[str, object] = {}
    for name, build in contenders.items():
        torch.manual_seed(options.seed)
        network = networks[name] = build(DILCONV).to(options.device)
        history = histories[name] = train(
            network,
            data.train,
            loss,
            lambda net: accuracy(net, *data.test),
            epochs=options.epochs,
            rate=3e-3,
            batch_size=16,
            label=name,
        )
        seen = dc.receptive_field(list(network.convs)).size[0]
        rows[f"held-out accuracy, {name}"] = f"{history.scores[-1]:.1%} (frames seen: {seen})"

    features, lengths, words = data.test
    network = networks["dilated 1, 2, 3"]
    shuffled = accuracy(network, shuffled_in_time(features, lengths), lengths, words)
    rows["dilated, frames shuffled in time"] = f"{shuffled:.1%}"
    rows["chance"] = f"{1 / len(WORDS):.0%}"
    rows["lengths"] = f"{int(lengths.min())} … {int(lengths.max())} frames"
    if not options.fixed_length:
        difference = padding_difference(network, features[:32], lengths[:32])
        rows["alone or in a padded batch"] = f"largest difference {difference:.0e}"
    rows["training"] = f"{sum(h.seconds for h in histories.values()):.1f} s for all three"
    rows |= comparison_rows(dilated, [tensor[:32] for tensor in data.train], loss, options)

    learning_curve(
        histories,
        options,
        "Words of the same syllables",
        "training cross-entropy",
        "held-out accuracy",
    )
    draw_inputs(data, options)
    draw_confusion(network, data, options)
    report("Speech: the order of syllables", rows, options)


if __name__ == "__main__":
    main()
