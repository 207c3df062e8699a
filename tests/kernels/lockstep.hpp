// CUDA's words on a CPU, for the tests: a block's threads take turns and meet at every barrier and
// every shuffle, so that kernels whose threads exchange values run as they are written.
//
// Each thread is a context of its own; a round runs every one of them up to its next meeting. All have
// to meet at the same places: a thread that ends while others wait, or that waits elsewhere, is a bug
// of the kernel, and the process ends with a word about it.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <ucontext.h>
#include <vector>

namespace lockstep {

struct Index {
    unsigned x;
};

enum Meeting { RUNNING, BARRIER, SHUFFLE, ENDED };

struct Thread {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    Meeting at = RUNNING;
    unsigned shuffles = 0;
};

static const unsigned WARP = 32;
static const size_t STACK_BYTES = 256 * 1024;

static Index grid, block, thread, threads_of_block;
static std::vector<Thread> threads;
static std::vector<unsigned> given[2];  // by turns, so that nobody overwrites what is yet to be read
static ucontext_t home;
static void (*body)(void*);
static void* body_argument;

static void meet(Meeting at) {
    Thread& me = threads[thread.x];
    me.at = at;
    swapcontext(&me.context, &home);
}

static void run_thread() {
    body(body_argument);
    threads[thread.x].at = ENDED;
}

static unsigned exchange(unsigned value, unsigned from) {
    const unsigned me = thread.x, turn = threads[me].shuffles++ & 1;
    given[turn][me] = value;
    meet(SHUFFLE);
    return given[turn][from];
}

static void require(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "lockstep: %s\n", what);
    std::abort();
}

// One block of `count` threads, each of which calls one(argument).
static void run_block(unsigned number, unsigned count, void (*one)(void*), void* argument) {
    block.x = number, threads_of_block.x = count, body = one, body_argument = argument;
    if (threads.size() < count) threads.resize(count);
    for (auto& turn : given) turn.assign(count, 0);
    for (unsigned i = 0; i < count; ++i) {
        Thread& it = threads[i];
        if (!it.stack) it.stack.reset(new char[STACK_BYTES]);
        getcontext(&it.context);
        it.context.uc_stack.ss_sp = it.stack.get();
        it.context.uc_stack.ss_size = STACK_BYTES;
        it.context.uc_link = &home;
        it.at = RUNNING, it.shuffles = 0;
        makecontext(&it.context, run_thread, 0);
    }
    for (bool ended = false; !ended;) {
        for (unsigned i = 0; i < count; ++i) {
            thread.x = i;
            swapcontext(&home, &threads[i].context);
        }
        for (unsigned i = 1; i < count; ++i)
            require(threads[i].at == threads[0].at, "threads of a block meet at different places");
        ended = threads[0].at == ENDED;
    }
}

}  // namespace lockstep

#define __global__
#define __shared__ static
#define __launch_bounds__(...)
#define gridDim lockstep::grid
#define blockIdx lockstep::block
#define threadIdx lockstep::thread
#define blockDim lockstep::threads_of_block

static inline void __syncthreads() { lockstep::meet(lockstep::BARRIER); }

static inline unsigned __shfl_sync(unsigned mask, unsigned value, unsigned from, unsigned width = 32) {
    lockstep::require(mask == ~0u, "a shuffle of part of a warp");
    const unsigned me = threadIdx.x;
    return lockstep::exchange(value, (me & ~(width - 1)) | (from & (width - 1)));
}

static inline unsigned __shfl_xor_sync(unsigned mask, unsigned value, unsigned with) {
    lockstep::require(mask == ~0u && with < lockstep::WARP, "a shuffle out of the warp");
    return lockstep::exchange(value, threadIdx.x ^ with);
}

template <typename T>
static inline T atomicAdd(T* at, T more) {
    const T was = *at;
    *at += more;
    return was;
}

static inline void __syncwarp() { lockstep::meet(lockstep::BARRIER); }
