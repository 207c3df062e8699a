// The search of a CPU, which keeps no table: the 128 rows that a hash reads are made for it from the
// cache, eight of them at a time, since each of their steps waits for a row of the cache. Its signature
// is that of the launch on a GPU.
#include "etchash.cuh"

#define WS_LANES 4           // nonces at once
#define WS_CHAINS (2 * WS_LANES)  // rows at once: two make a page

typedef ws_u32 ws_row_words __attribute__((vector_size(64), may_alias));
typedef ws_u32 ws_cache_row __attribute__((vector_size(64), may_alias, aligned(4)));

WS_DEVICE void ws_keccak_row(ws_row_words& row) {
    ws_u64 words[8];
    __builtin_memcpy(words, &row, sizeof words);
    ws_keccak512(words);
    __builtin_memcpy(&row, words, sizeof words);
}

WS_DEVICE void ws_rows_of(const WsJob& job, const ws_u32 numbers[WS_CHAINS],
                          ws_row_words rows[WS_CHAINS]) {
    const ws_cache_row* const cache = (const ws_cache_row*)job.cache;
    for (int c = 0; c < WS_CHAINS; ++c) {
        rows[c] = cache[numbers[c] % job.rows];
        rows[c][0] ^= numbers[c];
        ws_keccak_row(rows[c]);
    }
    for (ws_u32 parent = 0; parent < WS_PARENTS; ++parent)
        for (int c = 0; c < WS_CHAINS; ++c) {
            const ws_u32 which = ws_fnv(numbers[c] ^ parent, rows[c][parent % 16]);
            rows[c] = rows[c] * WS_PRIME ^
                      cache[ws_modulo(which, job.rows, job.rows_reciprocal)];
        }
    for (int c = 0; c < WS_CHAINS; ++c) ws_keccak_row(rows[c]);
}

// The mixes of WS_LANES seeds, each two vectors.
WS_DEVICE void ws_mix(const WsJob& job, const ws_u64 seeds[WS_LANES][8],
                      ws_row_words mix[WS_LANES][2]) {
    for (int n = 0; n < WS_LANES; ++n)
        for (int i = 0; i < 16; ++i)
            mix[n][0][i] = mix[n][1][i] = (ws_u32)(seeds[n][i / 2] >> 32 * (i % 2));
    for (ws_u32 access = 0; access < WS_ACCESSES; ++access) {
        ws_u32 numbers[WS_CHAINS];
        ws_row_words rows[WS_CHAINS];
        for (int n = 0; n < WS_LANES; ++n) {
            const ws_u32 own = mix[n][access % 32 / 16][access % 16];
            const ws_u32 which = ws_fnv((ws_u32)seeds[n][0] ^ access, own);
            numbers[2 * n] = 2 * ws_modulo(which, job.pages, job.pages_reciprocal);
            numbers[2 * n + 1] = numbers[2 * n] + 1;
        }
        ws_rows_of(job, numbers, rows);
        for (int c = 0; c < WS_CHAINS; ++c)
            mix[c / 2][c % 2] = mix[c / 2][c % 2] * WS_PRIME ^ rows[c];
    }
}

extern "C" void ws_search(const WsJob job, const ws_u32 start, const ws_u64 count, const ws_u32,
                          const volatile ws_u32*, ws_u32* ring, const ws_u32 ring_size,
                          ws_u32* hits, unsigned char* ran) {
    *ran = 1;
    for (ws_u64 begin = 0; begin < count; begin += WS_LANES) {
        ws_u64 seeds[WS_LANES][8];
        ws_row_words mix[WS_LANES][2];
        for (int n = 0; n < WS_LANES; ++n) ws_seed(job, start + (ws_u32)begin + n, seeds[n]);
        ws_mix(job, seeds, mix);
        for (int n = 0; n < WS_LANES && begin + n < count; ++n) {
            ws_u32 mix_hash[8];
            ws_u64 words[4], digest[4];
            for (int i = 0; i < 8; ++i) {
                const ws_row_words& half = mix[n][i / 4];
                const int at = 4 * (i % 4);
                mix_hash[i] =
                    ws_fnv(ws_fnv(ws_fnv(half[at], half[at + 1]), half[at + 2]), half[at + 3]);
            }
            for (int i = 0; i < 4; ++i)
                words[i] = (ws_u64)mix_hash[2 * i + 1] << 32 | mix_hash[2 * i];
            ws_digest(seeds[n], words, digest);
            if (!ws_meets(digest, job.target)) continue;
            const ws_u32 at = (*hits)++;
            if (at < ring_size) ring[2 * at] = start + (ws_u32)begin + n, ring[2 * at + 1] = 0;
        }
    }
}
