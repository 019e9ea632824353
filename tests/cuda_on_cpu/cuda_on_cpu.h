// As much of CUDA's language as gsplat's kernels speak, for a C++ compiler.
//
// Blocks run one after another. The threads of a block are coroutines that run until they meet: at a barrier of the
// block, or in an exchange within their warp of 32. Threads that returned are not waited for, as on a GPU.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <math.h>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <type_traits>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __shared__
#define __forceinline__ inline
#define __expf expf
#define __logf logf

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

struct uint2 {
    unsigned x, y;
};

namespace cuda_on_cpu {

constexpr unsigned WARP = 32;
constexpr size_t STACK = 1 << 16;

// Threads that wait for each other.
struct Meeting {
    unsigned living = 0, arrived = 0, held = 0;

    void open_when_all_are_here() {
        if (arrived > 0 && arrived == living) {
            arrived = 0;
            ++held;
        }
    }
};

struct Thread {
    ucontext_t context;
    std::unique_ptr<char[]> stack{new char[STACK]};
    bool returned = false;
    const Meeting *waits = nullptr;
    unsigned since = 0;
};

struct Warp {
    Meeting meeting;
    std::array<std::array<char, 8>, WARP> told; // by its lanes, during an exchange
};

struct State {
    dim3 grid, block, at; // at: the index of the block that runs
    std::vector<Thread> threads;
    Meeting meeting; // of the whole block
    std::vector<Warp> warps;
    ucontext_t scheduler;
    unsigned running = 0, counted = 0;
    const std::function<void()> *kernel = nullptr;
};

inline State state; // kernels run one at a time

inline unsigned rank() { return state.running; }
inline Warp &warp() { return state.warps[rank() / WARP]; }

inline void meet(Meeting &meeting) {
    Thread &thread = state.threads[rank()];
    thread.waits = &meeting;
    thread.since = meeting.held;
    ++meeting.arrived;
    meeting.open_when_all_are_here();
    if (meeting.held == thread.since) {
        swapcontext(&thread.context, &state.scheduler);
    }
    thread.waits = nullptr;
}

inline void body() {
    (*state.kernel)();
    state.threads[rank()].returned = true;
    for (Meeting *meeting : {&state.meeting, &warp().meeting}) {
        --meeting->living;
        meeting->open_when_all_are_here();
    }
}

inline void run_block() {
    const unsigned size = state.block.x * state.block.y * state.block.z;
    if (state.threads.size() < size) {
        state.threads.resize(size);
    }
    state.meeting = Meeting{size, 0, 0};
    state.warps.assign((size + WARP - 1) / WARP, Warp{});
    for (unsigned i = 0; i < size; ++i) {
        Thread &thread = state.threads[i];
        thread.returned = false;
        thread.waits = nullptr;
        ++state.warps[i / WARP].meeting.living;
        getcontext(&thread.context);
        thread.context.uc_stack = {thread.stack.get(), 0, STACK};
        thread.context.uc_link = &state.scheduler;
        makecontext(&thread.context, body, 0);
    }
    for (unsigned left = size; left > 0;) {
        bool moved = false;
        for (unsigned i = 0; i < size; ++i) {
            Thread &thread = state.threads[i];
            if (thread.returned || (thread.waits && thread.waits->held == thread.since)) {
                continue;
            }
            state.running = i;
            swapcontext(&state.scheduler, &thread.context);
            left -= thread.returned;
            moved = true;
        }
        if (!moved) {
            throw std::runtime_error("the threads of a block wait for each other for ever");
        }
    }
}

template <class Stream>
void launch(dim3 grid, dim3 block, size_t, Stream, const std::function<void()> &kernel) {
    state.grid = grid;
    state.block = block;
    state.kernel = &kernel;
    for (unsigned z = 0; z < grid.z; ++z) {
        for (unsigned y = 0; y < grid.y; ++y) {
            for (unsigned x = 0; x < grid.x; ++x) {
                state.at = dim3(x, y, z);
                run_block();
            }
        }
    }
}

// What each of the lanes of `mask` in this thread's warp says, by lane, where it has not returned.
template <class T, class Use> void exchange(T value, Use use) {
    static_assert(sizeof(T) <= 8);
    Warp &mine = warp();
    std::memcpy(mine.told[rank() % WARP].data(), &value, sizeof(T));
    meet(mine.meeting); // all have told
    const unsigned first = rank() / WARP * WARP;
    const unsigned size = state.block.x * state.block.y * state.block.z;
    for (unsigned lane = 0; lane < WARP && first + lane < size; ++lane) {
        if (!state.threads[first + lane].returned) {
            T told;
            std::memcpy(&told, mine.told[lane].data(), sizeof(T));
            use(lane, told);
        }
    }
    meet(mine.meeting); // all have read
}

} // namespace cuda_on_cpu

inline int __syncthreads_count(int predicate) {
    using cuda_on_cpu::state;
    static unsigned count;
    if (state.meeting.arrived == 0) {
        count = 0;
    }
    count += predicate != 0;
    cuda_on_cpu::meet(state.meeting);
    const int all = count;
    cuda_on_cpu::meet(state.meeting); // before anybody counts again
    return all;
}

namespace cooperative_groups {

struct thread_block {
    dim3 group_index() const { return cuda_on_cpu::state.at; }
    dim3 thread_index() const {
        const dim3 size = cuda_on_cpu::state.block;
        const unsigned i = cuda_on_cpu::rank();
        return dim3(i % size.x, i / size.x % size.y, i / (size.x * size.y));
    }
    unsigned thread_rank() const { return cuda_on_cpu::rank(); }
    unsigned size() const {
        const dim3 size = cuda_on_cpu::state.block;
        return size.x * size.y * size.z;
    }
    void sync() const { cuda_on_cpu::meet(cuda_on_cpu::state.meeting); }
};

inline thread_block this_thread_block() { return {}; }

struct grid_group {
    unsigned long long thread_rank() const {
        const dim3 at = cuda_on_cpu::state.at, grid = cuda_on_cpu::state.grid;
        const unsigned long long block = (at.z * grid.y + at.y) * grid.x + at.x;
        return block * this_thread_block().size() + cuda_on_cpu::rank();
    }
};

inline grid_group this_grid() { return {}; }

// Some lanes of a warp.
struct lanes {
    uint32_t mask;

    unsigned thread_rank() const {
        return __builtin_popcount(mask & ((uint32_t(1) << cuda_on_cpu::rank() % cuda_on_cpu::WARP) - 1));
    }
    bool any(int predicate) const {
        bool found = false;
        cuda_on_cpu::exchange(predicate, [&](unsigned lane, int told) { found |= (mask >> lane & 1) && told; });
        return found;
    }
};

template <unsigned size> struct thread_block_tile : lanes {};

template <unsigned size> thread_block_tile<size> tiled_partition(const thread_block &) {
    static_assert(size == cuda_on_cpu::WARP);
    return {{~uint32_t(0)}};
}

// Those lanes of the warp that still run and have this lane's label.
inline lanes labeled_partition(const lanes &, unsigned label) {
    uint32_t mask = 0;
    cuda_on_cpu::exchange(label, [&](unsigned lane, unsigned told) { mask |= uint32_t(told == label) << lane; });
    return {mask};
}

template <class T> struct plus {
    T operator()(T a, T b) const { return a + b; }
};

template <class T> struct greater {
    T operator()(T a, T b) const { return a > b ? a : b; }
};

template <class T, class Op> T reduce(const lanes &group, T value, Op op) {
    bool empty = true;
    T all{};
    cuda_on_cpu::exchange(value, [&](unsigned lane, T told) {
        if (group.mask >> lane & 1) {
            all = empty ? told : op(all, told);
            empty = false;
        }
    });
    return all;
}

} // namespace cooperative_groups

#define threadIdx (cooperative_groups::this_thread_block().thread_index())
#define blockIdx (cuda_on_cpu::state.at)
#define blockDim (cuda_on_cpu::state.block)

namespace gsplat {

// Mixed types as CUDA has them: of an int and an unsigned, the unsigned.
template <class A, class B> std::common_type_t<A, B> min(A a, B b) {
    using T = std::common_type_t<A, B>;
    return std::min<T>(a, b);
}
template <class A, class B> std::common_type_t<A, B> max(A a, B b) {
    using T = std::common_type_t<A, B>;
    return std::max<T>(a, b);
}
inline float rsqrt(float x) { return 1.0f / std::sqrt(x); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }

// A GPU's conversion of what is below nought gives nought; in C++ it may give anything.
inline uint32_t saturated(double x) { return x <= 0 ? 0 : uint32_t(x); }
inline uint32_t floor_to_uint32(double x) { return saturated(std::floor(x)); }
inline uint32_t ceil_to_uint32(double x) { return saturated(std::ceil(x)); }

template <class T, class U> void gpuAtomicAdd(T *sum, U value) { *sum += value; }

extern int s[]; // the kernels' shared memory

} // namespace gsplat

constexpr int cudaSuccess = 0, cudaFuncAttributeMaxDynamicSharedMemorySize = 0;
template <class Kernel> int cudaFuncSetAttribute(Kernel, int, int64_t) { return cudaSuccess; }

namespace at::cuda {
struct CUDAStream {};
inline CUDAStream getCurrentCUDAStream() { return {}; }
} // namespace at::cuda

namespace cub {

template <class T> struct DoubleBuffer {
    T *buffers[2];
    int selector = 0;
    DoubleBuffer(T *current, T *other) : buffers{current, other} {}
    T *now() { return buffers[selector]; }
    T *then() { return buffers[selector ^ 1]; }
};

struct DeviceRadixSort {
    // By the bits [begin, end) of the keys, which have no sign; equal keys keep their order.
    template <class K, class V>
    static void SortPairs(DoubleBuffer<K> &keys, DoubleBuffer<V> &values, int64_t n, int begin, int end, at::cuda::CUDAStream) {
        std::vector<int64_t> order(n);
        std::iota(order.begin(), order.end(), 0);
        const uint64_t mask = end - begin >= 64 ? ~uint64_t(0) : (uint64_t(1) << (end - begin)) - 1;
        const auto bits = [&](int64_t i) { return uint64_t(keys.now()[i]) >> begin & mask; };
        std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return bits(a) < bits(b); });
        for (int64_t i = 0; i < n; ++i) {
            keys.then()[i] = keys.now()[order[i]];
            values.then()[i] = values.now()[order[i]];
        }
        keys.selector ^= 1;
        values.selector ^= 1;
    }
};

struct DeviceSegmentedRadixSort {
    template <class... Arguments> static void SortPairs(Arguments &&...) {
        throw std::runtime_error("segmented sorting is not there");
    }
};

} // namespace cub
