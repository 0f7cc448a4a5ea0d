"""Process-wide options of the kernel selection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from . import _C


@contextmanager
def options(
    *,
    kernel: str | None = None,
    isa: str | None = None,
    verbose: bool | int | str | None = None,
    winograd: bool | int | str | None = None,
) -> Iterator[None]:
    """Set options for the length of a ``with`` block (or of a function that it decorates).

    They hold for the whole process, all threads included, and start as the environment variables
    DILCONV_KERNEL, DILCONV_ISA, DILCONV_VERBOSE and DILCONV_WINOGRAD say. An argument that is None
    leaves its option. When the block ends, every option is again what it was before.

    Args:
        kernel: the name of the kernel to use, as ``python -m dilconv_ext info`` lists them; a call
            that this kernel refuses raises RuntimeError with the reason. '' is the default: the
            first that accepts.
        isa: the newest instruction set to use, such as 'avx2' on the CPU or 'sm_80' on GPUs; '' is
            the default: the machine's best.
        verbose: 1 (or True) prints each call's kernel to stderr; 0 does not.
        winograd: 0 (or False) keeps the kernel ``winograd`` from running. It multiplies up to four
            times less than the definition, for a float32 result that may be off by 5e-6
            (L2-relative) and in which an inf or NaN spreads over tiles of up to 4×4 outputs of one
            phase of the dilation. 1 is the default.

    Raises:
        ValueError: an unknown name; the message lists the known ones.

    Examples:
        >>> with options(kernel="reference"):
        ...     pass
    """
    wanted = {"kernel": kernel, "isa": isa, "verbose": verbose, "winograd": winograd}
    wanted.update({name: int(value) for name, value in wanted.items() if isinstance(value, bool)})
    before = {name: _C.get_option(name) for name in wanted}
    try:
        for name, value in wanted.items():
            if value is not None:
                _C.set_option(name, str(value))
        yield
    finally:
        for name, value in before.items():
            _C.set_option(name, value)
