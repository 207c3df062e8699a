// kHeavyHash of a job and a nonce: cSHAKE256, a product with the job's matrix, cSHAKE256.
//
// The same text compiles as CUDA, as plain C++ (without __CUDACC__) so that its arithmetic is
// tested on a machine without a GPU, and with WS_LANES=n as C++ over vectors of n hashes, which is
// the CPU's search. Sources: FIPS 202, NIST SP 800-185, and those of reference.py.
//
// What is done once per job, on the host: the sponge up to the nonce, and theta, rho and pi of its
// first round, which are linear in the nonce and so a constant xored with turns of the nonce. Of
// the last round of either hash only what is asked for is computed.
//
// A GPU turns and xors on the same pipe (ALU), which is what bounds this hash. A turn by s is also
// a product with 2^s: its low word, and the high word of the other half's. WS_FMA_TURNS says how
// many of a round's 29 turns go that way, to the pipe that multiplies (FMA).
#pragma once

#ifdef __CUDACC__
#define WS_DEVICE __device__ __forceinline__
#define WS_CONSTANT __constant__
#define WS_UNROLL _Pragma("unroll")
#define WS_ROLLED _Pragma("unroll 1")
#define WS_GRID_CONSTANT __grid_constant__
#define WS_BOUNDS __launch_bounds__(256)
#else
#define WS_CONSTANT static const
#define WS_ROLLED
#define WS_GRID_CONSTANT
#define WS_BOUNDS
#ifdef WS_LANES
#define WS_DEVICE static inline __attribute__((always_inline))
#define WS_UNROLL _Pragma("GCC unroll 32")
#else
#define WS_DEVICE static inline
#define WS_UNROLL
#endif
#endif
#ifndef WS_FMA_TURNS
#define WS_FMA_TURNS 19
#endif

typedef unsigned int ws_u32;
typedef unsigned long long ws_u64;

// What a launch needs of its work; passed by value.
struct WsJob {
    ws_u32 first[50];    // lanes of the first round before chi for a nonce whose counted bits are 0
    ws_u32 matrix[512];  // rows of 8 words; byte b of word k: columns 8k + 2b (low) and 8k + 2b + 1
    ws_u32 power[32];    // 2^i: where the compiler knew them, it would shift on the ALU after all
    ws_u32 target[8];    // most significant word first
};

WS_CONSTANT ws_u64 WS_IOTA[24] = {
    0x0000000000000001, 0x0000000000008082, 0x800000000000808a, 0x8000000080008000,
    0x000000000000808b, 0x0000000080000001, 0x8000000080008081, 0x8000000000008009,
    0x000000000000008a, 0x0000000000000088, 0x0000000080008009, 0x000000008000000a,
    0x000000008000808b, 0x800000000000008b, 0x8000000000008089, 0x8000000000008003,
    0x8000000000008002, 0x8000000000000080, 0x000000000000800a, 0x800000008000000a,
    0x8000000080008081, 0x8000000000008080, 0x0000000080000001, 0x8000000080008008};

// The second sponge before its message: customised with "HeavyHash" and padded for 32 bytes.
#define WS_OUTER                                                                                 \
    {0x3ad74c52b2248509ull, 0x79629b0e2f9f4216ull, 0x7a14ff4816c7f8eeull, 0x11a75f4c80056498ull, \
     0xe720e0df44eecedaull, 0x72c7d82e14f34069ull, 0xc100ff2a938935baull, 0x5e219040250fc462ull, \
     0x8039f9a60dcf6a48ull, 0xa0bcaa9f792a3d0cull, 0xf431c05dd0a9a226ull, 0xd31f4cc354c18c3full, \
     0x6c6b7d01a769cc3dull, 0x2ec65bd3562493e4ull, 0x4ef74b3a99cdb044ull, 0x774c86835434f2b0ull, \
     0x07e961b036bc9416ull, 0x7e8f1db17765cc07ull, 0xea8fdb80bac46d39ull, 0xb992f2d37b34ca58ull, \
     0xc776c5048481b957ull, 0x47c39f675112c22eull, 0x92bb399db5290c0aull, 0x549ae0312f9fc615ull, \
     0x1619327d10b9da35ull}

// By lane x + 5 y: how far rho turns it, and where pi moves it.
#define WS_RHO                                                                              \
    {0, 1, 62, 28, 27, 36, 44, 6, 55, 20, 3, 10, 43, 25, 39, 41, 45, 15, 21, 8, 18, 2, 61, 56, \
     14}
#define WS_PI \
    {0, 10, 20, 5, 15, 16, 1, 11, 21, 6, 7, 17, 2, 12, 22, 23, 8, 18, 3, 13, 14, 24, 9, 19, 4}

#ifdef WS_LANES

typedef ws_u64 ws_lane __attribute__((vector_size(8 * WS_LANES)));

WS_DEVICE ws_lane ws_word(ws_u64 value) { return ws_lane{} + value; }

WS_DEVICE ws_lane ws_turn(ws_lane x, int left, const ws_u32*, bool) {
    return left ? x << left | x >> (64 - left) : x;
}

#else

// A word of 64 bits as a GPU holds it.
struct ws_lane {
    ws_u32 lo, hi;
};

WS_DEVICE ws_lane ws_word(ws_u64 value) { return {(ws_u32)value, (ws_u32)(value >> 32)}; }
WS_DEVICE ws_lane operator^(ws_lane x, ws_lane y) { return {x.lo ^ y.lo, x.hi ^ y.hi}; }
WS_DEVICE ws_lane operator&(ws_lane x, ws_lane y) { return {x.lo & y.lo, x.hi & y.hi}; }
WS_DEVICE ws_lane operator~(ws_lane x) { return {~x.lo, ~x.hi}; }

// a b + c, and the high word of a b.
WS_DEVICE ws_u32 ws_mad(ws_u32 a, ws_u32 b, ws_u32 c) {
#ifdef __CUDACC__
    asm("mad.lo.u32 %0, %0, %1, %2;" : "+r"(a) : "r"(b), "r"(c));
    return a;
#else
    return a * b + c;
#endif
}

WS_DEVICE ws_u32 ws_high(ws_u32 a, ws_u32 b) {
#ifdef __CUDACC__
    asm("mul.hi.u32 %0, %0, %1;" : "+r"(a) : "r"(b));
    return a;
#else
    return (ws_u32)((ws_u64)a * b >> 32);
#endif
}

// The high word of (high : low) shifted left, by 1 to 31.
WS_DEVICE ws_u32 ws_funnel(ws_u32 low, ws_u32 high, int left) {
#ifdef __CUDACC__
    return __funnelshift_l(low, high, left);
#else
    return high << left | low >> (32 - left);
#endif
}

// Four products of bytes, and c.
WS_DEVICE ws_u32 ws_dot(ws_u32 a, ws_u32 b, ws_u32 c) {
#ifdef __CUDACC__
    return __dp4a(a, b, c);
#else
    for (int i = 0; i < 32; i += 8) c += (a >> i & 255) * (b >> i & 255);
    return c;
#endif
}

WS_DEVICE ws_lane ws_turn(ws_lane x, int left, const ws_u32* power, bool multiply) {
    if (left & 32) x = {x.hi, x.lo};
    left &= 31;
    if (!left) return x;
    if (!multiply) return {ws_funnel(x.hi, x.lo, left), ws_funnel(x.lo, x.hi, left)};
    return {ws_mad(x.lo, power[left], ws_high(x.hi, power[left])),
            ws_mad(x.hi, power[left], ws_high(x.lo, power[left]))};
}

// A counted nonce as a lane that was turned: its other word was 0, so one product has it all.
WS_DEVICE ws_lane ws_turned(ws_u32 nonce, int left, const ws_u32* power) {
    const ws_u64 both = (ws_u64)nonce * power[left & 31];
    const ws_u32 lo = (ws_u32)both, hi = (ws_u32)(both >> 32);
    return left & 32 ? ws_lane{hi, lo} : ws_lane{lo, hi};
}

#endif

// chi and iota: the part of a round that is not linear.
WS_DEVICE void ws_chi(const ws_lane b[25], ws_lane a[25], ws_u64 iota) {
    WS_UNROLL
    for (int i = 0; i < 25; ++i) {
        const int row = i / 5 * 5, x = i % 5;
        a[i] = b[i] ^ (~b[row + (x + 1) % 5] & b[row + (x + 2) % 5]);
    }
    a[0] = a[0] ^ ws_word(iota);
}

// The parities of theta, and the same turned by one.
WS_DEVICE void ws_columns(const ws_lane a[25], ws_lane c[5], ws_lane d[5], const ws_u32* power) {
    WS_UNROLL
    for (int x = 0; x < 5; ++x) {
        c[x] = a[x] ^ a[x + 5] ^ a[x + 10] ^ a[x + 15] ^ a[x + 20];
        d[x] = ws_turn(c[x], 1, power, 24 + x < WS_FMA_TURNS);
    }
}

WS_DEVICE void ws_round(ws_lane a[25], ws_u64 iota, const ws_u32* power) {
    constexpr int rho[25] = WS_RHO, pi[25] = WS_PI;
    ws_lane b[25], c[5], d[5];
    ws_columns(a, c, d, power);
    WS_UNROLL
    for (int i = 0; i < 25; ++i)
        b[pi[i]] = ws_turn(a[i] ^ c[(i + 4) % 5] ^ d[(i + 1) % 5], rho[i], power,
                           i - 1 < WS_FMA_TURNS);
    ws_chi(b, a, iota);
}

// Rounds 1 to 22, and of round 23 the four lanes of the hash.
WS_DEVICE void ws_rest(ws_lane a[25], ws_lane hash[4], const ws_u32* power) {
    constexpr int rho[25] = WS_RHO;
    WS_ROLLED
    for (int i = 1; i < 23; i += 2) {
        ws_round(a, WS_IOTA[i], power);
        ws_round(a, WS_IOTA[i + 1], power);
    }
    ws_lane b[5], c[5], d[5];
    ws_columns(a, c, d, power);
    WS_UNROLL
    for (int x = 0; x < 5; ++x)  // what pi moves to the first row: lanes 0, 6, 12, 18 and 24
        b[x] = ws_turn(a[6 * x] ^ c[(x + 4) % 5] ^ d[(x + 1) % 5], rho[6 * x], power,
                       6 * x - 1 < WS_FMA_TURNS);
    WS_UNROLL
    for (int x = 0; x < 4; ++x) hash[x] = b[x] ^ (~b[x + 1] & b[(x + 2) % 5]);
    hash[0] = hash[0] ^ ws_word(WS_IOTA[23]);
}

#ifdef WS_LANES
WS_DEVICE ws_lane ws_turned(ws_lane nonce, int left, const ws_u32* power) {
    return ws_turn(nonce, left % 64, power, false);
}
#endif

// The first hash. `nonce`: one (ws_u32), or a lane of them.
template <typename Nonce>
WS_DEVICE void ws_inner(const WsJob& job, Nonce nonce, ws_lane hash[4]) {
    constexpr int rho[25] = WS_RHO, pi[25] = WS_PI;
    ws_lane a[25], b[25];
    WS_UNROLL
    for (int i = 0; i < 25; ++i) {
        const int to = pi[i];
        b[to] = ws_word((ws_u64)job.first[2 * to + 1] << 32 | job.first[2 * to]);
        // The nonce is in lane 9; theta carries it, turned by 0 and by 1, to columns 0 and 3.
        if (i % 5 == 0 || i == 9) b[to] = b[to] ^ ws_turned(nonce, rho[i], job.power);
        if (i % 5 == 3) b[to] = b[to] ^ ws_turned(nonce, rho[i] + 1, job.power);
    }
    ws_chi(b, a, WS_IOTA[0]);
    ws_rest(a, hash, job.power);
}

// The second hash, of what came through the matrix; in place.
WS_DEVICE void ws_outer(ws_lane hash[4], const ws_u32* power) {
    constexpr ws_u64 outer[25] = WS_OUTER;
    ws_lane a[25];
    WS_UNROLL
    for (int i = 0; i < 25; ++i) a[i] = i < 4 ? ws_word(outer[i]) ^ hash[i] : ws_word(outer[i]);
    ws_round(a, WS_IOTA[0], power);
    ws_rest(a, hash, power);
}

#ifndef WS_LANES

// The matrix as it is multiplied: rows of 16 words, read four at a time.
struct alignas(16) WsMatrix {
    ws_u32 at[1024];
};

// A packed word of the matrix as two, whose bytes are numbers, and numbers times 16.
WS_DEVICE void ws_unpack(ws_u32 packed, ws_u32 two[2]) {
    two[0] = packed & 0x0f0f0f0fu;
    two[1] = packed & 0xf0f0f0f0u;
}

// The product with the matrix (rows of 16 unpacked words), shortened and xored onto the hash.
//
// Columns take the high nibbles of the hash where they are, times 16, and the low ones against
// numbers that are times 16. So no sum needs a shift of its operands, and all are times 16.
WS_DEVICE void ws_product(const ws_u32* matrix, ws_lane hash[4], const ws_u32* power) {
    ws_u32 h[8], v[16];
    WS_UNROLL
    for (int i = 0; i < 8; ++i) {
        h[i] = i & 1 ? hash[i / 2].hi : hash[i / 2].lo;
        v[2 * i] = h[i] & 0xf0f0f0f0u;
        v[2 * i + 1] = h[i] & 0x0f0f0f0fu;
    }
    WS_ROLLED
    for (int word = 0; word < 8; ++word, matrix += 8 * 16) {
        ws_u32 nibbles = 0;
        WS_UNROLL
        for (int i = 7; i >= 0; --i) {  // a byte is two rows, the first of them its high nibble
            const ws_u32* row = matrix + 16 * (i ^ 1);
            ws_u32 sum = 0;
            WS_UNROLL
            for (int k = 0; k < 16; ++k) sum = ws_dot(row[k], v[k], sum);
            nibbles = ws_mad(nibbles, power[4], ws_high(sum, power[18]));  // bits 14 to 17
        }
        nibbles ^= h[0];
        WS_UNROLL
        for (int i = 0; i < 7; ++i) h[i] = h[i + 1];  // no index that is known only at run time
        h[7] = nibbles;
    }
    WS_UNROLL
    for (int i = 0; i < 4; ++i) hash[i] = {h[2 * i], h[2 * i + 1]};
}

// Whether a hash, read as a little-endian integer, does not exceed the target.
WS_DEVICE bool ws_meets(const ws_lane hash[4], const ws_u32 target[8]) {
    WS_UNROLL
    for (int i = 0; i < 4; ++i) {
        const ws_lane lane = hash[3 - i];
        if (lane.hi != target[2 * i]) return lane.hi < target[2 * i];
        if (lane.lo != target[2 * i + 1]) return lane.lo < target[2 * i + 1];
    }
    return true;
}

#endif
