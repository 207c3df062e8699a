"""One GPU of this process through CuPy: a stream of the lowest priority, memory, and its end.

CuPy is imported only here and only when a GPU is asked for. What CuPy 14 does not offer is asked of
the driver's own library: the range of stream priorities, and the end of the context.
"""

import ctypes
from contextlib import suppress
from pathlib import Path
from typing import Any

from wattshift_kernels.hasher import HasherFailed

DRIVER_SAYS = Path("/proc/driver/nvidia/version")


class GpuMissing(Exception):
    """There is no usable GPU or no CuPy here; the text says which."""


class HostBlock:
    """Page-locked memory of the host that the device sees too.

    Attributes:
        address: for this process.
        device_address: for kernels.
        bytes: the block as a view that can be written.
    """

    def __init__(self, address: int, device_address: int, size: int) -> None:
        """Wrap `size` bytes; `Gpu.host` makes and frees them."""
        self.address = address
        self.device_address = device_address
        self.bytes = memoryview((ctypes.c_ubyte * size).from_address(address)).cast("B")


class Gpu:
    """A GPU with the primary context of this process on it.

    Attributes:
        cupy: the module, once imported.
        sms: streaming multiprocessors.
        memory_bytes: device memory taken through `device`.
        priority: of the stream; the lowest that the device has.
        model: its name, and the driver's version.
        capability: compute capability times ten, 90 for sm_90.
    """

    def __init__(self, ordinal: int = 0) -> None:
        """Make the context and the stream. Raises GpuMissing."""
        try:
            self._driver = ctypes.CDLL("libcuda.so.1")
        except OSError as fault:
            # Asked first: CuPy takes a second to import.
            raise GpuMissing(f"no NVIDIA driver: {fault}") from fault
        try:
            import cupy
        except ImportError as fault:
            raise GpuMissing(f"CuPy is not installed: {fault}") from fault
        if not cupy.is_available():
            raise GpuMissing("CuPy finds no GPU or no driver")
        self.cupy: Any = cupy
        self.memory_bytes = 0
        self._ordinal = ordinal
        self._runtime: Any = cupy.cuda.runtime
        self._hosted: list[int] = []
        self._held: dict[int, int] = {}
        self._closed = False
        self.device: Any = cupy.cuda.Device(ordinal)
        with self.device:
            self.sms = int(self.device.attributes["MultiProcessorCount"])
            self._runtime.free(0)  # makes the context, which the driver is asked about next
            self.model = self._named()
            self.capability = int(self.device.compute_capability)
            self.priority = self._lowest_priority()
            # Non-blocking: work on the default stream, whoever's it is, neither waits nor is
            # waited for.
            self.stream: Any = cupy.cuda.Stream(non_blocking=True, priority=self.priority)

    def host(self, size: int) -> HostBlock:
        """Page-locked, mapped memory: the host writes it with a store and no call of CUDA."""
        flags = self._runtime.hostAllocMapped | self._runtime.hostAllocPortable
        with self.device:
            address = int(self._runtime.hostAlloc(size, flags))
            self._hosted.append(address)
            seen = int(self._runtime.pointerGetAttributes(address).devicePointer)
        if not seen:
            raise GpuMissing("the device does not see page-locked memory of the host")
        ctypes.memset(address, 0, size)
        return HostBlock(address, seen, size)

    def take(self, size: int) -> int:
        """Device memory, not cleared; its address."""
        with self.device:
            address = int(self._runtime.malloc(size))
        self._held[address] = size
        self.memory_bytes += size
        return address

    def free(self, address: int) -> None:
        """Give back what `take` gave. Waits for what is queued on the device."""
        with self.device:
            self.stream.synchronize()
            self._runtime.free(address)
        self.memory_bytes -= self._held.pop(address)

    def free_bytes(self) -> int:
        """Of the device's memory, whoever else uses it."""
        with self.device:
            return int(self._runtime.memGetInfo()[0])

    def compiled(self, source: str, kernel: str, *, options: tuple[str, ...] = ()) -> Any:
        """A kernel of a source text, ready to be launched. CuPy keeps what it compiled on disk.

        Raises:
            Exception: of CuPy or NVRTC, with the compiler's log.
        """
        with self.device:
            module = self.cupy.RawModule(code=source, options=("-std=c++17", *options))
            return module.get_function(kernel)

    def close(self) -> None:
        """Free all memory and end the context, also for others in this process. Repeatable.

        Raises:
            HasherFailed: the driver would not end it.
        """
        if self._closed:
            return
        self._closed = True
        try:
            with self.device:
                self.stream.synchronize()
                for address in self._held:
                    self._runtime.free(address)
                for address in self._hosted:
                    self._runtime.freeHost(address)
                self.stream = None
        except RuntimeError as fault:
            raise HasherFailed(f"the GPU's memory cannot be freed: {fault}") from fault
        finally:
            self.memory_bytes = 0
            self._held, self._hosted = {}, []
            self._end_context()

    def _named(self) -> str:
        name = self._runtime.getDeviceProperties(self._ordinal)["name"]
        text = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
        driver = str(self._runtime.driverGetVersion())  # of its interface, which is not enough
        with suppress(OSError):
            driver += " " + DRIVER_SAYS.read_text(errors="replace")[:200].splitlines()[0]
        return f"{text}; driver {driver}"

    def _lowest_priority(self) -> int:
        """The numerically greatest is the lowest one; asked, since it is the device's to say."""
        least, greatest = ctypes.c_int(), ctypes.c_int()
        code = self._driver.cuCtxGetStreamPriorityRange(ctypes.byref(least), ctypes.byref(greatest))
        if code != 0:
            raise GpuMissing(f"the driver does not say its stream priorities: error {code}")
        return least.value

    def _end_context(self) -> None:
        # Releasing would only drop one of the references that the runtime library holds.
        device = ctypes.c_int()
        code = self._driver.cuDeviceGet(ctypes.byref(device), self._ordinal)
        code = code or self._driver.cuDevicePrimaryCtxReset_v2(device)
        if code != 0:
            raise HasherFailed(f"the GPU's context cannot be ended: error {code}")
