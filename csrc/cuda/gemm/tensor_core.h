// Multiplying slices with tensor cores.
//
// All types share one geometry in bytes: an instruction's depth is 32 bytes of a slice's row (16
// 16-bit elements, 8 TF32, 4 float64), and a thread's part of a left operand is two rows, eight
// apart. ldmatrix moves 16-bit elements, or, where the depth lies in rows, any 4 bytes.
#pragma once

#include "tiles.h"

namespace dilconv::cuda {

// One instruction for 16-bit elements (m16n8k16), and for float32 as TF32 (m16n8k8).
template <class T>
struct MatrixInstruction {
  static constexpr int kRows = 16, kDepth = 32 / int(sizeof(T));
  static constexpr bool kTf32 = sizeof(T) == 4;
  using Left = Vec<uint32_t, 4>;
  using Right = Vec<uint32_t, 2>;
  using Sums = float[4];

  // Rows row .. row + 15 of the left operand.
  template <class A>
  static __device__ Left left(A a, int lane, int row, int depth) {
    if constexpr (A::kDepthInRows) {
      return rounded(load_matrices(a.at(row + lane % 16, depth + lane / 16 * kChunk<T>)));
    } else if constexpr (!kTf32) {
      return load_matrices_transposed(
          a.at(row + lane / 8 % 2 * 8, depth + lane / 16 * 8 + lane % 8));
    } else {
      Left result;
#pragma unroll
      for (int i = 0; i < 4; ++i)
        result.at[i] =
            load_shared<uint32_t>(a.at(row + lane / 4 + i % 2 * 8, depth + lane % 4 + i / 2 * 4));
      return rounded(result);
    }
  }

  // Columns column .. column + 15 of the right operand: two instructions' worth.
  template <class B>
  static __device__ void right(B b, int lane, int column, int depth, Right (&result)[2]) {
    Left both;
    if constexpr (B::kDepthInRows) {
      both = rounded(
          load_matrices(b.at(column + lane / 16 * 8 + lane % 8, depth + lane / 8 % 2 * kChunk<T>)));
    } else if constexpr (!kTf32) {
      both = load_matrices_transposed(b.at(column + lane / 16 * 8, depth + lane % 16));
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        both.at[i] = load_shared<uint32_t>(
            b.at(column + lane / 4 + i / 2 * 8, depth + lane % 4 + i % 2 * 4));
      both = rounded(both);
    }
    result[0] = {both.at[0], both.at[1]};
    result[1] = {both.at[2], both.at[3]};
  }

  static __device__ void multiply(Sums& sums, const Left& left, const Right& right) {
    multiply_matrices<T>(sums, left, right);
  }

 private:
  static __device__ Left rounded(Left bits) {
    if constexpr (kTf32)
#pragma unroll
      for (int i = 0; i < 4; ++i) bits.at[i] = round_to_tf32(bits.at[i]);
    return bits;
  }
};

// For float64 (m8n8k4).
template <>
struct MatrixInstruction<double> {
  static constexpr int kRows = 8, kDepth = 4;
  using Left = double;
  using Right = double;
  using Sums = double[2];

  template <class A>
  static __device__ Left left(A a, int lane, int row, int depth) {
    return load_shared<double>(a.at(row + lane / 4, depth + lane % 4));
  }

  template <class B>
  static __device__ void right(B b, int lane, int column, int depth, Right (&result)[2]) {
    result[0] = left(b, lane, column, depth);
    result[1] = left(b, lane, column + 8, depth);
  }

  static __device__ void multiply(Sums& sums, Left left, Right right) {
    multiply_matrices(sums, left, right);
  }
};

// As SimtMultiply.
template <class T, class TileShape, bool kDepthInRows>
class TensorCoreMultiply {
  using Instruction = MatrixInstruction<T>;
  static constexpr int kDown = TileShape::kWarpRows / Instruction::kRows;
  static constexpr int kAcross = TileShape::kWarpColumns / 8;
  static constexpr int kRowsOfThread = Instruction::kRows / 8;

 public:
  static constexpr int kSumRows = kDown * kRowsOfThread;
  static constexpr int kSumColumns = kAcross * 2;
  static constexpr int kNeighbours = 2;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  static constexpr int kBlocks = 1;  // shared memory has no room for more
#else
  static constexpr int kBlocks = kSumRows * kSumColumns * sizeof(Sum<T>) < 512 ? 3 : 2;
#endif

  __device__ TensorCoreMultiply()
      : lane_(int(threadIdx.x) % 32),
        warp_row_(int(threadIdx.x) / 32 / TileShape::kWarpsAcross * TileShape::kWarpRows),
        warp_column_(int(threadIdx.x) / 32 % TileShape::kWarpsAcross * TileShape::kWarpColumns) {}

  __device__ int row(int i) const { return warp_row_ + i * 8 + lane_ / 4; }
  __device__ int column(int j) const { return warp_column_ + j / 2 * 8 + lane_ % 4 * 2 + j % 2; }
  __device__ Sum<T> sum(int i, int j) const {
    return sums_[i / kRowsOfThread][j / 2][i % kRowsOfThread * 2 + j % 2];
  }

  template <int part, class A, class B>
  __device__ void half(A a, B b) {
    constexpr int kDepth = Instruction::kDepth;
    static_assert(kDepth * 2 == kSliceDepth<T>, "a slice is two instructions deep");
    // What is known of a row or column while compiling simplifies its address.
    constexpr bool kFromA = TileShape::kWarpRows % A::kUnit == 0;
    constexpr bool kFromB = TileShape::kWarpColumns % B::kUnit == 0;
    const A rows = kFromA ? a.from(warp_row_) : a;
    const B columns = kFromB ? b.from(warp_column_) : b;
    typename Instruction::Left left[kDown];
    typename Instruction::Right right[kAcross / 2][2];
#pragma unroll
    for (int i = 0; i < kDown; ++i)
      left[i] = Instruction::left(rows, lane_, (kFromA ? 0 : warp_row_) + i * Instruction::kRows,
                                  part * kDepth);
#pragma unroll
    for (int j = 0; j < kAcross / 2; ++j)
      Instruction::right(columns, lane_, (kFromB ? 0 : warp_column_) + j * 16, part * kDepth,
                         right[j]);
#pragma unroll
    for (int i = 0; i < kDown; ++i)
#pragma unroll
      for (int j = 0; j < kAcross; ++j)
        Instruction::multiply(sums_[i][j], left[i], right[j / 2][j % 2]);
  }

 private:
  int lane_, warp_row_, warp_column_;
  typename Instruction::Sums sums_[kDown][kAcross] = {};
};

}  // namespace dilconv::cuda
