// A slice of the table: each block makes a tile of its rows.
#include "autolykos2.cuh"
#include "begins.cuh"

// Rows `first` to first + count - 1, `tile` of them in each block.
extern "C" __global__ void __launch_bounds__(128)
    ws_build(const WsJob job, const ws_u64 first, const ws_u64 count, const ws_u32 tile,
             const volatile ws_u32* stop, unsigned char* __restrict__ ran) {
    __shared__ ws_u32 stopped;
    if (!ws_begins(stop, ran, &stopped)) return;
    const ws_u64 begin = (ws_u64)blockIdx.x * tile;
    const ws_u64 end = begin + tile < count ? begin + tile : count;
    for (ws_u64 i = begin + threadIdx.x; i < end; i += blockDim.x) {
        ws_u64 digest[4], row[4];
        ws_row<ws_u64>(job.height, ws_swap32((ws_u32)(first + i)), digest);
        ws_row_integer(digest, row);
        const ws_u64 at = job.table + 32 * (first + i);
        ws_store(at, row[0], row[1]);
        ws_store(at + 16, row[2], row[3]);
    }
}
