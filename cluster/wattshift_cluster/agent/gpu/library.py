"""The one door to NVML: nvidia-ml-py is imported here and nowhere else.

Opened on first use, opened anew after the driver was reloaded, and every refusal becomes a
`GpuFault` of a small number of kinds. NVML itself may be called from several threads at once.
"""

import contextlib
import ctypes
import threading
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from wattshift_cluster.errors import WattshiftError

SUCCESS = 0
NOT_FOUND = 6


class FaultKind(StrEnum):
    """Why NVML, or another way to a GPU, gave no answer."""

    NOT_SUPPORTED = "not supported"
    LOST = "lost"
    NO_PERMISSION = "no permission"
    DRIVER_GONE = "driver gone"
    INVALID = "invalid"
    UNKNOWN = "unknown"


_KIND_OF = {
    1: FaultKind.DRIVER_GONE,  # uninitialised: the driver was reloaded under us
    2: FaultKind.INVALID,
    3: FaultKind.NOT_SUPPORTED,
    4: FaultKind.NO_PERMISSION,
    6: FaultKind.LOST,  # not found: a card of this name is not there any more
    9: FaultKind.DRIVER_GONE,
    12: FaultKind.DRIVER_GONE,  # no library
    13: FaultKind.NOT_SUPPORTED,  # no such function in this driver
    15: FaultKind.LOST,
    16: FaultKind.LOST,  # the GPU requires a restart
    18: FaultKind.DRIVER_GONE,  # the kernel's module is of another version than the library
    25: FaultKind.NOT_SUPPORTED,  # no such version of a structure in this driver
    28: FaultKind.LOST,
}
"""NVML return codes (nvml.h, nvmlReturn_t); all others are unknown."""


class GpuFault(WattshiftError):
    """A GPU, or the way to it, refused.

    Attributes:
        kind: what sort of refusal.
        text: in the words of who refused.
        code: NVML's return code; None where it was not NVML.
    """

    def __init__(self, kind: FaultKind, text: str, code: int | None = None) -> None:
        self.kind = kind
        self.text = text
        self.code = code
        super().__init__(f"{kind}: {text}")


class Library:
    """NVML of this host.

    Attributes:
        generation: grows each time it is opened; handles of an older one are void.
    """

    def __init__(self) -> None:
        """Closed; nothing is imported yet."""
        self.generation = 0
        self._lock = threading.Lock()
        self._binding: Any = None
        self._handles: dict[str, Any] = {}

    def open(self) -> None:
        """Open it, unless it is.

        Raises:
            GpuFault: there is no binding, library or driver.
        """
        with self._lock:
            if self._binding is None:
                self._open()

    def reopen(self, generation: int) -> None:
        """Open it anew, unless somebody did so since `generation`.

        Raises:
            GpuFault: the driver is not back; a library of another version than the loaded module
                stays so until this process is restarted.
        """
        with self._lock:
            if self.generation != generation:
                return
            self._close()
            self._open()

    def close(self) -> None:
        """Let go of it."""
        with self._lock:
            self._close()

    def ask(self, name: str, *arguments: Any) -> Any:
        """Call a function of nvidia-ml-py by its name.

        Raises:
            GpuFault: it refused, or this version does not have it.
        """
        binding = self._binding
        if binding is None:
            raise GpuFault(FaultKind.DRIVER_GONE, "NVML is not open")
        function = getattr(binding, name, None)
        if function is None:
            raise GpuFault(FaultKind.NOT_SUPPORTED, f"this nvidia-ml-py lacks {name}")
        try:
            return function(*arguments)
        except binding.NVMLError as fault:
            raise _fault(fault) from fault

    def ask_or_none(self, name: str, *arguments: Any) -> Any:
        """As `ask`; None where it refused."""
        with contextlib.suppress(GpuFault):
            return self.ask(name, *arguments)
        return None

    def handle(self, uuid: str) -> Any:
        """The handle of a card or slice, valid for this generation.

        Raises:
            GpuFault: it is not there now.
        """
        with self._lock:
            found = self._handles.get(uuid)
        if found is not None:
            return found
        generation = self.generation
        found = self.ask("nvmlDeviceGetHandleByUUID", uuid)
        with self._lock:
            if generation == self.generation:
                self._handles[uuid] = found
        return found

    def forget(self, uuid: str) -> None:
        """Look this card up again when its handle is next wanted."""
        with self._lock:
            self._handles.pop(uuid, None)

    def function(self, name: str) -> Callable[..., int] | None:
        """A function of the C library, for callers who bring their own buffers; None: it has none.

        It returns NVML's code, which `explain` turns into a fault.
        """
        binding = self._binding
        loaded: ctypes.CDLL | None = None if binding is None else binding.nvmlLib
        if loaded is None:
            return None
        found: Callable[..., int] | None = getattr(loaded, name, None)
        return found

    def explain(self, code: int) -> GpuFault:
        """The fault that NVML means by this code."""
        binding = self._binding
        text = f"code {code}" if binding is None else str(binding.NVMLError(code))
        return GpuFault(_KIND_OF.get(code, FaultKind.UNKNOWN), text, code)

    def _open(self) -> None:
        try:
            import pynvml
        except ImportError as fault:
            raise GpuFault(FaultKind.DRIVER_GONE, "nvidia-ml-py is not installed") from fault
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as fault:
            raise _fault(fault) from fault
        self._binding = pynvml
        self.generation += 1
        self._handles.clear()

    def _close(self) -> None:
        binding, self._binding = self._binding, None
        self._handles.clear()
        if binding is not None:
            # A driver that was reloaded does not know of our opening: nothing is left to close.
            with contextlib.suppress(binding.NVMLError):
                binding.nvmlShutdown()


def _fault(fault: Any) -> GpuFault:
    code = int(fault.value)
    return GpuFault(_KIND_OF.get(code, FaultKind.UNKNOWN), str(fault), code)
