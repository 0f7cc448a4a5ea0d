"""The compiled module: build information, kernel table, plans and options. It holds no torch."""  # noqa: N999

def open(path: str) -> None:
    """Load the operators' library, which the other functions ask."""

def build_info() -> dict[str, str]:
    """Return what the extension was built with: torch, compiler, cxx_standard."""

def kernels() -> list[str]:
    """Return the names of the CPU's kernels, best first."""

def isas() -> list[str]:
    """Return the instruction sets that both the machine and the build have, best first."""

def explain(fields: list[int], threads: int = 1) -> list[tuple[str, str | None, str | None, int]]:
    """Return each kernel's name, why it refuses (None: it accepts), and its workspace in bytes."""

def get_option(name: str) -> str:
    """Return the value of 'kernel', 'isa' or 'verbose'; '' is the default."""

def set_option(name: str, value: str) -> None:
    """Set an option; raise ValueError, naming the choices, for a value that is none of them."""
