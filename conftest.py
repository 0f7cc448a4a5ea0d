"""Which tests run: the fast ones, and none, a sample or all of the slow ones; on which device.

A module that skips itself because something is missing says so at the end (-rs); in CI it fails.
"""

import os
import zlib
from collections.abc import Generator

import pytest

SAMPLE = 16  # one slow test in so many, the same ones every time; or mark it slow(sample=…)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --slow and --device."""
    parser.addoption(
        "--slow",
        choices=("none", "sample", "all"),
        default="sample",
        help=f"which tests marked slow to run; a sample is one in {SAMPLE} [%(default)s]",
    )
    parser.addoption(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="where the tests' tensors are [%(default)s]",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the slow tests that --slow does not ask for."""
    tier = config.getoption("--slow")
    if tier == "all":
        return

    def wanted(item: pytest.Item) -> bool:
        marker = item.get_closest_marker("slow")
        if marker is None:
            return True
        sample = marker.kwargs.get("sample", SAMPLE)
        return tier == "sample" and zlib.crc32(item.nodeid.encode()) % sample == 0

    config.hook.pytest_deselected(items=[item for item in items if not wanted(item)])
    items[:] = [item for item in items if wanted(item)]


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """In CI, turn the skip of a whole module into an error."""
    report = yield
    if report.skipped and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"
    return report
