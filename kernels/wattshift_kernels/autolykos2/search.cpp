// The search of a CPU, which keeps no table: every row that a hash sums is made for it, a vector of
// them at once. Its signature is that of the launch on a GPU.
#include "autolykos2.cuh"

#define WS_LANES 8

typedef ws_u64 ws_lanes __attribute__((vector_size(8 * WS_LANES)));

// Rows of the table, a lane each.
WS_DEVICE void ws_rows_of(const WsJob& job, const ws_u32 numbers[WS_LANES],
                          ws_u64 rows[WS_LANES][4]) {
    ws_lanes number, digest[4];
    for (int lane = 0; lane < WS_LANES; ++lane) number[lane] = ws_swap32(numbers[lane]);
    ws_row<ws_lanes>(job.height, number, digest);
    for (int lane = 0; lane < WS_LANES; ++lane) {
        const ws_u64 one[4] = {digest[0][lane], digest[1][lane], digest[2][lane], digest[3][lane]};
        ws_row_integer(one, rows[lane]);
    }
}

WS_DEVICE void ws_add(ws_u64 sum[4], const ws_u64 row[4]) {
    unsigned __int128 carry = 0;
    for (int i = 0; i < 4; ++i) {
        carry += (unsigned __int128)sum[i] + row[i];
        sum[i] = (ws_u64)carry;
        carry >>= 64;
    }
}

extern "C" void ws_search(const WsJob job, const ws_u32 start, const ws_u64 count, const ws_u32,
                          const volatile ws_u32*, ws_u32* ring, const ws_u32 ring_size,
                          ws_u32* hits, unsigned char* ran) {
    *ran = 1;
    for (ws_u64 begin = 0; begin < count; begin += WS_LANES) {
        ws_u32 numbers[WS_LANES];
        ws_u64 first[WS_LANES][4], rows[WS_LANES][4];
        for (int lane = 0; lane < WS_LANES; ++lane)
            numbers[lane] =
                ws_first_row(job, ws_last_word(job, start + (ws_u32)begin + lane));
        ws_rows_of(job, numbers, first);
        for (int lane = 0; lane < WS_LANES && begin + lane < count; ++lane) {
            const ws_u32 nonce = start + (ws_u32)begin + lane;
            ws_u32 seed[8], digest[8];
            ws_u64 sum[4] = {};
            ws_seed(job, ws_last_word(job, nonce), first[lane], seed);
            for (int k = 0; k < WS_ELEMENTS; k += WS_LANES) {
                for (int i = 0; i < WS_LANES; ++i) numbers[i] = ws_window(job, seed, k + i);
                ws_rows_of(job, numbers, rows);
                for (int i = 0; i < WS_LANES; ++i) ws_add(sum, rows[i]);
            }
            ws_hit(sum, digest);
            if (!ws_meets(digest, job.target)) continue;
            const ws_u32 at = (*hits)++;
            if (at < ring_size) ring[2 * at] = nonce, ring[2 * at + 1] = 0;
        }
    }
}
