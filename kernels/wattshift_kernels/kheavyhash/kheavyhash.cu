// The launch: each block tries a tile of nonces of its own and reports hits to a ring.
#include "kheavyhash.cuh"

// What the words beside the job mean, and why a block reads the stop word once: see launches.py.
extern "C" __global__ void WS_BOUNDS ws_search(const WS_GRID_CONSTANT WsJob job, const ws_u32 start,
                                               const ws_u64 count, const ws_u32 tile,
                                               const volatile ws_u32* stop,
                                               ws_u32* __restrict__ ring, const ws_u32 ring_size,
                                               ws_u32* __restrict__ hits,
                                               unsigned char* __restrict__ ran) {
    __shared__ ws_u32 stopped;  // one answer for the whole block, and one read over the bus
    __shared__ WsMatrix matrix;
    if (threadIdx.x == 0) {
        stopped = *stop;
        if (!stopped) ran[blockIdx.x] = 1;
    }
#ifdef __CUDACC__
    for (ws_u32 i = threadIdx.x; i < 512; i += blockDim.x) ws_unpack(job.matrix[i], matrix.at + 2 * i);
#else
    if (threadIdx.x == 0)  // as C++ the threads run one after the other
        for (ws_u32 i = 0; i < 512; ++i) ws_unpack(job.matrix[i], matrix.at + 2 * i);
#endif
    __syncthreads();
    if (stopped) return;
    const ws_u64 first = (ws_u64)blockIdx.x * tile;
    const ws_u64 end = first + tile < count ? first + tile : count;
    for (ws_u64 i = first + threadIdx.x; i < end; i += blockDim.x) {
        const ws_u32 nonce = start + (ws_u32)i;
        ws_lane hash[4];
        ws_inner(job, nonce, hash);
        ws_product(matrix.at, hash, job.power);
        ws_outer(hash, job.power);
        if (hash[3].hi <= job.target[0] && ws_meets(hash, job.target)) {
            const ws_u32 at = atomicAdd(hits, 1u);
            if (at < ring_size) ring[2 * at] = nonce, ring[2 * at + 1] = 0;
        }
    }
}
