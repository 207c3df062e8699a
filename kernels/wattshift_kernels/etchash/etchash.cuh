// Keccak as Ethash pads it, rows of the table from the cache, and the parts of a hash that read
// neither; see reference.py for the whole.
//
// The same text compiles as CUDA and as plain C++. Sources: Ethereum wiki, "Ethash"; FIPS 202.
#pragma once

#ifdef __CUDACC__
#define WS_DEVICE __device__ __forceinline__
#define WS_CONSTANT __constant__
#define WS_UNROLL _Pragma("unroll")
#define WS_ROLLED _Pragma("unroll 1")
#else
#define WS_DEVICE static inline __attribute__((always_inline))
#define WS_CONSTANT static const
#define WS_UNROLL _Pragma("GCC unroll 32")
#define WS_ROLLED
#endif

typedef unsigned int ws_u32;
typedef unsigned long long ws_u64;

// What a launch needs of its work; passed by value.
struct WsJob {
    ws_u64 table;             // address of the pages
    ws_u64 cache;             // address of the cache's rows
    ws_u64 header[4];         // header hash as Keccak reads it (little-endian)
    ws_u32 target[8];         // most significant word first
    ws_u32 nonce_high;        // the half of the nonce that is not counted
    ws_u32 pages;             // of the table, 128 bytes each
    ws_u32 pages_reciprocal;  // floor((2^32 - 1) / pages)
    ws_u32 rows;              // of the cache, 64 bytes each
    ws_u32 rows_reciprocal;   // likewise
    ws_u32 unused;
};

#define WS_PRIME 0x01000193u
#define WS_PARENTS 256
#define WS_ACCESSES 64
#define WS_LAST_PAD 0x8000000000000000ull

WS_CONSTANT ws_u64 WS_IOTA[24] = {
    0x0000000000000001, 0x0000000000008082, 0x800000000000808a, 0x8000000080008000,
    0x000000000000808b, 0x0000000080000001, 0x8000000080008081, 0x8000000000008009,
    0x000000000000008a, 0x0000000000000088, 0x0000000080008009, 0x000000008000000a,
    0x000000008000808b, 0x800000000000008b, 0x8000000000008089, 0x8000000000008003,
    0x8000000000008002, 0x8000000000000080, 0x000000000000800a, 0x800000008000000a,
    0x8000000080008081, 0x8000000000008080, 0x0000000080000001, 0x8000000080008008};

// By lane x + 5 y: how far rho turns it, and where pi moves it.
#define WS_RHO {0, 1, 62, 28, 27, 36, 44, 6, 55, 20, 3, 10, 43, 25, 39, 41, 45, 15, 21, 8, 18, 2, 61, 56, 14}
#define WS_PI {0, 10, 20, 5, 15, 16, 1, 11, 21, 6, 7, 17, 2, 12, 22, 23, 8, 18, 3, 13, 14, 24, 9, 19, 4}

WS_DEVICE ws_u64 ws_turn(const ws_u64 x, const int left) {
    return left == 0 ? x : x << left | x >> (64 - left);
}

WS_DEVICE void ws_keccak_round(ws_u64 a[25], const ws_u64 iota) {
    constexpr int rho[25] = WS_RHO, pi[25] = WS_PI;
    ws_u64 b[25], c[5];
    WS_UNROLL
    for (int x = 0; x < 5; ++x) c[x] = a[x] ^ a[x + 5] ^ a[x + 10] ^ a[x + 15] ^ a[x + 20];
    WS_UNROLL
    for (int i = 0; i < 25; ++i) {
        const ws_u64 turned = ws_turn(c[(i % 5 + 1) % 5], 1);
        b[pi[i]] = ws_turn(a[i] ^ c[(i % 5 + 4) % 5] ^ turned, rho[i]);
    }
    WS_UNROLL
    for (int i = 0; i < 25; ++i) {
        const int row = i / 5 * 5, x = i % 5;
        a[i] = b[i] ^ (~b[row + (x + 1) % 5] & b[row + (x + 2) % 5]);
    }
    a[0] ^= iota;
}

WS_DEVICE void ws_keccak(ws_u64 a[25]) {
    WS_ROLLED
    for (int round = 0; round < 24; ++round) ws_keccak_round(a, WS_IOTA[round]);
}

// Keccak-512 of 64 bytes, in place.
WS_DEVICE void ws_keccak512(ws_u64 words[8]) {
    ws_u64 a[25] = {words[0], words[1], words[2], words[3], words[4],
                    words[5], words[6], words[7], WS_LAST_PAD | 1};
    ws_keccak(a);
    WS_UNROLL
    for (int i = 0; i < 8; ++i) words[i] = a[i];
}

// The seed of a nonce: Keccak-512 of header hash and nonce.
WS_DEVICE void ws_seed(const WsJob& job, const ws_u32 nonce, ws_u64 seed[8]) {
    ws_u64 a[25] = {job.header[0], job.header[1], job.header[2], job.header[3],
                    (ws_u64)job.nonce_high << 32 | nonce, 1, 0, 0, WS_LAST_PAD};
    ws_keccak(a);
    WS_UNROLL
    for (int i = 0; i < 8; ++i) seed[i] = a[i];
}

// Keccak-256 of seed and mix hash, as 4 little-endian words.
WS_DEVICE void ws_digest(const ws_u64 seed[8], const ws_u64 mix_hash[4], ws_u64 digest[4]) {
    ws_u64 a[25] = {seed[0], seed[1], seed[2], seed[3], seed[4], seed[5], seed[6], seed[7],
                    mix_hash[0], mix_hash[1], mix_hash[2], mix_hash[3], 1, 0, 0, 0, WS_LAST_PAD};
    ws_keccak(a);
    WS_UNROLL
    for (int i = 0; i < 4; ++i) digest[i] = a[i];
}

WS_DEVICE ws_u32 ws_fnv(const ws_u32 x, const ws_u32 y) { return x * WS_PRIME ^ y; }

// x mod n, by floor((2^32 - 1) / n): it errs by less than one, so one correction is enough.
WS_DEVICE ws_u32 ws_modulo(const ws_u32 x, const ws_u32 n, const ws_u32 reciprocal) {
    const ws_u32 rest = x - (ws_u32)((ws_u64)x * reciprocal >> 32) * n;
    return rest >= n ? rest - n : rest;
}

struct WsQuad {  // 16 bytes, what a thread reads at once
    ws_u32 word[4];
};

WS_DEVICE WsQuad ws_load(const ws_u64 address) {
    WsQuad quad;
#ifdef __CUDACC__
    asm volatile("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(quad.word[0]), "=r"(quad.word[1]), "=r"(quad.word[2]), "=r"(quad.word[3])
                 : "l"(address));
#else
    quad = *(const WsQuad*)address;
#endif
    return quad;
}

// Row `number` of the table: a row of the cache, mixed with 256 of its rows.
WS_DEVICE void ws_table_row(const WsJob& job, const ws_u32 number, ws_u64 words[8]) {
    ws_u32 row[16];
    const ws_u64 first = job.cache + 64ull * ws_modulo(number, job.rows, job.rows_reciprocal);
    WS_UNROLL
    for (int i = 0; i < 4; ++i) {
        const WsQuad quad = ws_load(first + 16 * i);
        words[2 * i] = (ws_u64)quad.word[1] << 32 | quad.word[0];
        words[2 * i + 1] = (ws_u64)quad.word[3] << 32 | quad.word[2];
    }
    words[0] ^= number;
    ws_keccak512(words);
    WS_UNROLL
    for (int i = 0; i < 16; ++i) row[i] = (ws_u32)(words[i / 2] >> 32 * (i % 2));
    WS_ROLLED
    for (ws_u32 turn = 0; turn < WS_PARENTS; turn += 16) {
        WS_UNROLL
        for (ws_u32 i = 0; i < 16; ++i) {
            const ws_u32 which = ws_fnv(number ^ (turn + i), row[i]);
            const ws_u64 parent =
                job.cache + 64ull * ws_modulo(which, job.rows, job.rows_reciprocal);
            WsQuad quad[4];
            WS_UNROLL
            for (int q = 0; q < 4; ++q) quad[q] = ws_load(parent + 16 * q);
            WS_UNROLL
            for (int word = 0; word < 16; ++word)
                row[word] = ws_fnv(row[word], quad[word / 4].word[word % 4]);
        }
    }
    WS_UNROLL
    for (int i = 0; i < 8; ++i) words[i] = (ws_u64)row[2 * i + 1] << 32 | row[2 * i];
    ws_keccak512(words);
}

WS_DEVICE ws_u32 ws_swap(const ws_u32 x) {
#ifdef __CUDACC__
    return __byte_perm(x, 0, 0x0123);
#else
    return __builtin_bswap32(x);
#endif
}

// Whether a digest, read as a big-endian integer, does not exceed the target.
WS_DEVICE bool ws_meets(const ws_u64 digest[4], const ws_u32 target[8]) {
    WS_UNROLL
    for (int i = 0; i < 8; ++i) {
        const ws_u32 word = ws_swap((ws_u32)(digest[i / 2] >> 32 * (i % 2)));
        if (word != target[i]) return word < target[i];
    }
    return true;
}
