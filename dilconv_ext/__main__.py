"""The command line: ``python -m dilconv_ext {info,receptive-field,demo,bench}``."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from . import _C, Layer, __version__, effective_field, gridding, ops, receptive_field

_CHECKOUT = Path(__file__).resolve().parent.parent
_SCRIPTS = {"demo": "examples/classifier.py", "bench": "benchmarks/bench.py"}
_LAYER_HELP = (
    "layers from the input on: k3 is a kernel of 3 (k3x5: height 3, width 5); append s2 for the "
    "stride, d4 for the dilation, p1 for the padding, each also as AxB; for example: k3d1 k3d2 k3d4"
)


def parse_layer(text: str) -> Layer:
    """Parse a layer such as ``k3d2`` or ``k3x5s2p1x2``; see the help of ``receptive-field``.

    Raises:
        argparse.ArgumentTypeError: ``text`` is no such layer.
    """
    found = re.findall(r"([ksdp])(\d+)(?:x(\d+))?", text)
    letters = [letter for letter, _, _ in found]
    complete = "".join(a + b + (f"x{c}" if c else "") for a, b, c in found) == text
    if not complete or "k" not in letters or len(set(letters)) < len(letters):
        raise argparse.ArgumentTypeError(f"{text!r} is no layer such as k3, k3d2 or k3x5s2p1")
    numbers = {a: (int(b), int(c)) if c else int(b) for a, b, c in found}
    return Layer(numbers["k"], numbers.get("s", 1), numbers.get("d", 1), numbers.get("p", 0), text)


def _gpus() -> dict[str, str]:
    """Return a fact per GPU that torch sees, or why it sees none."""
    if torch.version.cuda is None:
        return {"GPU": "none, because torch is a build without CUDA"}
    if not torch.cuda.is_available():
        return {"GPU": "none, because torch finds no card or no driver for it"}
    cards = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return {f"GPU {i}": f"{card.name}, sm_{card.major}{card.minor}" for i, card in enumerate(cards)}


def load_model(text: str) -> nn.Module:
    """Import ``package.module``, call ``name`` in it, and return the module it returns.

    Raises:
        argparse.ArgumentTypeError: ``text`` has another form, or no such function is found.
    """
    module, _, name = text.partition(":")
    try:
        return getattr(importlib.import_module(module), name)()
    except (ImportError, AttributeError, ValueError) as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not package.module:name of a function: {error}"
        ) from error


def info() -> str:
    """Return what a bug report needs, a line per fact."""
    build = _C.build_info()
    facts = {
        "dilconv_ext": __version__,
        "location": str(Path(__file__).parent),
        "ops library": Path(ops.LIBRARY).name,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        **{f"built with {name.replace('_', ' ')}": value for name, value in sorted(build.items())},
        **{
            f"{device} {what}": ", ".join(names(device)) or "none"
            for device in ("cpu", "cuda")
            for what, names in (("instruction sets", _C.isas), ("kernels", _C.kernels))
        },
        **{
            f"option {name}": _C.get_option(name) or "(default)"
            for name in ("kernel", "isa", "verbose")
        },
        "threads": str(torch.get_num_threads()),
        **_gpus(),
    }
    width = max(map(len, facts))
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in facts.items())


def _run_script(command: str, arguments: list[str]) -> int:
    script = _CHECKOUT / _SCRIPTS[command]
    if not script.is_file():
        print(
            f"'{command}' runs {_SCRIPTS[command]} of the source repository, which is not here "
            f"({script}): install from a checkout with `pip install --no-build-isolation -e .`",
            file=sys.stderr,
        )
        return 1
    # The script imports this package: this very one, also where it is not installed.
    path = os.pathsep.join(filter(None, (str(_CHECKOUT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path}
    command_line = [sys.executable, str(script), *arguments]
    return subprocess.run(command_line, env=environment, check=False).returncode


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m dilconv_ext", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info", help="print versions, kernels and options: what a bug report needs")
    field = commands.add_parser("receptive-field", help="print how layers see their input")
    what = field.add_mutually_exclusive_group(required=True)
    what.add_argument("--layers", nargs="+", type=parse_layer, help=_LAYER_HELP)
    what.add_argument(
        "--model",
        type=load_model,
        help="package.module:name of a function that returns a module; the module is run",
    )
    field.add_argument(
        "--input",
        nargs="+",
        type=int,
        default=(3, 224, 224),
        metavar="N",
        help="with --model: channels, height and width (or length) of an input [3 224 224]",
    )
    field.add_argument(
        "--picture",
        type=Path,
        metavar="FILE",
        help="draw, as .png or .svg, what one output reads, or with --model how much its gradient "
        "reaches each pixel (needs matplotlib)",
    )
    for name, script in _SCRIPTS.items():
        commands.add_parser(
            name, help=f"run {script} of a checkout; further arguments go to it", add_help=False
        )
    options, rest = parser.parse_known_args(argv)
    if options.command in _SCRIPTS:
        return _run_script(options.command, rest)
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if options.command == "info":
        print(info())
        return 0
    try:
        if options.model is not None:
            _show_model(options.model, tuple(options.input), options.picture)
        else:
            _show_layers(options.layers, options.picture)
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        # A number, an input's size or a file's name that does not do: no traceback tells more.
        field.exit(2, f"{field.prog}: error: {str(error).splitlines()[0]}\n")
    return 0


def _show_model(model: nn.Module, size: tuple[int, ...], picture: Path | None) -> None:
    print(receptive_field(model, size))
    effective = effective_field(model, size)
    print(effective)
    if picture is not None:
        from ._pictures import draw_effective_field

        draw_effective_field(effective, picture)


def _show_layers(layers: list[Layer], picture: Path | None) -> None:
    print(receptive_field(layers))
    print(gridding(layers))
    if picture is not None:
        from ._pictures import draw_field

        draw_field(layers, picture)


if __name__ == "__main__":
    sys.exit(main())
