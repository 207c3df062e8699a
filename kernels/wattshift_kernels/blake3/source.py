"""The kernel's text: its arithmetic, and a search around it for a GPU or for a CPU's vectors."""

from importlib import resources


def source(ending: str = "cu") -> str:
    """One text, its header written in.

    Args:
        ending: "cu" for the launch on a GPU, "cpp" for the search over vectors.
    """
    folder = resources.files("wattshift_kernels.blake3")
    head = (folder / "blake3.cuh").read_text()
    return (folder / f"blake3.{ending}").read_text().replace('#include "blake3.cuh"', head)
