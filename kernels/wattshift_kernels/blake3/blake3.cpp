// The CPU's search: WS_LANES hashes side by side. To its caller it is a launch of one block (see
// kernel.py), except that it looks at the top word of a hash alone, and at its chain.
#include "blake3.cuh"

extern "C" void ws_search(const WsJob job, const ws_u32 start, const ws_u64 count, const ws_u32,
                          const volatile ws_u32*, ws_u32* ring, const ws_u32 ring_size,
                          ws_u32* hits, unsigned char*) {
    for (ws_u64 first = 0; first < count; first += WS_LANES) {
        ws_word nonce, hash[8];
        for (int i = 0; i < WS_LANES; ++i) nonce[i] = start + (ws_u32)(first + i);
        ws_hash(job, nonce, hash);
        const ws_word top = ws_swap(hash[0]), chain = (hash[7] >> 24) % WS_CHAINS;
        for (int i = 0; i < WS_LANES && first + i < count; ++i) {
            if (top[i] > job.target[0] || chain[i] != job.chain) continue;
            const ws_u32 at = (*hits)++;
            if (at < ring_size) ring[2 * at] = nonce[i], ring[2 * at + 1] = 0;
        }
    }
}
