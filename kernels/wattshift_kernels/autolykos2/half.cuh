// Half a row, which one thread reads while its neighbour reads the other: together a whole sector.
#pragma once

struct WsHalf {  // of a row
    ws_u32 word[4];
};

WS_DEVICE WsHalf ws_load(const ws_u64 address) {
    WsHalf half;
#ifdef __CUDACC__
    // Nothing of a random row is read twice, so it need not drive anything out of the L1 cache.
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(half.word[0]), "=r"(half.word[1]), "=r"(half.word[2]), "=r"(half.word[3])
                 : "l"(address));
#else
    half = *(const WsHalf*)address;
#endif
    return half;
}
