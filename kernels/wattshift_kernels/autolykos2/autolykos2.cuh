// The steps of Autolykos v2 that need no table in memory; see reference.py for the whole.
//
// A row is kept as the integer it stands for: four words of 64 bits, least significant first, so that
// summing rows needs no turning of bytes.
#pragma once
#include "blake2b.cuh"

// What a launch needs of its work; passed by value.
struct WsJob {
    ws_u64 table;       // address of the rows
    ws_u64 message[5];  // 40 bytes as Blake2b reads them (little-endian), the counted 32 bits zero
    ws_u64 reciprocal;  // floor((2^64 - 1) / rows)
    ws_u32 target[8];   // most significant word first
    ws_u32 rows;        // of the table
    ws_u32 height;      // of the block
};

#define WS_ELEMENTS 32     // rows that a hash sums
#define WS_M_WORDS 1024    // of the constant block M: the integers from 0, 8 bytes each, big-endian
#define WS_ROW_BLOCKS 65   // compressions of a row: 8 bytes of its own, then M
#define WS_ROW_BYTES 8200

WS_DEVICE ws_u32 ws_swap32(const ws_u32 x) {
#ifdef __CUDACC__
    return __byte_perm(x, 0, 0x0123);
#else
    return __builtin_bswap32(x);
#endif
}

WS_DEVICE ws_u64 ws_swap64(const ws_u64 x) {
    return (ws_u64)ws_swap32((ws_u32)x) << 32 | ws_swap32((ws_u32)(x >> 32));
}

WS_DEVICE ws_u64 ws_high64(const ws_u64 x, const ws_u64 y) {
#ifdef __CUDACC__
    return __umul64hi(x, y);
#else
    return (ws_u64)((unsigned __int128)x * y >> 64);
#endif
}

// x mod rows for any x: the reciprocal errs by less than one, so one correction is enough.
WS_DEVICE ws_u32 ws_row_of(const WsJob& job, const ws_u64 x) {
    const ws_u64 rest = x - ws_high64(x, job.reciprocal) * job.rows;
    return (ws_u32)(rest >= job.rows ? rest - job.rows : rest);
}

// The same of 32 bits; the upper half of the reciprocal is floor((2^32 - 1) / rows) or below 2^32 / rows.
WS_DEVICE ws_u32 ws_row_of32(const WsJob& job, const ws_u32 x) {
    const ws_u32 reciprocal = (ws_u32)(job.reciprocal >> 32);
    const ws_u32 rest = x - (ws_u32)((ws_u64)x * reciprocal >> 32) * job.rows;
    return rest >= job.rows ? rest - job.rows : rest;
}

// Words of M as Blake2b reads them, from number 16 * block - 1. None exceeds 1023, so all of them have
// a low half of zero and the high halves of one block differ by a constant.
template <typename Word>
WS_DEVICE void ws_row_words(Word m[16], const ws_u32 block) {
    const bool last = block == WS_ROW_BLOCKS - 1;
    const ws_u32 before = 16 * block - 1;
    const ws_u32 upper = (16 * block & 0xffu) << 24 | (block >> 4) << 16;
    const Word none = {};
    m[0] = none + ((ws_u64)((before & 0xffu) << 24 | (before >> 8) << 16) << 32);
#ifdef __CUDACC__
#pragma unroll
#endif
    for (ws_u32 i = 1; i < 16; ++i)
        m[i] = none + ((ws_u64)(last ? 0 : upper + ((i - 1) << 24)) << 32);
}

// Row `number` of the table: Blake2b(number || height || M) without its first byte. On a CPU the lanes
// of a vector are rows of their own.
template <typename Word>
WS_DEVICE void ws_row(const ws_u32 height, const Word number, Word row[4]) {
    const Word none = {};
    Word h[8], m[16];
    ws_blake2b_begin(h);
    // One body for all blocks: 34 KB of code instead of 2.2 MB.
#ifdef __CUDACC__
#pragma unroll 1
#endif
    for (ws_u32 block = 0; block < WS_ROW_BLOCKS; ++block) {
        const bool last = block == WS_ROW_BLOCKS - 1;
        ws_row_words(m, block);
        if (block == 0) m[0] = number + ((ws_u64)ws_swap32(height) << 32);
        ws_blake2b(h, m, last ? WS_ROW_BYTES : 128 * (block + 1ull), last ? ~0ull : 0ull);
    }
    for (int i = 0; i < 4; ++i) row[i] = none + h[i];
}

// From a digest, as Blake2b leaves it, to the row's integer.
WS_DEVICE void ws_row_integer(const ws_u64 digest[4], ws_u64 row[4]) {
    for (int i = 0; i < 4; ++i) row[i] = ws_swap64(digest[3 - i]);
    row[3] &= 0x00ffffffffffffffull;
}

// The row that a nonce looks at first.
WS_DEVICE ws_u32 ws_first_row(const WsJob& job, const ws_u64 last_word) {
    ws_u64 h[8];
    const ws_u64 m[16] = {job.message[0], job.message[1], job.message[2], job.message[3], last_word};
    ws_blake2b_begin(h);
    ws_blake2b(h, m, 40, ~0ull);
    return ws_row_of(job, ws_swap64(h[3]));
}

// The 32 bytes, as 8 big-endian words, whose windows of 4 bytes are the 32 indices.
WS_DEVICE void ws_seed(const WsJob& job, const ws_u64 last_word, const ws_u64 first[4],
                       ws_u32 seed[8]) {
    const ws_u64 d[4] = {ws_swap64(first[3]), ws_swap64(first[2]), ws_swap64(first[1]),
                         ws_swap64(first[0])};
    const ws_u64* const t = job.message;
    const ws_u64 m[16] = {d[0] >> 8 | d[1] << 56, d[1] >> 8 | d[2] << 56, d[2] >> 8 | d[3] << 56,
                          d[3] >> 8 | t[0] << 56, t[0] >> 8 | t[1] << 56, t[1] >> 8 | t[2] << 56,
                          t[2] >> 8 | t[3] << 56, t[3] >> 8 | last_word << 56, last_word >> 8};
    ws_u64 h[8];
    ws_blake2b_begin(h);
    ws_blake2b(h, m, 71, ~0ull);
    for (int i = 0; i < 4; ++i) {
        seed[2 * i] = ws_swap32((ws_u32)h[i]);
        seed[2 * i + 1] = ws_swap32((ws_u32)(h[i] >> 32));
    }
}

// The row of window `k`, bytes k to k + 3 of the seed followed by its own beginning.
WS_DEVICE ws_u32 ws_window(const WsJob& job, const ws_u32 seed[8], const int k) {
    const ws_u32 high = seed[k / 4], low = seed[(k / 4 + 1) % 8];
    const int bits = 8 * (k % 4);
    const ws_u32 window = bits == 0 ? high : high << bits | low >> (32 - bits);
    return ws_row_of32(job, window);
}

// The hash of the sum of rows: its 32 bytes as 8 big-endian words.
WS_DEVICE void ws_hit(const ws_u64 sum[4], ws_u32 digest[8]) {
    ws_u64 h[8];
    const ws_u64 m[16] = {ws_swap64(sum[3]), ws_swap64(sum[2]), ws_swap64(sum[1]),
                          ws_swap64(sum[0])};
    ws_blake2b_begin(h);
    ws_blake2b(h, m, 32, ~0ull);
    for (int i = 0; i < 4; ++i) {
        digest[2 * i] = ws_swap32((ws_u32)h[i]);
        digest[2 * i + 1] = ws_swap32((ws_u32)(h[i] >> 32));
    }
}

WS_DEVICE bool ws_meets(const ws_u32 digest[8], const ws_u32 target[8]) {
    for (int i = 0; i < 8; ++i)
        if (digest[i] != target[i]) return digest[i] < target[i];
    return true;
}

// The message's last word with the counted 32 bits, which are written big-endian.
WS_DEVICE ws_u64 ws_last_word(const WsJob& job, const ws_u32 nonce) {
    return job.message[4] | (ws_u64)ws_swap32(nonce) << 32;
}
