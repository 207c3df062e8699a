"""The kernel's text: its arithmetic, and a search around it for a GPU or for a CPU's vectors."""

from wattshift_kernels.texts import text


def source(ending: str = "cu") -> str:
    """One text, its header written in.

    Args:
        ending: "cu" for the launch on a GPU, "cpp" for the search over vectors.
    """
    return text("blake3", f"blake3.{ending}")
