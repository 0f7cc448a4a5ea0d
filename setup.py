"""Builds the three extension modules, and says the version; all else is in pyproject.toml.

The CUDA kernels are built where torch is a CUDA build and there is an nvcc, in CUDA_HOME or on the
PATH; DILCONV_CUDA=0 leaves them out, 1 demands them. TORCH_CUDA_ARCH_LIST says for which GPUs, as
for any of torch's extensions; by default for those in this machine or, if it has none, for all that
are known.

A wheel fits one minor version of torch, and has CUDA kernels or not. With DILCONV_WHEEL=1 its
version says so, as in 0.1.0+torch2.14.cu130; else it is the source archive's, which pip compares.
"""

import os
import re
import shutil
import subprocess
import sys
from glob import glob

import pybind11
import torch
from setuptools import Extension, setup

VERSION = "0.1.0"
FLAGS = ["-O3", "-g0", "-Wall", "-ffp-contract=fast", "-fno-math-errno", "-fvisibility=hidden"]
# The GPUs' compute capabilities that csrc/cuda/capability.cu lists.
CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")


def sources(*patterns: str) -> list[str]:
    return [path for pattern in patterns for path in sorted(glob(f"csrc/{pattern}"))]


def ask(*command: str) -> str:
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return answer.stdout + answer.stderr


def find_nvcc() -> str | None:
    """Find nvcc, and set CUDA_HOME to its toolkit.

    torch would take the folder above the one that nvcc is in. But what is on the PATH may be a
    script that starts the toolkit's nvcc, which alone knows where it is.
    """
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    if home:
        return shutil.which("nvcc", path=f"{home}/bin")
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if nvcc:
        (top,) = re.findall(r"TOP=(.*)", ask(nvcc, "--dryrun", "-c", "none.cu"))
        os.environ["CUDA_HOME"] = os.path.realpath(top.strip())
    return nvcc


def choose_capabilities(nvcc: str) -> None:
    """Set TORCH_CUDA_ARCH_LIST, if it is not set."""
    known = [c for c in CAPABILITIES if f"_{c.replace('.', '')}" in ask(nvcc, "--list-gpu-arch")]
    cards = [torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())]
    found = [f"{major}.{minor}" for major, minor in sorted(set(cards))]
    chosen = [c for c in found if c in known] or known
    os.environ.setdefault("TORCH_CUDA_ARCH_LIST", ";".join(chosen) + "+PTX")


wanted = os.environ.get("DILCONV_CUDA", "")
nvcc = find_nvcc() if torch.version.cuda and wanted != "0" else None
if nvcc:
    choose_capabilities(nvcc)
elif wanted == "1":
    sys.exit("DILCONV_CUDA=1 demands CUDA kernels, which need a CUDA build of torch and an nvcc")

# Only now, because it looks for CUDA_HOME while it is imported.
from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension  # noqa: E402


class IncrementalBuild(BuildExtension):
    """Keeps each extension's objects in a folder of their own, so that ninja compiles what changed.

    An editable install would else compile into a temporary folder, every time everything. Without
    ninja, setuptools would look at the sources alone, at no header and not at torch: force.
    """

    def build_extension(self, ext: Extension) -> None:
        self.build_temp = f"build/temp/{ext.name}"
        self.force = True
        super().build_extension(ext)


OPS_SOURCES = sources("core/*.cpp", "cpu/*.cpp", "cpu/*/*.cpp", "torch/*.cpp")
OPS_SOURCES.remove("csrc/torch/no_cuda.cpp" if nvcc else "csrc/torch/cuda.cpp")
if nvcc:
    OPS_SOURCES += sources("cuda/*.cpp", "cuda/*.cu", "cuda/*/*.cpp", "cuda/*/*.cu")

BUILD = {"TORCH": torch.__version__, "CUDA": "none", "CAPABILITIES": "none"}
if nvcc:
    (BUILD["CUDA"],) = re.findall(r"release ([\d.]+)", ask(nvcc, "--version"))
    BUILD["CAPABILITIES"] = os.environ["TORCH_CUDA_ARCH_LIST"]

label = ""
if os.environ.get("DILCONV_WHEEL") == "1":
    torch_version = ".".join(torch.__version__.split(".")[:2])
    label = f"+torch{torch_version}.{'cu' + BUILD['CUDA'].replace('.', '') if nvcc else 'cpu'}"

setup(
    version=VERSION + label,
    ext_modules=[
        # The ops. py_limited_api leaves out libtorch_python: C++ programs load this library too.
        (CUDAExtension if nvcc else CppExtension)(
            "dilconv_ext._ops",
            OPS_SOURCES,
            # at::parallel_for is a template: without -fopenmp it is compiled to run one thread. Not
            # a link flag: torch has brought its own OpenMP runtime, and one is enough.
            extra_compile_args={
                "cxx": [*FLAGS, "-fopenmp"],
                "nvcc": ["-O3", "-Xcompiler=-g0,-Wall,-fvisibility=hidden"],
            },
            py_limited_api=True,
        ),
        # The same ops for Python, without the cost of schema-driven argument parsing.
        CppExtension(
            "dilconv_ext._fast",
            [*sources("torch/python/*.cpp"), "csrc/torch/ops.cpp"],
            extra_compile_args=FLAGS,
        ),
        # What Python asks about builds, kernels and plans; it knows no torch and loads beside any.
        Extension(
            "dilconv_ext._C",
            sources("python/*.cpp"),
            include_dirs=[pybind11.get_include()],
            define_macros=[(f"DILCONV_{name}", f'"{value}"') for name, value in BUILD.items()],
            extra_compile_args=FLAGS,
        ),
    ],
    cmdclass={"build_ext": IncrementalBuild},
)
