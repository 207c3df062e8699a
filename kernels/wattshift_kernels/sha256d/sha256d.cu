// The launch: each block tries a tile of nonces of its own and reports hits to a ring.
//
// source.py puts the head before this text, and into it the rounds of one variant: ws_try, which
// answers with a bit for each way (version) whose hash meets the target.

WS_DEVICE void ws_report(ws_u32 nonce, ws_u32 found, ws_u32* ring, ws_u32 ring_size, ws_u32* hits) {
    for (ws_u32 way = 0; found; ++way, found >>= 1) {
        if (!(found & 1u)) continue;
        const ws_u32 at = atomicAdd(hits, 1u);
        if (at < ring_size) ring[2 * at] = nonce, ring[2 * at + 1] = way;
    }
}

// First nonce and size of this block's tile; worked out anew wherever it is wanted, since a register
// kept for it would be one too many.
WS_DEVICE ws_u32 ws_tile(ws_u32 start, unsigned long long count, ws_u32 tile, ws_u32* size) {
    ws_u32 block = blockIdx.x;
    WS_FORGET(block);
    const unsigned long long first = (unsigned long long)block * tile;
    *size = (ws_u32)(first + tile < count ? tile : count - first);
    return start + (ws_u32)first;
}

// `stop` lies in the host's memory and is read once per block, at its entry: queued blocks of a
// stopped launch end at once, and a block that goes on tries its whole tile. `ran` has a byte per
// block, which says that it did, so what a stopped launch left is known to the nonce.
// `ring` has two words a hit: the nonce, and which of the job's ways it was found with.
// `hits` counts every hit, also those that no longer fit the ring, so that an overflow shows.
extern "C" __global__ void __launch_bounds__(WS_THREADS, WS_BLOCKS_PER_SM)
    ws_search(const __grid_constant__ WsJob job, const ws_u32 start, const unsigned long long count,
              const ws_u32 tile, const volatile ws_u32* stop, ws_u32* __restrict__ ring,
              const ws_u32 ring_size, ws_u32* __restrict__ hits, unsigned char* __restrict__ ran) {
    __shared__ ws_u32 stopped;  // one answer for the whole block, and one read over the bus
    if (threadIdx.x == 0) {
        stopped = *stop;
        if (!stopped) ran[blockIdx.x] = 1;
    }
    __syncthreads();
    if (stopped) return;
    for (ws_u32 i = threadIdx.x;;) {
        ws_u32 size;
        const ws_u32 base = ws_tile(start, count, tile, &size);
        if (i >= size) return;
        ws_u32 n = ws_swap(base + i);
        const ws_u32 found = ws_try(job, n);
        const ws_u32 nonce = ws_swap(n);
        if (found) ws_report(nonce, found, ring, ring_size, hits);
        i = nonce - ws_tile(start, count, tile, &size) + blockDim.x;
    }
}
