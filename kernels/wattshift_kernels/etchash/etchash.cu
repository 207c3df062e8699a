// The search: each block tries a tile of nonces.
#include "etchash.cuh"
#include "begins.cuh"

// Eight threads read a page together, 16 bytes each: one instruction asks for whole lines.
#define WS_TOGETHER 8
#define WS_THREADS 128
#ifndef WS_AT_ONCE
#define WS_AT_ONCE 4  // nonces of the eight whose pages are in flight at once: 8 or 4
#endif
#ifndef WS_BLOCKS
#define WS_BLOCKS 5  // on an SM, for which registers are left
#endif

// Where the threads that read together see each other's hashes, and where a thread keeps what it does
// not need while it mixes. 112 bytes apart, eight threads in a row touch all banks once.
struct WsShared {
    ws_u64 seed[8];
    ws_u32 mix_hash[8];
    volatile ws_u32 nonce, unused[3];
};

// The 64 pages of WS_AT_ONCE nonces, those of `group`, mixed by eight threads. Thread `part` of them
// has words 4 * part to 4 * part + 3 of every mix.
WS_DEVICE void ws_mix(const WsJob& job, WsShared* const group, const ws_u32 part) {
    ws_u32 mix[WS_AT_ONCE][4], head[WS_AT_ONCE];
    WS_UNROLL
    for (int n = 0; n < WS_AT_ONCE; ++n) {
        const ws_u64* const half = group[n].seed + 2 * (part % 4);
        const ws_u64 low = half[0], high = half[1];
        mix[n][0] = (ws_u32)low, mix[n][1] = (ws_u32)(low >> 32);
        mix[n][2] = (ws_u32)high, mix[n][3] = (ws_u32)(high >> 32);
        head[n] = (ws_u32)group[n].seed[0];
    }
    const ws_u64 table = job.table + 16 * part;
    WS_ROLLED
    for (ws_u32 access = 0; access < WS_ACCESSES; access += 4) {
        const ws_u32 owner = access / 4 % WS_TOGETHER;  // of words `access` to access + 3 of a mix
        WS_UNROLL
        for (ws_u32 i = 0; i < 4; ++i) {
            WsQuad quad[WS_AT_ONCE];
            WS_UNROLL
            for (int n = 0; n < WS_AT_ONCE; ++n) {
                const ws_u32 which = ws_fnv(head[n] ^ (access + i), mix[n][i]);
                const ws_u32 page = ws_modulo(which, job.pages, job.pages_reciprocal);
                quad[n] = ws_load(table + 128ull * __shfl_sync(~0u, page, owner, WS_TOGETHER));
            }
            WS_UNROLL
            for (int n = 0; n < WS_AT_ONCE; ++n)
                for (int word = 0; word < 4; ++word)
                    mix[n][word] = ws_fnv(mix[n][word], quad[n].word[word]);
        }
    }
    WS_UNROLL
    for (int n = 0; n < WS_AT_ONCE; ++n)
        group[n].mix_hash[part] =
            ws_fnv(ws_fnv(ws_fnv(mix[n][0], mix[n][1]), mix[n][2]), mix[n][3]);
}

// Every thread of a block goes through every turn, also past the end of its tile: the others need it.
// `hits` counts also those that no longer fit the ring.
extern "C" __global__ void __launch_bounds__(WS_THREADS, WS_BLOCKS)
    ws_search(const WsJob job, const ws_u32 start, const ws_u64 count, const ws_u32 tile,
              const volatile ws_u32* stop, ws_u32* __restrict__ ring, const ws_u32 ring_size,
              ws_u32* __restrict__ hits, unsigned char* __restrict__ ran) {
    __shared__ WsShared shared[WS_THREADS];
    __shared__ ws_u32 stopped;
    if (!ws_begins(stop, ran, &stopped)) return;
    WsShared* const mine = shared + threadIdx.x;
    const ws_u64 before = (ws_u64)blockIdx.x * tile;
    const ws_u32 tries = count - before < tile ? (ws_u32)(count - before) : tile;
    for (ws_u32 turn = 0; turn < tries; turn += blockDim.x) {
        mine->nonce = start + (ws_u32)before + turn + threadIdx.x;
        ws_u64 seed[8], mix_hash[4], digest[4];
        ws_seed(job, mine->nonce, seed);
        for (int word = 0; word < 8; ++word) mine->seed[word] = seed[word];
        __syncwarp();
        WS_ROLLED
        for (ws_u32 n = 0; n < WS_TOGETHER; n += WS_AT_ONCE) {
            const ws_u32 part = threadIdx.x % WS_TOGETHER;
            ws_mix(job, mine - part + n, part);
        }
        // From here on each thread reads only what is its own, so the next turn may begin.
        __syncwarp();
        for (int word = 0; word < 4; ++word)
            mix_hash[word] =
                (ws_u64)mine->mix_hash[2 * word + 1] << 32 | mine->mix_hash[2 * word];
        ws_digest(mine->seed, mix_hash, digest);
        if (turn + threadIdx.x < tries && ws_meets(digest, job.target)) {
            const ws_u32 at = atomicAdd(hits, 1u);
            if (at < ring_size) ring[2 * at] = mine->nonce, ring[2 * at + 1] = 0;
        }
    }
}
