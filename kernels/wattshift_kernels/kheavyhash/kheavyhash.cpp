// The CPU's search: WS_LANES hashes side by side, but for the matrix, which takes them one by one.
// To its caller it is a launch of one block (see kernel.py), except that of a hash it looks at the
// top word alone.
#include "kheavyhash.cuh"

typedef unsigned short ws_u16;

// The matrix by columns, so that a column is multiplied by one nibble in a few instructions.
struct WsColumns {
    ws_u16 at[64][64];
};

static void ws_turn_over(const ws_u32 packed[512], WsColumns& columns) {
    for (int row = 0; row < 64; ++row)
        for (int column = 0; column < 64; ++column)
            columns.at[column][row] = packed[8 * row + column / 8] >> column % 8 * 4 & 15;
}

// See ws_product. No sum exceeds 64 * 15 * 15, so words of 16 bits hold them.
static void ws_joined(const WsColumns& columns, const ws_u64 hash[4], ws_u64 joined[4]) {
    ws_u16 sums[64] = {};
    for (int column = 0; column < 64; ++column) {
        // Columns go along the hash's bytes, the high nibble of each first.
        const ws_u16 nibble = hash[column / 16] >> (column % 16 ^ 1) * 4 & 15;
        for (int row = 0; row < 64; ++row) sums[row] += columns.at[column][row] * nibble;
    }
    for (int i = 0; i < 4; ++i) {
        ws_u64 word = 0;
        for (int k = 0; k < 16; ++k) word |= (ws_u64)(sums[16 * i + k] >> 10) << (k ^ 1) * 4;
        joined[i] = hash[i] ^ word;
    }
}

extern "C" void ws_search(const WsJob job, const ws_u32 start, const ws_u64 count, const ws_u32,
                          const volatile ws_u32*, ws_u32* ring, const ws_u32 ring_size,
                          ws_u32* hits, unsigned char*) {
    WsColumns columns;
    ws_turn_over(job.matrix, columns);
    for (ws_u64 first = 0; first < count; first += WS_LANES) {
        ws_lane nonce, hash[4];
        for (int i = 0; i < WS_LANES; ++i) nonce[i] = start + (ws_u32)(first + i);
        ws_inner(job, nonce, hash);
        for (int i = 0; i < WS_LANES; ++i) {
            const ws_u64 one[4] = {hash[0][i], hash[1][i], hash[2][i], hash[3][i]};
            ws_u64 joined[4];
            ws_joined(columns, one, joined);
            for (int k = 0; k < 4; ++k) hash[k][i] = joined[k];
        }
        ws_outer(hash, job.power);
        for (int i = 0; i < WS_LANES && first + i < count; ++i) {
            if (hash[3][i] >> 32 > job.target[0]) continue;
            const ws_u32 at = (*hits)++;
            if (at < ring_size) ring[2 * at] = (ws_u32)nonce[i], ring[2 * at + 1] = 0;
        }
    }
}
