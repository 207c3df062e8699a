// Nothing but random reads of whole rows, two threads a row: what the memory allows the search.
//
// Where they read is a cheap generator's. What they read is summed and written, so that it has to be
// read. The signature is that of a search: `count` threads read READS rows in pairs, and write `ring`.
#include "autolykos2.cuh"
#include "begins.cuh"
#include "half.cuh"

#ifndef WS_UNDER_WAY
#define WS_UNDER_WAY 8  // rows that a pair waits for at once
#endif
#ifndef WS_READS
#define WS_READS 256  // of a pair
#endif

extern "C" __global__ void __launch_bounds__(256)
    ws_search(const WsJob job, const ws_u32 start, const ws_u64 count, const ws_u32 tile,
              const volatile ws_u32* stop, ws_u32* __restrict__ ring, const ws_u32 ring_size,
              ws_u32* __restrict__ hits, unsigned char* __restrict__ ran) {
    __shared__ ws_u32 stopped;
    if (!ws_begins(stop, ran, &stopped)) return;
    const ws_u32 thread = blockIdx.x * blockDim.x + threadIdx.x;
    const ws_u64 half = job.table + 16 * (threadIdx.x & 1);
    ws_u32 state = (thread / 2 + start) * 2654435761u, sum = 0;
    for (int turn = 0; turn < WS_READS; turn += WS_UNDER_WAY) {
        WsHalf got[WS_UNDER_WAY];
#ifdef __CUDACC__
#pragma unroll
#endif
        for (int i = 0; i < WS_UNDER_WAY; ++i) {
            state = state * 747796405u + 2891336453u;
            const ws_u32 row = (ws_u32)((ws_u64)(state ^ state >> 15) * job.rows >> 32);
            got[i] = ws_load(half + 32ull * row);
        }
#ifdef __CUDACC__
#pragma unroll
#endif
        for (int i = 0; i < WS_UNDER_WAY; ++i)
            sum += got[i].word[0] ^ got[i].word[1] ^ got[i].word[2] ^ got[i].word[3];
    }
    if (thread < count && thread < 2 * ring_size) ring[thread] = sum;
    if (thread == 0) *hits = tile;
}
