// The emulator's own test, of asynchronous copies and tensor cores.
#include "selftest.h"

namespace selftest {
namespace {

using dilconv::Half;

// --- asynchronous copies --------------------------------------------------------------------

enum class Wait { kNone, kTooFew, kWithoutBarrier, kRight };

// Two stages: the first is read while the second may still be under way.
__global__ void copy_in_stages(const float* data, Wait wait) {
  float* mine = tile() + 4 * threadIdx.x;
  copy_async(mine, data + 4 * threadIdx.x, true);
  commit_async();
  copy_async(mine + 4 * blockDim.x, nullptr, false);
  commit_async();
  if (wait == Wait::kTooFew) wait_async<2>();
  if (wait == Wait::kRight || wait == Wait::kWithoutBarrier) wait_async<1>();
  if (wait != Wait::kWithoutBarrier) block_barrier();
  load_shared<float>(tile() + 4 * (threadIdx.x ^ 32));
}

__global__ void overwrite_before_barrier(const float* data) {
  load_shared<float>(tile() + 4 * (threadIdx.x ^ 32));
  if (threadIdx.x >= 32) copy_async(tile() + 4 * threadIdx.x, data, true);
}

__global__ void copy_through(const float* from, float* to) {
  copy_async(tile() + 4 * threadIdx.x, from + 4 * threadIdx.x, threadIdx.x % 2 == 0);
  commit_async();
  wait_async<0>();
  store(to + 4 * threadIdx.x, load_shared<Vec<float, 4>>(tile() + 4 * threadIdx.x));
}

__global__ void copy_misaligned(const float* from) { copy_async(tile() + 1, from, true); }

}  // namespace

void test_copies() {
  std::vector<float> from(256), to(256);
  for (int i = 0; i < 256; ++i) from[size_t(i)] = float(i + 1);
  const float* source = map(from, false);
  float* destination = map(to, true);
  for (const int capability : {80, 75}) {
    cuda_emulator_set_capability(capability);
    const char* unwaited = capability == 80 ? "was not waited for" : "";
    const auto run = [&](Wait wait) {
      return [=] { return start({1, 64, 2048}, copy_in_stages, source, wait); };
    };
    expect_always("a copy that is waited for", "", run(Wait::kRight));
    expect_always("a copy without a wait", unwaited, run(Wait::kNone));
    expect_always("a wait for too few groups", unwaited, run(Wait::kTooFew));
    expect_always("a wait without a barrier", "race: ", run(Wait::kWithoutBarrier));
    expect("a copy over what others read", start({1, 64, 1024}, overwrite_before_barrier, source),
           "race: writes");
    start({1, 64, 1024}, copy_through, source, destination);
    expect("a copy arrives", to[0] == 1 && to[3] == 4 && to[251] == 252);
    expect("an invalid copy is zero", to[4] == 0 && to[255] == 0);
    expect("a misaligned copy", start({1, 64, 1024}, copy_misaligned, source), "not a multiple");
  }
  cuda_emulator_set_capability(80);
  cuda_emulator_unmap();
}

namespace {

// --- tensor cores ---------------------------------------------------------------------------

// 16 x 8 sums of a (16 x 16, row by row) times b (16 x 8), of small integers in Half: every product
// and sum is exact. The matrices reach the registers by ldmatrix.
__global__ void multiply_halves(const Half* a, const Half* b, float* sums) {
  const int lane = int(threadIdx.x);
  Half* tile_a = reinterpret_cast<Half*>(shared_memory());
  Half* tile_b = tile_a + 16 * 16;
  using Eight = Vec<Half, 8>;
  store_shared(tile_a + 8 * lane, load<Eight>(a + 8 * lane));
  if (lane < 16) store_shared(tile_b + 8 * lane, load<Eight>(b + 8 * lane));
  warp_barrier();
  // Matrices of a in the order of its registers: rows first.
  const Vec<uint32_t, 4> left = load_matrices(tile_a + (lane % 16) * 16 + lane / 16 * 8);
  const Vec<uint32_t, 4> right = load_matrices_transposed(tile_b + lane % 16 * 8);
  float mine[4] = {};
  multiply_matrices<Half>(mine, left, {{right.at[0], right.at[1]}});
  for (int i = 0; i < 4; ++i)
    store(sums + (lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2, mine[i]);
}

// The same of 16 x 8 times 8 x 8, in TF32.
__global__ void multiply_tf32(const float* a, const float* b, float* sums) {
  const int g = int(threadIdx.x) / 4, t = int(threadIdx.x) % 4;
  Vec<uint32_t, 4> left;
  Vec<uint32_t, 2> right;
  for (int i = 0; i < 4; ++i)
    left.at[i] = round_to_tf32(load<uint32_t>(a + (g + i % 2 * 8) * 8 + t + i / 2 * 4));
  for (int i = 0; i < 2; ++i) right.at[i] = round_to_tf32(load<uint32_t>(b + (t + i * 4) * 8 + g));
  float mine[4] = {};
  multiply_matrices<float>(mine, left, right);
  for (int i = 0; i < 4; ++i) store(sums + (g + i / 2 * 8) * 8 + t * 2 + i % 2, mine[i]);
}

// The same of 8 x 4 times 4 x 8, in double.
__global__ void multiply_doubles(const double* a, const double* b, double* sums) {
  const int g = int(threadIdx.x) / 4, t = int(threadIdx.x) % 4;
  double mine[2] = {};
  multiply_matrices(mine, load<double>(a + g * 4 + t), load<double>(b + t * 8 + g));
  for (int i = 0; i < 2; ++i) store(sums + g * 8 + t * 2 + i, mine[i]);
}

template <class T, class R, class Kernel>
void check_product(const char* what, Kernel kernel, int rows, int depth,
                   const char* refused_on_75) {
  std::vector<T> a(size_t(rows * depth)), b(size_t(depth * 8));
  std::vector<R> sums(size_t(rows * 8));
  const auto value = [](int i) { return R(i * 7 % 11 - 5); };
  for (int i = 0; i < rows * depth; ++i) dilconv::narrow(value(i), a[size_t(i)]);
  for (int i = 0; i < depth * 8; ++i) dilconv::narrow(value(i + 3), b[size_t(i)]);
  const auto map_all = [](auto& data, bool writable) {
    return static_cast<decltype(data.data())>(
        cuda_emulator_map(data.data(), data.size() * sizeof data[0], writable, "a matrix"));
  };
  const auto run = [&] {
    return start({1, 32, 1024}, kernel, map_all(a, false), map_all(b, false), map_all(sums, true));
  };
  expect(what, run(), "");
  bool right = true;
  for (int row = 0; row < rows; ++row)
    for (int column = 0; column < 8; ++column) {
      R sum = 0;
      for (int k = 0; k < depth; ++k) sum += value(row * depth + k) * value(k * 8 + column + 3);
      right = right && sums[size_t(row * 8 + column)] == sum;
    }
  expect(what, right);
  cuda_emulator_unmap();
  cuda_emulator_set_capability(75);
  expect(what, run(), refused_on_75);
  cuda_emulator_set_capability(80);
  cuda_emulator_unmap();
}

__global__ void load_matrices_without_barrier() {
  store_shared(shared_memory() + 16 * threadIdx.x, Vec<uint32_t, 4>{});
  load_matrices(shared_memory() + 16 * (threadIdx.x ^ 1));
}

__global__ void load_matrices_misaligned() { load_matrices(shared_memory() + 8 * threadIdx.x); }

__global__ void half_a_warp_multiplies() {
  float sums[4] = {};
  if (threadIdx.x < 16) multiply_matrices<Half>(sums, {}, {});
}

}  // namespace

void test_tensor_cores() {
  check_product<Half, float>("a product of halves", multiply_halves, 16, 16, "");
  check_product<float, float>("a product in TF32", multiply_tf32, 16, 8, "needs sm_80");
  check_product<double, double>("a product of doubles", multiply_doubles, 8, 4, "needs sm_80");
  expect_always("ldmatrix of what another lane wrote",
                "race: ", [] { return start({1, 32, 512}, load_matrices_without_barrier); });
  expect("ldmatrix, misaligned", start({1, 32, 512}, load_matrices_misaligned), "not a multiple");
  expect_always("half a warp multiplies", "lane",
                [] { return start({1, 32}, half_a_warp_multiplies); });
  expect("TF32 rounds ties away",
         round_to_tf32(0x3f801000) == 0x3f802000 && round_to_tf32(0x3f800fff) == 0x3f800000);
}

}  // namespace selftest
