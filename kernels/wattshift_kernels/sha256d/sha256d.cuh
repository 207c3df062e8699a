// SHA-256d of a Bitcoin header whose first 64 bytes are folded into a midstate.
//
// The same text compiles as CUDA and as plain C++ (without __CUDACC__), so that its arithmetic is
// tested on a machine without a GPU. Source: FIPS 180-4. Simple and right; the tuned kernel is apart.
#pragma once

#ifdef __CUDACC__
#define WS_DEVICE __device__ __forceinline__
#define WS_CONSTANT __constant__
#else
#define WS_DEVICE static inline
#define WS_CONSTANT static const
#endif

typedef unsigned int ws_u32;

// What a launch needs of its work; passed by value. All words as SHA-256 reads them (big-endian).
struct WsJob {
    ws_u32 midstate[8];
    ws_u32 tail[3];    // end of the Merkle root, time, bits
    ws_u32 target[8];  // most significant word first
};

WS_CONSTANT ws_u32 WS_ROUND[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

WS_CONSTANT ws_u32 WS_INITIAL[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

WS_DEVICE ws_u32 ws_rotr(ws_u32 x, int n) { return (x >> n) | (x << (32 - n)); }

WS_DEVICE ws_u32 ws_swap(ws_u32 x) {
    return (x << 24) | ((x & 0xff00u) << 8) | ((x >> 8) & 0xff00u) | (x >> 24);
}

// One compression, in place. `w` is the block on entry and scratch afterwards: the schedule is kept
// in a window of 16 words.
WS_DEVICE void ws_compress(ws_u32 state[8], ws_u32 w[16]) {
    ws_u32 a = state[0], b = state[1], c = state[2], d = state[3];
    ws_u32 e = state[4], f = state[5], g = state[6], h = state[7];
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int i = 0; i < 64; ++i) {
        if (i >= 16) {
            const ws_u32 x = w[(i + 1) & 15], y = w[(i + 14) & 15];
            const ws_u32 s0 = ws_rotr(x, 7) ^ ws_rotr(x, 18) ^ (x >> 3);
            const ws_u32 s1 = ws_rotr(y, 17) ^ ws_rotr(y, 19) ^ (y >> 10);
            w[i & 15] += s0 + w[(i + 9) & 15] + s1;
        }
        const ws_u32 big1 = ws_rotr(e, 6) ^ ws_rotr(e, 11) ^ ws_rotr(e, 25);
        const ws_u32 t1 = h + big1 + (g ^ (e & (f ^ g))) + WS_ROUND[i] + w[i & 15];
        const ws_u32 big0 = ws_rotr(a, 2) ^ ws_rotr(a, 13) ^ ws_rotr(a, 22);
        const ws_u32 t2 = big0 + ((a & b) | (c & (a | b)));
        h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d;
    state[4] += e, state[5] += f, state[6] += g, state[7] += h;
}

// The header hash of one nonce (the field's value), as 8 words of the digest.
WS_DEVICE void ws_header_hash(const WsJob& job, ws_u32 nonce, ws_u32 digest[8]) {
    ws_u32 w[16] = {job.tail[0], job.tail[1], job.tail[2], ws_swap(nonce), 0x80000000u};
    w[15] = 640;  // length of the header in bits
    ws_u32 inner[8];
    for (int i = 0; i < 8; ++i) inner[i] = job.midstate[i];
    ws_compress(inner, w);
    for (int i = 0; i < 8; ++i) w[i] = inner[i], digest[i] = WS_INITIAL[i];
    w[8] = 0x80000000u;
    for (int i = 9; i < 15; ++i) w[i] = 0;
    w[15] = 256;  // length of a digest in bits
    ws_compress(digest, w);
}

// Whether a digest, read as a little-endian integer, does not exceed the target.
WS_DEVICE bool ws_meets(const ws_u32 digest[8], const ws_u32 target[8]) {
    for (int i = 0; i < 8; ++i) {
        const ws_u32 word = ws_swap(digest[7 - i]);
        if (word != target[i]) return word < target[i];
    }
    return true;
}
