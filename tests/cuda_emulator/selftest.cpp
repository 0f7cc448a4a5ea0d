// The emulator's own test: each check must fire on a small kernel that is wrong in one way, and
// stay silent on its correct twin.
#include "selftest.h"

#include <cmath>
#include <cstring>

namespace selftest {
namespace {

int number() { return int(threadIdx.x + blockIdx.x * blockDim.x); }

// --- global memory --------------------------------------------------------------------------

__global__ void touch(float* data, int offset, bool write) {
  if (write)
    store(data + number() + offset, 1.f);
  else
    load<float>(data + number() + offset);
}

__global__ void touch_vector(float* data, int offset) {
  load<Vec<float, 4>>(data + 4 * number() + offset);
}

__global__ void all_write_one(float* data) {
  if (number() == 3 || number() == 50) store(data, 1.f);
}

__global__ void read_a_neighbour(float* data, bool barrier) {
  const float mine = load<float>(data + number());
  if (barrier) block_barrier();
  store(data + (number() ^ 33), mine);
}

__global__ void read_the_block_before(float* data) {
  if (blockIdx.x) load<float>(data + blockIdx.x - 1);
  if (threadIdx.x == 0) store(data + blockIdx.x, 1.f);
}

__global__ void dereference_shared(float* data) { load_shared<float>(data); }
__global__ void load_from_shared() { load<float>(reinterpret_cast<float*>(shared_memory())); }

void test_global_memory() {
  std::vector<float> data(256);
  float* all = map(data, true);
  float* input = map(data, false);
  expect("an access within bounds", start({}, touch, all, 192, true), "");
  expect("an access beyond the end", start({}, touch, all, 193, true),
         "bytes 1024 to 1028 of the data");
  expect("an access before the start", start({}, touch, all, -1, false),
         "bytes -4 to 0 of the data");
  expect("a store to an input", start({}, touch, input, 0, true), "writes to the data");
  expect("the message names kernel, block, thread and line", start({4}, touch, all, 65, true),
         "touch(float*, int, bool), block (2, 0, 0), thread (63, 0, 0), at " __FILE__ ":");
  expect("a load of the host's memory", start({}, touch, data.data(), 0, false),
         "not in global memory");
  expect("an aligned vector", start({}, touch_vector, input, 0), "");
  expect("a misaligned vector", start({}, touch_vector, input, 1),
         "not a multiple of the 16 bytes");
  expect_always("two threads write one element", "race: writes",
                [&] { return start({}, all_write_one, all); });
  expect_always("a load and a store without a barrier",
                "race: ", [&] { return start({}, read_a_neighbour, all, false); });
  expect_always("a load and a store with a barrier", "",
                [&] { return start({}, read_a_neighbour, all, true); });
  expect_always("blocks that need each other", "touched by a thread of another block",
                [&] { return start({3}, read_the_block_before, all); });
  expect("shared memory that is not", start({1, 64, 64}, dereference_shared, all),
         "not in shared memory");
  expect("global memory that is not", start({1, 64, 64}, load_from_shared), "not in global memory");
  cuda_emulator_unmap();
  expect("a load after unmapping", start({}, touch, all, 0, false), "not in global memory");
}

// --- shared memory and barriers -------------------------------------------------------------

__global__ void share(bool first, bool last, int rounds) {
  for (int round = 0; round < rounds; ++round) {
    store_shared(tile() + threadIdx.x, float(round));
    if (first) block_barrier();
    load_shared<float>(tile() + (threadIdx.x ^ 32));
    if (last) block_barrier();
  }
}

// What is read has to be used, or the compiler does not read it, and ThreadSanitizer sees no race.
__global__ void exchange_without_barrier(float* data) {
  store_shared(tile() + threadIdx.x, 1.f);
  store(data + threadIdx.x, load_shared<float>(tile() + (threadIdx.x ^ 32)));
}

// As is usual: one barrier per round, because the tiles alternate.
__global__ void share_two_tiles(int tiles) {
  for (int round = 0; round < 4; ++round) {
    float* now = tile() + round % tiles * blockDim.x;
    store_shared(now + threadIdx.x, float(round));
    block_barrier();
    load_shared<float>(now + (threadIdx.x ^ 32));
  }
}

__global__ void share_in_warp(bool barrier, int partner) {
  store_shared(tile() + threadIdx.x, 1.f);
  if (barrier) warp_barrier();
  load_shared<float>(tile() + (threadIdx.x ^ partner));
}

__global__ void touch_shared(int offset) { store_shared(tile() + threadIdx.x + offset, 1.f); }

__global__ void read_fresh(float* data) {
  store(data + threadIdx.x, load_shared<float>(tile() + threadIdx.x));
  block_barrier();
  store_shared(tile() + threadIdx.x, 1.f);
}

__global__ void some_leave_early() {
  if (threadIdx.x == 40) return;
  block_barrier();
}

__global__ void two_places() {
  if (threadIdx.x < 32)
    block_barrier();
  else
    block_barrier();
}

__global__ void barrier_and_shuffle() {
  if (threadIdx.x == 7) block_barrier();
  shuffle_xor(1.f, 1);
  if (threadIdx.x != 7) block_barrier();
}

void test_shared_memory() {
  const auto run = [](bool first, bool last, int rounds) {
    return [=] { return start({1, 64, 256}, share, first, last, rounds); };
  };
  expect_always("both barriers", "", run(true, true, 3));
  expect_always("no barrier between store and load", "race: ", run(false, true, 1));
  expect_always("no barrier between load and store", "race: ", run(true, false, 2));
  expect_always("one barrier and two tiles", "",
                [] { return start({1, 64, 512}, share_two_tiles, 2); });
  expect_always("one barrier and one tile",
                "race: ", [] { return start({1, 64, 512}, share_two_tiles, 1); });
  expect_always("a warp's barrier", "", [] { return start({1, 64, 256}, share_in_warp, true, 1); });
  expect_always("no warp's barrier",
                "race: ", [] { return start({1, 64, 256}, share_in_warp, false, 1); });
  expect_always("a warp's barrier where the block's is needed",
                "race: ", [] { return start({1, 64, 256}, share_in_warp, true, 32); });
  expect("beyond shared memory", start({1, 64, 256}, touch_shared, 1),
         "bytes 256 to 260 of shared memory, which has 256");
  expect("before shared memory", start({1, 64, 256}, touch_shared, -1), "bytes -4 to 0 of shared");
  expect_always("a thread that ended before a barrier", "which all threads must reach",
                [] { return start({}, some_leave_early); });
  expect_always("barriers at two places", "is at another barrier",
                [] { return start({}, two_places); });
  expect_always("a barrier while lanes shuffle", "shuffle",
                [] { return start({}, barrier_and_shuffle); });
  std::vector<float> data(64, 0.f);
  expect("fresh shared memory", start({2, 64, 256}, read_fresh, map(data, true)), "race");
  for (int grid = 1; grid < 3; ++grid) {
    std::vector<float> copy(64, 0.f);
    cuda_emulator_unmap();
    start({1, 64, 256}, read_fresh, map(copy, true));
    expect("shared memory is NaN when a block starts", std::isnan(copy[0]) && std::isnan(copy[63]));
  }
  cuda_emulator_unmap();
}

// --- warps ----------------------------------------------------------------------------------

__global__ void sum_of_warp(float* data) {
  float sum = float(threadIdx.x);
  for (int mask = 16; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
  store(data + threadIdx.x, sum);
}

__global__ void half_shuffles() {
  if (threadIdx.x % 2) shuffle_xor(1.f, 2);
}

__global__ void shuffle_and_leave() {
  if (threadIdx.x == 31) return;
  shuffle_xor(1.f, 2);
}

__global__ void other_masks() {
  const uint32_t lanes = threadIdx.x == 5 ? 0x0000ffff : emulator::kAllLanes;
  emulator::collective("vote", lanes, nullptr, nullptr, Site::here());
}

__global__ void other_places() {
  if (threadIdx.x % 32 < 16)
    shuffle_xor(1.f, 1);
  else
    shuffle_xor(1.f, 1);
}

void test_warps() {
  std::vector<float> data(64);
  float* all = map(data, true);
  expect_always("a sum over a warp", "", [&] { return start({}, sum_of_warp, all); });
  expect("its value", data[0] == 496 && data[31] == 496 && data[32] == 1520);
  expect_always("half a warp shuffles", "lane", [] { return start({}, half_shuffles); });
  expect_always("a lane has ended", "lane", [] { return start({}, shuffle_and_leave); });
  expect_always("masks that differ", "vote of other lanes", [] { return start({}, other_masks); });
  expect_always("lanes at two places", "at another place", [] { return start({}, other_places); });
  expect("lanes that do not exist", start({1, 48}, sum_of_warp, all),
         "that the block does not have");
  cuda_emulator_unmap();
}

// --- limits of launches ---------------------------------------------------------------------

__global__ void __launch_bounds__(1024) nothing() {}
__global__ void unbounded() {}

template <int threads>
__global__ void __launch_bounds__(2 * threads, 1) bounded() {}

void test_limits() {
  expect("1024 threads", start({1, {32, 32}}, nothing), "");
  expect("more than 1024 threads", start({1, {32, 33}}, nothing), "more than 1024 threads");
  expect("as many threads as promised", start({1, {96, 2}}, bounded<96>), "");
  expect("more threads than promised", start({1, {193}}, bounded<96>),
         "193 threads in a block, but __launch_bounds__ promise at most 192");
  expect("registers enough without a promise", start({1, 256}, unbounded), "");
  expect("registers that need not suffice", start({1, 257}, unbounded),
         "without __launch_bounds__ the registers need not suffice");
  expect("a block too deep", start({1, {1, 1, 65}}, nothing), "a block beyond");
  expect("a grid too wide", start({{1u << 31}}, nothing), "a grid beyond");
  expect("a grid too high", start({{1, 65536}}, nothing), "a grid beyond");
  expect("a grid too deep", start({{1, 1, 65536}}, nothing), "a grid beyond");
  expect("an empty grid", start({{1, 0}}, nothing), "an empty grid");
  const int limits[][2] = {{75, 64},  {80, 163},  {86, 99}, {89, 99},
                           {90, 227}, {100, 227}, {120, 99}};
  for (const auto& [capability, kilobytes] : limits) {
    expect("the capability is known", cuda_emulator_set_capability(capability) == 0);
    const auto raise = [](int bytes) {
      return cudaFuncSetAttribute(nothing, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    };
    raise(0);
    expect("48 KB", start({1, 64, 48 * 1024}, nothing), "");
    expect("more without opting in", start({1, 64, 48 * 1024 + 16}, nothing), "are allowed");
    expect("opting in beyond the limit", raise(kilobytes * 1024 + 1), "bytes of shared memory");
    expect("opting in up to the limit", raise(kilobytes * 1024), "");
    expect("launching at the limit", start({1, 64, size_t(kilobytes) * 1024}, nothing), "");
  }
  cuda_emulator_set_capability(80);
  expect("an unknown capability", cuda_emulator_set_capability(81) != 0);
  expect("an unknown schedule", cuda_emulator_set_schedule("sideways", 0) != 0);
}

// --- counters -------------------------------------------------------------------------------

__global__ void strided_loads(float* data, int stride) { load<float>(data + threadIdx.x * stride); }

__global__ void strided_shared(int stride) {
  store_shared(tile() + threadIdx.x * stride, multiply_add(1.f, 2.f, 3.f));
}

__global__ void shared_vectors() { store_shared(tile() + 4 * threadIdx.x, Vec<float, 4>{}); }

void expect_counted(const char* what, const char* text) {
  const bool holds = std::strstr(cuda_emulator_counters(), text) != nullptr;
  expect(what, holds);
  if (!holds) std::printf("  expected %s in\n%s\n", text, cuda_emulator_counters());
}

void test_counters() {
  std::vector<float> data(2048);
  float* all = map(data, false);
  cuda_emulator_count(1);
  start({1, 32}, strided_loads, all, 1);
  expect_counted("neighbours share sectors",
                 "\"loads\": {\"requests\": 1, \"sectors\": 4, \"least_sectors\": 4, "
                 "\"distinct_sectors\": 4}");
  start({1, 32}, strided_loads, all, 8);
  expect_counted("elements apart do not",
                 "\"loads\": {\"requests\": 2, \"sectors\": 36, \"least_sectors\": 8, "
                 "\"distinct_sectors\": 36}");
  start({1, 32, 8192}, strided_shared, 1);
  start({1, 32, 8192}, strided_shared, 2);
  expect_counted("banks that conflict",
                 "\"shared_stores\": {\"requests\": 2, \"passes\": 3, \"least_passes\": 2}");
  expect_counted("multiply-adds", "\"fma\": 64");
  start({1, 32, 8192}, shared_vectors);
  expect_counted("vectors take four passes",
                 "\"shared_stores\": {\"requests\": 1, \"passes\": 4, \"least_passes\": 4}");
  cuda_emulator_count(1);
  cuda_emulator_launch_only(1);
  start({{7, 2}, 32, 96}, strided_loads, all, 1 << 20);
  start({{2}, 64}, strided_loads, all, 1 << 20);
  cuda_emulator_launch_only(0);
  expect_counted(
      "launches without threads",
      "\"launches\": 2, \"blocks\": 14, \"threads\": 64, \"shared_bytes\": 96, \"fma\": 0, "
      "\"tensor_core_fma\": 0, \"loads\": {\"requests\": 0,");
  cuda_emulator_count(0);
  cuda_emulator_unmap();
}

}  // namespace
}  // namespace selftest

// The argument "race" runs a kernel that races, for ThreadSanitizer to find.
int main(int argc, char** argv) {
  using namespace selftest;
  if (argc > 1 && std::strcmp(argv[1], "race") == 0) {
    std::vector<float> data(64);
    return start({1, 64, 256}, exchange_without_barrier, map(data, true)) != cudaSuccess;
  }
  test_global_memory();
  test_shared_memory();
  test_warps();
  test_copies();
  test_tensor_cores();
  test_limits();
  test_counters();
  std::printf("the emulator: %d checks, %d failed\n", checks, failures);
  return failures != 0;
}
