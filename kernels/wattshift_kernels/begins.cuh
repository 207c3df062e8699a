// Shared by rooms, and found by texts.py.
// How a block begins, whatever it computes, and how it writes.
#pragma once

// Whether this block is to run; it says so in `ran`. `stop` lies in the host's memory and is read once
// per block, at its entry.
WS_DEVICE bool ws_begins(const volatile ws_u32* const stop, unsigned char* const ran,
                         ws_u32* const stopped) {
    if (threadIdx.x == 0) {
        *stopped = *stop;
        if (!*stopped) ran[blockIdx.x] = 1;
    }
    __syncthreads();
    return !*stopped;
}

// 16 bytes to the device's memory, at once.
WS_DEVICE void ws_store(const ws_u64 address, const ws_u64 low, const ws_u64 high) {
#ifdef __CUDACC__
    asm volatile("st.global.v2.u64 [%0], {%1, %2};" : : "l"(address), "l"(low), "l"(high) : "memory");
#else
    ((ws_u64*)address)[0] = low, ((ws_u64*)address)[1] = high;
#endif
}
