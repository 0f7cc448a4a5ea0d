// The host twins of csrc/cuda/device.h: asynchronous copies and tensor cores. Included by device.h.
//
// Register layouts are those of the PTX ISA, "Matrix multiply-accumulate operation using mma
// instruction": lane 4 * g + t holds row g of a, and column g of b.
#pragma once

namespace dilconv::cuda {

// --- asynchronous copies --------------------------------------------------------------------

inline void copy_async(void* shared, const void* global, bool valid, Site site = Site::here()) {
  using Line = Vec<uint32_t, 4>;
  if (emulator::capability() >= 80)
    emulator::copy_async(shared, global, sizeof(Line), valid, site);
  else
    store_shared(shared, valid ? load<Line>(global, site) : Line{}, site);
}

inline void commit_async(Site site = Site::here()) {
  if (emulator::capability() >= 80) emulator::commit_async(site);
}

template <int pending>
inline void wait_async(Site site = Site::here()) {
  if (emulator::capability() >= 80) emulator::wait_async(pending, site);
}

// --- ldmatrix -------------------------------------------------------------------------------

// What a lane brings and takes: a row of 8 elements, and its registers.
struct MatrixLane {
  Vec<uint16_t, 8> row;
  Vec<uint32_t, 4> registers;
};

// Each lane reads the row that it names. transposed: registers hold elements of one column.
template <bool transposed>
inline Vec<uint32_t, 4> distribute_matrices(const char* name, const void* row, Site site) {
  MatrixLane mine = {load_shared<Vec<uint16_t, 8>>(row, site), {}};
  emulator::collective(
      name, emulator::kAllLanes, &mine,
      [](void* const* lanes) {
        for (int lane = 0; lane < warpSize; ++lane)
          for (int m = 0; m < 4; ++m) {
            const int g = lane / 4, t = lane % 4;
            uint32_t pair[2];
            for (int i = 0; i < 2; ++i) {
              const int r = transposed ? 2 * t + i : g, c = transposed ? g : 2 * t + i;
              pair[i] = static_cast<const MatrixLane*>(lanes[8 * m + r])->row.at[c];
            }
            static_cast<MatrixLane*>(lanes[lane])->registers.at[m] = pair[0] | pair[1] << 16;
          }
      },
      site);
  return mine.registers;
}

inline Vec<uint32_t, 4> load_matrices(const void* row, Site site = Site::here()) {
  return distribute_matrices<false>("load_matrices", row, site);
}
inline Vec<uint32_t, 4> load_matrices_transposed(const void* row, Site site = Site::here()) {
  return distribute_matrices<true>("load_matrices_transposed", row, site);
}

// --- mma ------------------------------------------------------------------------------------

inline uint32_t round_to_tf32(uint32_t bits) {
  if (emulator::capability() < 80) return bits;
  const bool finite = (bits & 0x7f800000) != 0x7f800000;
  return finite ? (bits + 0x1000) & ~0x1fffu : bits;  // ties away from zero
}

// Element i of those in a register; TF32 looks at 19 bits.
inline float element(Half, uint32_t bits, int i) { return widen(Half{uint16_t(bits >> 16 * i)}); }
inline float element(BFloat16, uint32_t bits, int i) {
  return widen(BFloat16{uint16_t(bits >> 16 * i)});
}
inline float element(float, uint32_t bits, int) { return bits_float(bits & ~0x1fffu); }

struct MmaLane {
  float* sums;
  const uint32_t* a;
  const uint32_t* b;
};

// 16x8 sums over 8 registers' worth of products. The order in which hardware adds is not known:
// here in double, rounded once.
template <class T>
inline void compute_mma(void* const* lanes) {
  constexpr int kPacked = 4 / sizeof(T);
  const auto at = [&](int lane) { return static_cast<MmaLane*>(lanes[lane]); };
  for (int row = 0; row < 16; ++row)
    for (int column = 0; column < 8; ++column) {
      float& result = at(row % 8 * 4 + column / 2)->sums[row / 8 * 2 + column % 2];
      double sum = result;
      for (int k = 0; k < 8; ++k)
        for (int i = 0; i < kPacked; ++i)
          sum += double(element(T{}, at(row % 8 * 4 + k % 4)->a[k / 4 * 2 + row / 8], i)) *
                 element(T{}, at(column * 4 + k % 4)->b[k / 4], i);
      result = float(sum);
    }
  emulator::arithmetic.tensor_core += 16 * 8 * 8 * kPacked;
}

template <class T>
inline void multiply_matrices(float (&sums)[4], const Vec<uint32_t, 4>& a,
                              const Vec<uint32_t, 2>& b, Site site = Site::here()) {
  if constexpr (!std::is_same_v<T, Half>)
    emulator::require_capability(80, "mma of bfloat16 and TF32", site);
  MmaLane mine = {sums, a.at, b.at};
  emulator::collective("mma", emulator::kAllLanes, &mine, compute_mma<T>, site);
}

inline void multiply_matrices(double (&sums)[2], double a, double b, Site site = Site::here()) {
  emulator::require_capability(80, "mma of float64", site);
  struct Lane {
    double* sums;
    double a, b;
  } mine = {sums, a, b};
  emulator::collective(
      "mma", emulator::kAllLanes, &mine,
      [](void* const* lanes) {
        const auto at = [&](int lane) { return static_cast<Lane*>(lanes[lane]); };
        for (int row = 0; row < 8; ++row)
          for (int column = 0; column < 8; ++column) {
            double& sum = at(row * 4 + column / 2)->sums[column % 2];
            for (int k = 0; k < 4; ++k)
              sum = std::fma(at(row * 4 + k)->a, at(column * 4 + k)->b, sum);
          }
        emulator::arithmetic.tensor_core += 8 * 8 * 4;
      },
      site);
}

}  // namespace dilconv::cuda
