// SHA-256 by its single steps, each of which can be put on either of a GPU's two integer pipes.
//
// The same text compiles as CUDA and as plain C++, where the multiply-add forms really multiply and
// add, so a machine without a GPU tests every variant. Steps: FIPS 180-4, 4.1.2. The rounds that call
// them are written out by source.py, which also says what is gained by what.
#pragma once

#ifdef __CUDACC__
#define WS_DEVICE __device__ __forceinline__
#elif !defined(WS_DEVICE)
#define WS_DEVICE static inline __attribute__((always_inline))
#endif

typedef unsigned int ws_u32;

// What depends on the nonce. A CPU may try WS_LANES nonces at once, each in a lane of a vector; only
// variants that leave the pipes to the compiler are written for that.
#ifdef WS_LANES
typedef ws_u32 ws_w __attribute__((vector_size(4 * WS_LANES)));
#else
typedef ws_u32 ws_w;
#endif

#define WS_WAYS_MOST 16

// A version's part of a job. All words are as SHA-256 reads them, most significant byte first.
struct WsWay {
    ws_u32 mid[8];   // the midstate, which the end of the first hash adds
    ws_u32 kept[6];  // a b c e f g before round 3, the first that meets the nonce
    ws_u32 a3, e3;   // what makes the new a and e of round 3 out of word 19 with K
};

// 1 and powers of two: parameters, since a compiler that knew them would undo the multiply-adds below.
struct WsPowers {
    ws_u32 p0, p29, p22, p13, p12;
};

// What a launch needs of its work; passed by value.
struct WsJob {
    WsPowers early, late;       // the same twice, or those of the loop would take registers
    ws_u32 w16, w17, k16, k17;  // words of the schedule without the nonce; k: with K added
    ws_u32 c18, c19, c31, c32;  // the part of four more that is known
    ws_u32 n19;                 // word 19 with K, without the nonce
    ws_u32 target[8];           // most significant word first
    ws_u32 ways;                // versions tried beside each nonce
    WsWay way[WS_WAYS_MOST];
};

#ifdef __CUDACC__
WS_DEVICE ws_w ws_mad(ws_w a, ws_u32 b, ws_w c) {
    ws_w r;
    asm("mad.lo.u32 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
    return r;
}
WS_DEVICE ws_w ws_high(ws_w a, ws_u32 b) {
    ws_w r;
    asm("mul.hi.u32 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
}
WS_DEVICE ws_w ws_left(ws_w x, int n) { return __funnelshift_l(x, x, n); }
WS_DEVICE ws_w ws_swap(ws_w x) { return __byte_perm(x, 0, 0x0123); }
// Nothing is known of x: what it was made of need not be kept for what is made of it.
#define WS_FORGET(x) asm volatile("" : "+r"(x))
#else
WS_DEVICE ws_w ws_mad(ws_w a, ws_u32 b, ws_w c) { return a * b + c; }
WS_DEVICE ws_w ws_left(ws_w x, int n) { return (x << n) | (x >> (32 - n)); }
WS_DEVICE ws_w ws_swap(ws_w x) {
    return (x << 24) | ((x & 0xff00u) << 8) | ((x >> 8) & 0xff00u) | (x >> 24);
}
#define WS_FORGET(x)
#ifndef WS_LANES
WS_DEVICE ws_w ws_high(ws_w a, ws_u32 b) { return (ws_u32)(((unsigned long long)a * b) >> 32); }
#endif
#endif

// Macros, since beside a vector some of the three may be plain words.
#define WS_CH(e, f, g) (((e) & (f)) ^ (~(e) & (g)))
#define WS_MAJ(a, b, c) (((a) & (b)) ^ ((a) & (c)) ^ ((b) & (c)))

// All bits where a lane's condition holds, none elsewhere.
#ifdef WS_LANES
#define WS_WHERE(condition) ((ws_w)(condition))
#else
#define WS_WHERE(condition) ((condition) ? ~0u : 0u)
#endif

// Where the digest, read as a little-endian integer, does not exceed the target.
WS_DEVICE ws_w ws_meets(const ws_w digest[8], const ws_u32 target[8]) {
    ws_w below = WS_WHERE(digest[0] != digest[0]), equal = ~below;
    for (int i = 0; i < 8; ++i) {
        const ws_w word = ws_swap(digest[7 - i]);
        below |= equal & WS_WHERE(word < target[i]);
        equal &= WS_WHERE(word == target[i]);
    }
    return below | equal;
}
