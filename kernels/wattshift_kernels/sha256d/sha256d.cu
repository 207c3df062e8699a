// The launch: each block tries a tile of nonces of its own and reports hits to a ring.
#include "sha256d.cuh"

// `stop` lies in the host's memory and is read once per block, at its entry: queued blocks of a
// stopped launch end at once, and a block that goes on tries its whole tile. `ran` has a byte per
// block, which says that it did, so what a stopped launch left is known to the nonce.
// `hits` counts every hit, also those that no longer fit the ring, so that an overflow shows.
extern "C" __global__ void ws_search(const WsJob job, const ws_u32 start,
                                     const unsigned long long count, const ws_u32 tile,
                                     const volatile ws_u32* stop, ws_u32* __restrict__ ring,
                                     const ws_u32 ring_size, ws_u32* __restrict__ hits,
                                     unsigned char* __restrict__ ran) {
    __shared__ ws_u32 stopped;  // one answer for the whole block, and one read over the bus
    if (threadIdx.x == 0) {
        stopped = *stop;
        if (!stopped) ran[blockIdx.x] = 1;
    }
    __syncthreads();
    if (stopped) return;
    const unsigned long long first = (unsigned long long)blockIdx.x * tile;
    const unsigned long long end = first + tile < count ? first + tile : count;
    for (unsigned long long i = first + threadIdx.x; i < end; i += blockDim.x) {
        const ws_u32 nonce = start + (ws_u32)i;
        ws_u32 digest[8];
        ws_header_hash(job, nonce, digest);
        if (ws_meets(digest, job.target)) {
            const ws_u32 at = atomicAdd(hits, 1u);
            if (at < ring_size) ring[at] = nonce;
        }
    }
}
