"""Builds the two extension modules; everything else about the package is in pyproject.toml."""

from glob import glob

import pybind11
import torch
from setuptools import Extension, setup
from torch.utils.cpp_extension import BuildExtension, CppExtension

FLAGS = ["-O3", "-g0", "-Wall", "-ffp-contract=fast", "-fno-math-errno", "-fvisibility=hidden"]


def sources(*patterns: str) -> list[str]:
    return [path for pattern in patterns for path in sorted(glob(f"csrc/{pattern}.cpp"))]


setup(
    ext_modules=[
        # The ops. py_limited_api leaves out libtorch_python: C++ users and AOTInductor load this library too.
        CppExtension(
            "dilconv_ext._ops",
            sources("core/*", "cpu/*", "cpu/*/*", "torch/*"),
            extra_compile_args=FLAGS,
            py_limited_api=True,
        ),
        # The same ops for Python, without the cost of schema-driven argument parsing.
        CppExtension(
            "dilconv_ext._fast",
            [*sources("torch/python/*"), "csrc/torch/ops.cpp"],
            extra_compile_args=FLAGS,
        ),
        # What Python asks about builds, kernels and plans; free of torch, so that it loads beside any torch.
        Extension(
            "dilconv_ext._C",
            sources("python/*"),
            include_dirs=[pybind11.get_include()],
            define_macros=[("DILCONV_TORCH_VERSION", f'"{torch.__version__}"')],
            extra_compile_args=FLAGS,
        ),
    ],
    cmdclass={"build_ext": BuildExtension},
)
