"""Builds the three extension modules; everything else about the package is in pyproject.toml."""

from glob import glob

import pybind11
import torch
from setuptools import Extension, setup
from torch.utils.cpp_extension import BuildExtension, CppExtension

FLAGS = ["-O3", "-g0", "-Wall", "-ffp-contract=fast", "-fno-math-errno", "-fvisibility=hidden"]


def sources(*patterns: str) -> list[str]:
    return [path for pattern in patterns for path in sorted(glob(f"csrc/{pattern}.cpp"))]


class IncrementalBuild(BuildExtension):
    """Keeps each extension's objects in a folder of their own, so that ninja compiles what changed.

    An editable install would else compile into a temporary folder, every time everything. Without
    ninja, setuptools would look at the sources alone, at no header and not at torch: force.
    """

    def build_extension(self, ext: Extension) -> None:
        self.build_temp = f"build/temp/{ext.name}"
        self.force = True
        super().build_extension(ext)


setup(
    ext_modules=[
        # The ops. py_limited_api leaves out libtorch_python: C++ programs load this library too.
        CppExtension(
            "dilconv_ext._ops",
            sources("core/*", "cpu/*", "cpu/*/*", "torch/*"),
            # at::parallel_for is a template: without -fopenmp it is compiled to run one thread. Not
            # a link flag: torch has brought its own OpenMP runtime, and one is enough.
            extra_compile_args=[*FLAGS, "-fopenmp"],
            py_limited_api=True,
        ),
        # The same ops for Python, without the cost of schema-driven argument parsing.
        CppExtension(
            "dilconv_ext._fast",
            [*sources("torch/python/*"), "csrc/torch/ops.cpp"],
            extra_compile_args=FLAGS,
        ),
        # What Python asks about builds, kernels and plans; it knows no torch and loads beside any.
        Extension(
            "dilconv_ext._C",
            sources("python/*"),
            include_dirs=[pybind11.get_include()],
            define_macros=[("DILCONV_TORCH_VERSION", f'"{torch.__version__}"')],
            extra_compile_args=FLAGS,
        ),
    ],
    cmdclass={"build_ext": IncrementalBuild},
)
