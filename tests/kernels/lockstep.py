"""Makes the stand-in GPU run the threads of a block in lockstep, so that they can exchange values.

The stand-in runs one thread after the other, which is quick and enough for most kernels. Those
whose threads shuffle values, or share more than thread 0's answer, need `lockstep.hpp`.
"""

import sys
from pathlib import Path
from typing import Any

from wattshift_kernels.native import library

AFTER = """
#include <tuple>
template <typename Job, typename... Rest>
struct Call {
    void (*kernel)(const Job, Rest...);
    const Job* job;
    std::tuple<Rest...> rest;
    static void one(void* argument) {
        Call& me = *(Call*)argument;
        std::apply([&](Rest... rest) { me.kernel(*me.job, rest...); }, me.rest);
    }
};
template <typename Job, typename... Rest>
static void call(void (*kernel)(const Job, Rest...), unsigned block, unsigned threads,
                 const void* job, Rest... rest) {
    Call<Job, Rest...> made = {kernel, (const Job*)job, {rest...}};
    lockstep::run_block(block, threads, made.one, &made);
}
"""


# The stand-in takes texts that have a search.
NO_SEARCH = """
static void ws_search(const WsJob, unsigned, unsigned long long, unsigned,
                      const volatile unsigned*, unsigned*, unsigned, unsigned*, unsigned char*) {}
"""


def put_in_standin(monkeypatch: Any) -> None:
    """From now on, in this test."""
    standin = sys.modules["standin"]
    before = Path(__file__).with_name("lockstep.hpp").read_text()
    ends = standin.AFTER[standin.AFTER.index('extern "C" void search_block') :]

    def compiled(source: str, defines: tuple[str, ...] = ()) -> Any:
        builds = ("-DSTANDIN_BUILDS",) if "ws_build(" in source else ()
        text = "\n".join((before, source, "" if "ws_search(" in source else NO_SEARCH, AFTER, ends))
        return library("lockstep", text, flags=("-O1", *builds, *defines))

    monkeypatch.setattr(standin, "compiled", compiled)
    runtime = sys.modules["cupy"].cuda.runtime
    runtime.cudaLimitMaxL2FetchGranularity, runtime.limits = 5, {}
    runtime.deviceSetLimit = runtime.limits.__setitem__
