"""Export a network of dilated convolutions and run it without Python.

torch.export captures it with open sizes, AOTInductor compiles it into a package, and the package
runs here and in a small C++ program (main.cpp, built by this script), both held against the eager
network.
"""

import argparse
import subprocess
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.export import Dim
from torch.utils import cpp_extension

import dilconv_ext as dc

HERE = Path(__file__).resolve().parent


def network() -> nn.Module:
    """A small segmentation network: dilated layers, then back to the size of the image."""
    return nn.Sequential(
        nn.Conv2d(4, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=2, dilation=2),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=4, dilation=4),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 2, 4, stride=2, padding=1),
    )


def package(model: nn.Module, path: Path) -> str:
    """Compile `model` for images of any batch size, height and width; return the file's path."""
    even = {2: 2 * Dim("height", min=4, max=512), 3: 2 * Dim("width", min=4, max=512)}
    program = torch.export.export(
        model,
        (torch.randn(2, 4, 32, 48),),
        dynamic_shapes=({0: Dim("batch", max=64), **even},),
    )
    return torch._inductor.aoti_compile_and_package(program, package_path=str(path))


def build(folder: Path) -> str:
    """Build main.cpp against the installed torch; return the program's path."""
    return cpp_extension.load(
        name="main",
        sources=[str(HERE / "main.cpp")],
        extra_cflags=["-O1"],
        extra_ldflags=["-ldl"],
        build_directory=str(folder),
        is_python_module=False,
        is_standalone=True,
    )


def run(program: str, packaged: str, images: torch.Tensor, folder: Path) -> np.ndarray:
    """The C++ program's result for `images`."""
    source, target = folder / "input.bin", folder / "output.bin"
    batch, _, height, width = images.shape
    sizes = np.array([batch, height, width], dtype=np.int64)
    source.write_bytes(sizes.tobytes() + images.numpy().tobytes())
    command = [program, str(dc.ops.LIBRARY), packaged, str(source), str(target)]
    subprocess.run(command, check=True)
    return np.fromfile(target, dtype=np.float32)


def main() -> None:
    """Build, run twice, compare."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--output", type=Path, default=Path("output", "deployment"))
    folder = options.parse_args().output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = dc.convert(network()).eval()
    packaged = package(model, folder / "network.pt2")
    images = torch.randn(3, 4, 40, 64)
    with torch.inference_mode():
        expected = model(images)
    torch.testing.assert_close(torch._inductor.aoti_load_package(packaged)(images), expected)
    print("Python agrees with the eager network")
    result = run(build(folder), packaged, images, folder)
    np.testing.assert_allclose(result, expected.flatten(), rtol=1e-5, atol=1e-6)
    print("C++ agrees with the eager network")


if __name__ == "__main__":
    main()
