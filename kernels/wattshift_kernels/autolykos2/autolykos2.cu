// The search: each block tries a tile of nonces.
#include "autolykos2.cuh"
#include "begins.cuh"
#include "half.cuh"

#define WS_ROWS_AT_ONCE 4  // windows whose rows are asked for before the first is summed
#ifndef WS_BLOCKS
#define WS_BLOCKS 4  // on an SM, for which registers are left
#endif

struct WsSum {  // of halves of rows, and what was carried out of it
    ws_u32 word[4], carried;
};

WS_DEVICE void ws_add(WsSum& sum, const WsHalf& half) {
#ifdef __CUDACC__
    asm("add.cc.u32 %0, %0, %5; addc.cc.u32 %1, %1, %6; addc.cc.u32 %2, %2, %7;"
        "addc.cc.u32 %3, %3, %8; addc.u32 %4, %4, 0;"
        : "+r"(sum.word[0]), "+r"(sum.word[1]), "+r"(sum.word[2]), "+r"(sum.word[3]),
          "+r"(sum.carried)
        : "r"(half.word[0]), "r"(half.word[1]), "r"(half.word[2]), "r"(half.word[3]));
#else
    ws_u64 carry = 0;
    for (int i = 0; i < 4; ++i) {
        carry += (ws_u64)sum.word[i] + half.word[i];
        sum.word[i] = (ws_u32)carry;
        carry >>= 32;
    }
    sum.carried += (ws_u32)carry;
#endif
}

WS_DEVICE ws_u32 ws_from_neighbour(const ws_u32 x) { return __shfl_xor_sync(~0u, x, 1); }

// The row that a thread looks at first, read by itself.
WS_DEVICE void ws_read_row(const WsJob& job, const ws_u32 number, ws_u64 row[4]) {
    const ws_u64 address = job.table + 32ull * number;
    const WsHalf low = ws_load(address), high = ws_load(address + 16);
    row[0] = (ws_u64)low.word[1] << 32 | low.word[0];
    row[1] = (ws_u64)low.word[3] << 32 | low.word[2];
    row[2] = (ws_u64)high.word[1] << 32 | high.word[0];
    row[3] = (ws_u64)high.word[3] << 32 | high.word[2];
}

// Sums the rows of this thread and its neighbour. The even one of the two reads the low half of every
// row of both, the odd one the high half: what one instruction asks of a row is its whole sector.
WS_DEVICE void ws_sum(const WsJob& job, const ws_u32 seed[8], ws_u64 sum[4]) {
    const bool odd = threadIdx.x & 1;
    const ws_u64 table = job.table + (odd ? 16 : 0);
    WsSum evens = {}, odds = {};  // halves of the even thread's sum and of the odd one's
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int k = 0; k < WS_ELEMENTS; k += WS_ROWS_AT_ONCE) {
        WsHalf even_half[WS_ROWS_AT_ONCE], odd_half[WS_ROWS_AT_ONCE];
#ifdef __CUDACC__
#pragma unroll
#endif
        for (int i = 0; i < WS_ROWS_AT_ONCE; ++i) {
            const ws_u32 mine = ws_window(job, seed, k + i), other = ws_from_neighbour(mine);
            even_half[i] = ws_load(table + 32ull * (odd ? other : mine));
            odd_half[i] = ws_load(table + 32ull * (odd ? mine : other));
        }
#ifdef __CUDACC__
#pragma unroll
#endif
        for (int i = 0; i < WS_ROWS_AT_ONCE; ++i) {
            ws_add(evens, even_half[i]);
            ws_add(odds, odd_half[i]);
        }
    }
    WsSum low, high;
    for (int i = 0; i < 4; ++i) {
        const ws_u32 got = ws_from_neighbour(odd ? evens.word[i] : odds.word[i]);
        low.word[i] = odd ? got : evens.word[i], high.word[i] = odd ? odds.word[i] : got;
    }
    const ws_u32 got = ws_from_neighbour(odd ? evens.carried : odds.carried);
    const WsHalf carry = {{odd ? got : evens.carried, 0, 0, 0}};
    ws_add(high, carry);
    sum[0] = (ws_u64)low.word[1] << 32 | low.word[0];
    sum[1] = (ws_u64)low.word[3] << 32 | low.word[2];
    sum[2] = (ws_u64)high.word[1] << 32 | high.word[0];
    sum[3] = (ws_u64)high.word[3] << 32 | high.word[2];
}

// While some threads of an SM wait for their rows the others hash.
// Every thread of a block goes through every turn, also past the end of its tile: neighbours need each
// other. `hits` counts also those that no longer fit the ring.
extern "C" __global__ void __launch_bounds__(256, WS_BLOCKS)
    ws_search(const WsJob job, const ws_u32 start, const ws_u64 count, const ws_u32 tile,
              const volatile ws_u32* stop, ws_u32* __restrict__ ring, const ws_u32 ring_size,
              ws_u32* __restrict__ hits, unsigned char* __restrict__ ran) {
    __shared__ ws_u32 stopped;
    if (!ws_begins(stop, ran, &stopped)) return;
    const ws_u64 first = (ws_u64)blockIdx.x * tile;
    const ws_u64 end = first + tile < count ? first + tile : count;
    for (ws_u64 turn = first; turn < end; turn += blockDim.x) {
        const ws_u64 i = turn + threadIdx.x;
        const ws_u32 nonce = start + (ws_u32)i;
        const ws_u64 last_word = ws_last_word(job, nonce);
        ws_u64 row[4], sum[4];
        ws_u32 seed[8], digest[8];
        ws_read_row(job, ws_first_row(job, last_word), row);
        ws_seed(job, last_word, row, seed);
        ws_sum(job, seed, sum);
        ws_hit(sum, digest);
        if (i < end && ws_meets(digest, job.target)) {
            const ws_u32 at = atomicAdd(hits, 1u);
            if (at < ring_size) ring[2 * at] = nonce, ring[2 * at + 1] = 0;
        }
    }
}
