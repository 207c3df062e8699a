"""The kernel's text: its arithmetic, and a search around it for a GPU or for a CPU's vectors."""

from importlib import resources


def source(ending: str = "cu") -> str:
    """One text, its header written in.

    Args:
        ending: "cu" for the launch on a GPU, "cpp" for the search over vectors.
    """
    folder = resources.files("wattshift_kernels.kheavyhash")
    head = (folder / "kheavyhash.cuh").read_text()
    return (folder / f"kheavyhash.{ending}").read_text().replace('#include "kheavyhash.cuh"', head)
