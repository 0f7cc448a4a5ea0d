// Multiplying slices with ordinary multiply-adds: any type, in full precision.
#pragma once

#include "tiles.h"

namespace dilconv::cuda {

// The sums of a warp's part of a tile, each thread's as a table: sum(i, j) belongs to the tile's
// row(i) and column(j); kNeighbours consecutive j are neighbouring columns.
template <class T, class TileShape, bool kDepthInRows>
class SimtMultiply {
  static constexpr int kVector = sizeof(T) == 8 ? 2 : 4;  // elements read at a time
  static constexpr int kLanesDown = 8, kLanesAcross = 4;

 public:
  static constexpr int kSumRows = TileShape::kWarpRows / kLanesDown;
  static constexpr int kSumColumns = TileShape::kWarpColumns / kLanesAcross;
  static constexpr int kNeighbours = kVector;
  static constexpr int kBlocks = 2;  // that a multiprocessor is to hold, for registers enough

  __device__ SimtMultiply()
      : warp_row_(int(threadIdx.x) / 32 / TileShape::kWarpsAcross * TileShape::kWarpRows),
        warp_column_(int(threadIdx.x) / 32 % TileShape::kWarpsAcross * TileShape::kWarpColumns),
        lane_row_(int(threadIdx.x % kLanesDown)),
        lane_column_(int(threadIdx.x % 32 / kLanesDown)) {}

  // Lanes read neighbouring rows where rows hold the depth, else neighbouring vectors of rows.
  __device__ int row(int i) const { return warp_row_ + row_of_warp(i); }
  __device__ int column(int j) const { return warp_column_ + column_of_warp(j); }
  __device__ Sum<T> sum(int i, int j) const { return sums_[i][j]; }

  // Multiplies the first or the second half of a slice.
  template <int part, class A, class B>
  __device__ void half(A a, B b) {
    constexpr int kHalf = kSliceDepth<T> / 2;
    if constexpr (kDepthInRows) {
      multiply_rows(a, b, part * kHalf, (part + 1) * kHalf);
    } else {
      multiply_columns(a, b, part * kHalf, (part + 1) * kHalf);
    }
  }

 private:
  using Elements = Vec<T, kVector>;

  __device__ int row_of_warp(int i) const {
    return kDepthInRows ? i * kLanesDown + lane_row_
                        : (i / kVector * kLanesDown + lane_row_) * kVector + i % kVector;
  }
  __device__ int column_of_warp(int j) const {
    return (j / kVector * kLanesAcross + lane_column_) * kVector + j % kVector;
  }

  template <class A, class B>
  __device__ void multiply_rows(A a, B b, int begin, int end) {
    const A left_rows = a.from(warp_row_);
    const B right_rows = b.from(warp_column_);
#pragma unroll
    for (int depth = begin; depth < end; depth += kVector) {
      Elements left[kSumRows];
#pragma unroll
      for (int i = 0; i < kSumRows; ++i)
        left[i] = load_shared<Elements>(left_rows.at(row_of_warp(i), depth));
#pragma unroll
      for (int j = 0; j < kSumColumns; ++j) {
        const Elements right = load_shared<Elements>(right_rows.at(column_of_warp(j), depth));
#pragma unroll
        for (int i = 0; i < kSumRows; ++i)
#pragma unroll
          for (int v = 0; v < kVector; ++v)
            sums_[i][j] = multiply_add(upcast(left[i].at[v]), upcast(right.at[v]), sums_[i][j]);
      }
    }
  }

  template <class A, class B>
  __device__ void multiply_columns(A a, B b, int begin, int end) {
#pragma unroll
    for (int depth = begin; depth < end; ++depth) {
      Elements left[kSumRows / kVector], right[kSumColumns / kVector];
#pragma unroll
      for (int i = 0; i < kSumRows / kVector; ++i)
        left[i] = load_shared<Elements>(a.at(row(i * kVector), depth));
#pragma unroll
      for (int j = 0; j < kSumColumns / kVector; ++j)
        right[j] = load_shared<Elements>(b.at(column(j * kVector), depth));
#pragma unroll
      for (int i = 0; i < kSumRows; ++i)
#pragma unroll
        for (int j = 0; j < kSumColumns; ++j)
          sums_[i][j] = multiply_add(upcast(left[i / kVector].at[i % kVector]),
                                     upcast(right[j / kVector].at[j % kVector]), sums_[i][j]);
    }
  }

  int warp_row_, warp_column_, lane_row_, lane_column_;
  Sum<T> sums_[kSumRows][kSumColumns] = {};
};

}  // namespace dilconv::cuda
