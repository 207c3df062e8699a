// Blake2b with a digest of 32 bytes (RFC 7693), one compression at a time.
//
// The same text compiles as CUDA and as plain C++. `Word` is a 64-bit integer, or on a CPU a vector of
// them, each lane a message of its own.
#pragma once

#ifdef __CUDACC__
#define WS_DEVICE __device__ __forceinline__
#else
#define WS_DEVICE static inline __attribute__((always_inline))
#endif

typedef unsigned int ws_u32;
typedef unsigned long long ws_u64;

template <int right, typename Word>
WS_DEVICE Word ws_turn(const Word x) {
    return (x >> right) | (x << (64 - right));
}

template <typename Word>
WS_DEVICE void ws_blake2b_mix(Word& a, Word& b, Word& c, Word& d, const Word& x, const Word& y) {
    a = a + b + x, d = ws_turn<32>(Word(d ^ a));
    c = c + d, b = ws_turn<24>(Word(b ^ c));
    a = a + b + y, d = ws_turn<16>(Word(d ^ a));
    c = c + d, b = ws_turn<63>(Word(b ^ c));
}

// Columns, then diagonals. The order of the message words is that of RFC 7693, section 2.7.
#define WS_BLAKE2B_ROUND(p0, p1, p2, p3, p4, p5, p6, p7, p8, p9, pa, pb, pc, pd, pe, pf) \
    ws_blake2b_mix(v[0], v[4], v[8], v[12], m[p0], m[p1]);                               \
    ws_blake2b_mix(v[1], v[5], v[9], v[13], m[p2], m[p3]);                               \
    ws_blake2b_mix(v[2], v[6], v[10], v[14], m[p4], m[p5]);                              \
    ws_blake2b_mix(v[3], v[7], v[11], v[15], m[p6], m[p7]);                              \
    ws_blake2b_mix(v[0], v[5], v[10], v[15], m[p8], m[p9]);                              \
    ws_blake2b_mix(v[1], v[6], v[11], v[12], m[pa], m[pb]);                              \
    ws_blake2b_mix(v[2], v[7], v[8], v[13], m[pc], m[pd]);                               \
    ws_blake2b_mix(v[3], v[4], v[9], v[14], m[pe], m[pf])

#define WS_IV0 0x6a09e667f3bcc908ull
#define WS_IV1 0xbb67ae8584caa73bull
#define WS_IV2 0x3c6ef372fe94f82bull
#define WS_IV3 0xa54ff53a5f1d36f1ull
#define WS_IV4 0x510e527fade682d1ull
#define WS_IV5 0x9b05688c2b3e6c1full
#define WS_IV6 0x1f83d9abfb41bd6bull
#define WS_IV7 0x5be0cd19137e2179ull

// The chaining value before the first block: no key, a digest of 32 bytes.
template <typename Word>
WS_DEVICE void ws_blake2b_begin(Word h[8]) {
    const Word none = {};
    h[0] = none + (WS_IV0 ^ 0x01010020ull), h[1] = none + WS_IV1;
    h[2] = none + WS_IV2, h[3] = none + WS_IV3;
    h[4] = none + WS_IV4, h[5] = none + WS_IV5;
    h[6] = none + WS_IV6, h[7] = none + WS_IV7;
}

// One block, in place. `bytes` counts the message up to its end or the end of this block; `last` is
// all ones in the last block and 0 before it. The digest is h[0..3], little-endian.
template <typename Word>
WS_DEVICE void ws_blake2b(Word h[8], const Word m[16], const ws_u64 bytes, const ws_u64 last) {
    const Word none = {};
    Word v[16] = {h[0],
                  h[1],
                  h[2],
                  h[3],
                  h[4],
                  h[5],
                  h[6],
                  h[7],
                  none + WS_IV0,
                  none + WS_IV1,
                  none + WS_IV2,
                  none + WS_IV3,
                  none + (WS_IV4 ^ bytes),
                  none + WS_IV5,
                  none + (WS_IV6 ^ last),
                  none + WS_IV7};
    WS_BLAKE2B_ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    WS_BLAKE2B_ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3);
    WS_BLAKE2B_ROUND(11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4);
    WS_BLAKE2B_ROUND(7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8);
    WS_BLAKE2B_ROUND(9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13);
    WS_BLAKE2B_ROUND(2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9);
    WS_BLAKE2B_ROUND(12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11);
    WS_BLAKE2B_ROUND(13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10);
    WS_BLAKE2B_ROUND(6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5);
    WS_BLAKE2B_ROUND(10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0);
    WS_BLAKE2B_ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    WS_BLAKE2B_ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3);
    for (int i = 0; i < 8; ++i) h[i] = h[i] ^ v[i] ^ v[i + 8];
}
