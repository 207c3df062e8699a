// The launch: each block tries a tile of nonces of its own and reports hits to a ring.
#include "blake3.cuh"

// What the words beside the job mean, and why a block reads the stop word once: see kernel.py.
extern "C" __global__ void WS_BOUNDS ws_search(const WS_GRID_CONSTANT WsJob job, const ws_u32 start,
                                               const ws_u64 count, const ws_u32 tile,
                                               const volatile ws_u32* stop,
                                               ws_u32* __restrict__ ring, const ws_u32 ring_size,
                                               ws_u32* __restrict__ hits,
                                               unsigned char* __restrict__ ran) {
    __shared__ ws_u32 stopped;  // one answer for the whole block, and one read over the bus
    if (threadIdx.x == 0) {
        stopped = *stop;
        if (!stopped) ran[blockIdx.x] = 1;
    }
    __syncthreads();
    if (stopped) return;
    const ws_u64 first = (ws_u64)blockIdx.x * tile;
    const ws_u64 end = first + tile < count ? first + tile : count;
    for (ws_u64 i = first + threadIdx.x; i < end; i += blockDim.x) {
        const ws_u32 nonce = start + (ws_u32)i;
        ws_u32 hash[8];
        ws_hash(job, nonce, hash);
        // The top word first: of a target worth sharing hardly a hash comes further.
        if (ws_swap(hash[0]) <= job.target[0] && ws_meets(hash, job)) {
            const ws_u32 at = atomicAdd(hits, 1u);
            if (at < ring_size) ring[2 * at] = nonce, ring[2 * at + 1] = 0;
        }
    }
}
