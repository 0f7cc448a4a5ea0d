"""The compiled module: build information, kernel table, plans and options. It holds no torch."""  # noqa: N999

def open(path: str) -> None:
    """Load the operators' library, which the other functions ask."""

def build_info() -> dict[str, str]:
    """Return what the extension was built with, by name: torch, cuda, compiler, and so on."""

def kernels(device: str = "cpu") -> list[str]:
    """Return the names of a device's kernels, best first; none if the build has no such device."""

def isas(device: str = "cpu") -> list[str]:
    """Return a device's instruction sets, best first: this CPU's, or the known GPUs'."""

def explain(
    fields: list[int], threads: int = 1, device: str = "cpu", isa: str = ""
) -> list[tuple[str, str | None, str | None, int]]:
    """Return each kernel's name, why it refuses, why it declines, and its workspace in bytes.

    None stands for no reason. An empty ``isa`` is this machine's, as capped by the option.
    """

def get_option(name: str) -> str:
    """Return the value of 'kernel', 'isa' or 'verbose'; '' is the default."""

def set_option(name: str, value: str) -> None:
    """Set an option; raise ValueError, naming the choices, for a value that is none of them."""
