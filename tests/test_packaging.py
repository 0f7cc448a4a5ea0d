"""What is installed is whole: a wheel from a source archive, and the torch it was built for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with its output caught and the build tools on its path."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def succeed(*command: object, cwd: Path) -> str:
    """Run a command that must succeed; return what it printed."""
    done = run(*command, cwd=cwd)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def unpacked_source(folder: Path) -> Path:
    """Make the source archive, unpack it, and return where.

    Of a copy, because tests that run at once would write into the same folder, and because what an
    earlier list of sources names is shipped again, and would hide what MANIFEST.in leaves out.
    """
    copy = folder / "copy"
    left_out = (".git", ".venv*", "*.egg-info", "build", "dist", "output")
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*left_out))
    backend = "import setuptools.build_meta as b, sys; print(b.build_sdist(sys.argv[1]))"
    succeed(sys.executable, "-c", backend, folder, cwd=copy)
    (archive,) = folder.glob("dilconv_ext-*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="only a checkout knows its files")
def test_the_source_distribution_is_the_checkout(tmp_path):
    """Its Makefile and its tests need all of the others: scripts, helpers, examples."""
    source = unpacked_source(tmp_path)
    tracked = succeed("git", "ls-files", "--cached", cwd=ROOT).splitlines()
    assert not [name for name in tracked if not (source / name).exists()]
    assert not list(source.rglob("__pycache__"))
    succeed("make", "--dry-run", "test", cwd=source)


@pytest.mark.slow
def test_a_wheel_from_the_source_distribution_works_alone(tmp_path, monkeypatch):
    """Nothing but the wheel and torch is on the path, so a file left out of either shows."""
    python = [sys.executable, "-m"]
    source = unpacked_source(tmp_path)
    monkeypatch.setenv("DILCONV_WHEEL", "1")
    wheel_options = ["--no-build-isolation", "--no-deps", "--wheel-dir", tmp_path]
    succeed(*python, "pip", "wheel", *wheel_options, source, cwd=tmp_path)
    torch_version = ".".join(torch.__version__.split(".")[:2])
    (raw,) = tmp_path.glob(f"dilconv_ext-*+torch{torch_version}.*.whl")
    # The wheel that is given away: its libraries' search paths were rewritten.
    repaired = tmp_path / "repaired"
    settings = [f"WHEEL={raw}", f"WHEEL_DIR={repaired}", f"VENV={sys.prefix}"]
    succeed("make", "repair", *settings, cwd=ROOT)
    (wheel,) = repaired.glob("dilconv_ext-*manylinux*.whl")

    succeed(*python, "venv", tmp_path / "venv", cwd=tmp_path)
    fresh = tmp_path / "venv" / "bin" / "python"
    succeed(fresh, "-m", "pip", "install", "--no-deps", wheel, cwd=tmp_path)
    # torch, which is large, is borrowed; .pth files in its folder, such as an editable install's,
    # are not read there.
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")

    program = """
import dilconv_ext, torch
x, w = torch.randn(1, 2, 9, 9), torch.randn(3, 2, 3, 3)
torch.testing.assert_close(
    dilconv_ext.functional.conv2d(x, w, dilation=2), torch.nn.functional.conv2d(x, w, dilation=2)
)
print(dilconv_ext.__file__)
"""
    printed = succeed(fresh, "-I", "-W", "error", "-c", program, cwd=tmp_path)
    assert printed.startswith(str(site))
    installed = {path.name for path in (site / "dilconv_ext").iterdir()}
    assert {"py.typed", "_C.pyi"} <= installed
    assert not [name for name in installed if name.endswith((".cpp", ".h"))]

    # The tests themselves, where no checkout is near.
    tests = tmp_path / "elsewhere"
    shutil.copytree(source / "tests", tests / "tests")
    for file in ("conftest.py", "pyproject.toml"):
        shutil.copy(source / file, tests / file)
    chosen = ["tests/test_functional.py", "tests/test_modules.py", "tests/test_convert.py"]
    done = succeed(fresh, "-m", "pytest", "--slow=none", "-q", *chosen, cwd=tests)
    assert " passed" in done
    assert "failed" not in done


def test_importing_under_another_torch_says_how_to_mend_it(tmp_path):
    """Without the check the loader would speak of an undefined symbol, or crash later."""
    program = """
import torch
torch.__version__ = torch.version.__version__ = torch.torch_version.TorchVersion("2.8.1")
import dilconv_ext
"""
    done = run(sys.executable, "-c", program, cwd=tmp_path)
    assert done.returncode == 1
    error = done.stderr.strip().splitlines()[-1]
    assert error.startswith("ImportError: dilconv_ext was built for torch ")
    assert "2.8.1" in error
    assert "pip install --no-build-isolation" in error
    assert "undefined symbol" not in done.stderr
