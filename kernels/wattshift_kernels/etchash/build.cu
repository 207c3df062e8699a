// A slice of the table: each block makes a tile of its rows.
#include "etchash.cuh"
#include "begins.cuh"

// Rows `first` to first + count - 1, `tile` of them in each block.
extern "C" __global__ void __launch_bounds__(256)
    ws_build(const WsJob job, const ws_u64 first, const ws_u64 count, const ws_u32 tile,
             const volatile ws_u32* stop, unsigned char* __restrict__ ran) {
    __shared__ ws_u32 stopped;
    if (!ws_begins(stop, ran, &stopped)) return;
    const ws_u64 begin = (ws_u64)blockIdx.x * tile;
    const ws_u64 end = begin + tile < count ? begin + tile : count;
    for (ws_u64 i = begin + threadIdx.x; i < end; i += blockDim.x) {
        ws_u64 words[8];
        ws_table_row(job, (ws_u32)(first + i), words);
        const ws_u64 at = job.table + 64 * (first + i);
        for (int pair = 0; pair < 4; ++pair)
            ws_store(at + 16 * pair, words[2 * pair], words[2 * pair + 1]);
    }
}
