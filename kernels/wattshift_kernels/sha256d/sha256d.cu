// The launch: each thread tries nonces at a stride of the whole grid and reports hits to a ring.
#include "sha256d.cuh"

// `hits` counts every hit, also those that no longer fit the ring, so that an overflow shows.
// `stop` is read at block entry: queued blocks of a stopped launch end at once, and `tried` counts
// the nonces that were really hashed.
extern "C" __global__ void ws_search(const WsJob job, const ws_u32 start,
                                     const unsigned long long count,
                                     const volatile ws_u32* __restrict__ stop,
                                     ws_u32* __restrict__ hits, ws_u32* __restrict__ ring,
                                     const ws_u32 ring_size,
                                     unsigned long long* __restrict__ tried) {
    if (*stop) return;
    const unsigned long long stride = (unsigned long long)gridDim.x * blockDim.x;
    unsigned long long mine = 0;
    for (unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x; i < count;
         i += stride) {
        const ws_u32 nonce = start + (ws_u32)i;
        ws_u32 digest[8];
        ws_header_hash(job, nonce, digest);
        ++mine;
        if (ws_meets(digest, job.target)) {
            const ws_u32 at = atomicAdd(hits, 1u);
            if (at < ring_size) ring[at] = nonce;
        }
    }
    if (mine) atomicAdd(tried, mine);
}
