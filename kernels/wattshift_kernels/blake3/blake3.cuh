// Alephium's hash of a job and a nonce: BLAKE3 of the nonce and the header, and BLAKE3 of that.
//
// The same text compiles as CUDA, as plain C++ (without __CUDACC__) so that its arithmetic is
// tested on a machine without a GPU, and with WS_LANES=n as C++ over vectors of n hashes, which is
// the CPU's search. Source: the BLAKE3 paper, 2.2 and 2.3.
//
// The counted word is number 5 of the first block, so of that block's first round three columns and
// a half, and the start of each diagonal, are done once per job on the host.
//
// Every mixing step adds, xors and turns. A GPU xors and turns on one pipe (ALU), which would bound
// this hash; so all sums go to the pipe that multiplies (FMA), as x * 1 + y with a 1 that the
// compiler cannot know. A turn by s is also a product with 2^s, the sum of its two words:
// WS_FMA_TURNS says in how many of a round's eight mixings one of the four turns goes that way too.
#pragma once

#ifdef __CUDACC__
#define WS_DEVICE __device__ __forceinline__
#define WS_UNROLL _Pragma("unroll")
#define WS_ROLLED _Pragma("unroll 1")
#define WS_GRID_CONSTANT __grid_constant__
#define WS_BOUNDS __launch_bounds__(256)
#else
#define WS_ROLLED
#define WS_GRID_CONSTANT
#define WS_BOUNDS
#ifdef WS_LANES
#define WS_DEVICE static inline __attribute__((always_inline))
#define WS_UNROLL _Pragma("GCC unroll 16")
#else
#define WS_DEVICE static inline
#define WS_UNROLL
#endif
#endif
#ifndef WS_FMA_ADDS
#define WS_FMA_ADDS 1
#endif
#ifndef WS_FMA_TURNS
#define WS_FMA_TURNS 4
#endif

typedef unsigned int ws_u32;
typedef unsigned long long ws_u64;
#ifdef WS_LANES
typedef ws_u32 ws_word __attribute__((vector_size(4 * WS_LANES)));
#else
typedef ws_u32 ws_word;
#endif

// What a launch needs of its work; passed by value. Words as BLAKE3 reads them (little-endian).
struct WsJob {
    ws_u32 first[17];     // the state within the first round; see ws_first
    ws_u32 one;           // 1
    ws_u32 power[32];     // 2^i
    ws_u32 target[8];     // most significant word first, as the hash's bytes stand
    ws_u32 chain;         // the low bits of the hash that say which chain a block is on
    ws_u32 blocks;        // of nonce and header
    ws_u32 last_bytes;    // in the last of them
    ws_u32 message[256];  // those blocks, the counted word 0
};

#define WS_IV                                                                                   \
    {0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au, 0x510e527fu, 0x9b05688cu, 0x1f83d9abu, \
     0x5be0cd19u}
// How the words of a block are reordered after each round.
#define WS_ORDER {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8}
#define WS_CHUNK_END_ROOT 10u
#define WS_WHOLE_ROOT 11u
#define WS_CHAINS 16u

WS_DEVICE ws_word ws_sum(ws_word x, ws_word y, const WsJob& job) {
#if defined(WS_LANES)
    return (void)job, x + y;
#elif defined(__CUDACC__)
    if (!WS_FMA_ADDS) return x + y;
    asm("mad.lo.u32 %0, %0, %1, %2;" : "+r"(x) : "r"(job.one), "r"(y));
    return x;
#else
    return WS_FMA_ADDS ? x * job.one + y : x + y;
#endif
}

WS_DEVICE ws_word ws_turn(ws_word x, int right, bool multiply, const WsJob& job) {
#ifndef WS_LANES
    if (multiply) {
        const ws_u32 power = job.power[32 - right];
#ifdef __CUDACC__
        ws_u32 high;
        asm("mul.hi.u32 %0, %1, %2;" : "=r"(high) : "r"(x), "r"(power));
        asm("mad.lo.u32 %0, %0, %1, %2;" : "+r"(x) : "r"(power), "r"(high));
        return x;
#else
        return x * power + (ws_u32)((ws_u64)x * power >> 32);
#endif
    }
#endif
    return x >> right | x << (32 - right);
}

// What follows the two sums of a mixing step. `some`: whether its last turn is a product.
WS_DEVICE void ws_upper(ws_word& a, ws_word& b, ws_word& c, ws_word& d, const WsJob& job) {
    d = ws_turn(d ^ a, 16, false, job);
    c = ws_sum(c, d, job);
    b = ws_turn(b ^ c, 12, false, job);
}

WS_DEVICE void ws_lower(ws_word& a, ws_word& b, ws_word& c, ws_word& d, bool some,
                        const WsJob& job) {
    d = ws_turn(d ^ a, 8, false, job);
    c = ws_sum(c, d, job);
    b = ws_turn(b ^ c, 7, some, job);
}

WS_DEVICE void ws_mix(ws_word& a, ws_word& b, ws_word& c, ws_word& d, ws_word x, ws_word y,
                      bool some, const WsJob& job) {
    a = ws_sum(ws_sum(a, b, job), x, job);
    ws_upper(a, b, c, d, job);
    a = ws_sum(ws_sum(a, b, job), y, job);
    ws_lower(a, b, c, d, some, job);
}

WS_DEVICE void ws_reorder(ws_word m[16]) {
    constexpr int order[16] = WS_ORDER;
    ws_word was[16];
    WS_UNROLL
    for (int i = 0; i < 16; ++i) was[i] = m[i];
    WS_UNROLL
    for (int i = 0; i < 16; ++i) m[i] = was[order[i]];
}

WS_DEVICE void ws_rounds(ws_word v[16], ws_word m[16], int from, const WsJob& job) {
    WS_UNROLL
    for (int round = from; round < 7; ++round) {
        WS_UNROLL
        for (int i = 0; i < 4; ++i)
            ws_mix(v[i], v[4 + i], v[8 + i], v[12 + i], m[2 * i], m[2 * i + 1], i < WS_FMA_TURNS,
                   job);
        WS_UNROLL
        for (int i = 0; i < 4; ++i)
            ws_mix(v[i], v[4 + (i + 1) % 4], v[8 + (i + 2) % 4], v[12 + (i + 3) % 4], m[8 + 2 * i],
                   m[9 + 2 * i], 4 + i < WS_FMA_TURNS, job);
        ws_reorder(m);
    }
}

// The first block, whose word 5 is `counted`. In `job.first` stands the state after the columns, of
// column 2 without the counted word and what follows it. v0 and v15, v1 and v3 have begun their
// diagonals; the last word is v7 with what is added to it and v2.
WS_DEVICE void ws_first(const WsJob& job, ws_word counted, ws_word cv[8]) {
    ws_word v[16], m[16];
    WS_UNROLL
    for (int i = 0; i < 16; ++i) {
        v[i] = ws_word{} + job.first[i];
        m[i] = i == 5 ? counted : ws_word{} + job.message[i];
    }
    v[2] = v[2] + counted;
    ws_lower(v[2], v[6], v[10], v[14], false, job);

    v[10] = ws_sum(v[10], v[15], job);  // v0 + v5 + m8 and the turn of v15 are done
    v[5] = ws_turn(v[5] ^ v[10], 12, false, job);
    v[0] = ws_sum(ws_sum(v[0], v[5], job), m[9], job);
    ws_lower(v[0], v[5], v[10], v[15], false, job);

    v[1] = ws_sum(v[1], v[6], job);  // v1 + m10 is done
    ws_upper(v[1], v[6], v[11], v[12], job);
    v[1] = ws_sum(ws_sum(v[1], v[6], job), m[11], job);
    ws_lower(v[1], v[6], v[11], v[12], false, job);

    v[2] = ws_sum(v[2], ws_word{} + job.first[16], job);  // v7 + m12
    ws_upper(v[2], v[7], v[8], v[13], job);
    v[2] = ws_sum(ws_sum(v[2], v[7], job), m[13], job);
    ws_lower(v[2], v[7], v[8], v[13], false, job);

    ws_upper(v[3], v[4], v[9], v[14], job);  // v3 + v4 + m14 is done
    v[3] = ws_sum(ws_sum(v[3], v[4], job), m[15], job);
    ws_lower(v[3], v[4], v[9], v[14], false, job);

    ws_reorder(m);
    ws_rounds(v, m, 1, job);
    WS_UNROLL
    for (int i = 0; i < 8; ++i) cv[i] = v[i] ^ v[8 + i];
}

// A compression in place of its chaining value. The counter is 0: all is one chunk.
WS_DEVICE void ws_compress(ws_word cv[8], ws_word m[16], ws_u32 bytes, ws_u32 flags,
                           const WsJob& job) {
    constexpr ws_u32 iv[8] = WS_IV;
    ws_word v[16];
    WS_UNROLL
    for (int i = 0; i < 4; ++i) {
        v[i] = cv[i], v[4 + i] = cv[4 + i], v[8 + i] = ws_word{} + iv[i];
        v[12 + i] = ws_word{} + (i == 2 ? bytes : i == 3 ? flags : 0u);
    }
    ws_rounds(v, m, 0, job);
    WS_UNROLL
    for (int i = 0; i < 8; ++i) cv[i] = v[i] ^ v[8 + i];
}

WS_DEVICE ws_word ws_swap(ws_word x) {
    return x << 24 | (x & 0xff00u) << 8 | (x >> 8 & 0xff00u) | x >> 24;
}

// The hash of a counted nonce, as words.
WS_DEVICE void ws_hash(const WsJob& job, ws_word nonce, ws_word hash[8]) {
    constexpr ws_u32 iv[8] = WS_IV;
    ws_word cv[8], m[16];
    ws_first(job, ws_swap(nonce), cv);  // its bytes stand big-endian in the message
    WS_ROLLED
    for (ws_u32 block = 1; block < job.blocks; ++block) {
        const bool last = block + 1 == job.blocks;
        WS_UNROLL
        for (int i = 0; i < 16; ++i) m[i] = ws_word{} + job.message[16 * block + i];
        ws_compress(cv, m, last ? job.last_bytes : 64u, last ? WS_CHUNK_END_ROOT : 0u, job);
    }
    WS_UNROLL
    for (int i = 0; i < 8; ++i) {
        m[i] = cv[i], m[8 + i] = ws_word{};
        hash[i] = ws_word{} + iv[i];
    }
    ws_compress(hash, m, 32u, WS_WHOLE_ROOT, job);
}

#ifndef WS_LANES
// Whether a hash, read as a big-endian integer, does not exceed the target, and is on the chain.
WS_DEVICE bool ws_meets(const ws_u32 hash[8], const WsJob& job) {
    if ((hash[7] >> 24) % WS_CHAINS != job.chain) return false;
    WS_UNROLL
    for (int i = 0; i < 8; ++i) {
        const ws_u32 word = ws_swap(hash[i]);
        if (word != job.target[i]) return word < job.target[i];
    }
    return true;
}
#endif
