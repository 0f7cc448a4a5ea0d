// Writing the sums of a tile.
#pragma once

#include "tiles.h"

namespace dilconv::cuda {

constexpr int64_t kNotWritten = -1;

// row_offsets: a table in shared memory of where each row of the tile lies in `out`, or
// kNotWritten. column_offset(column): the same of a column. addend(column): what is added to a
// column's sums. together: Multiply::kNeighbours columns take one store, and all or none of them
// are written.
template <class T, class Multiply, class ColumnOffset, class Addend>
__device__ void write_sums(const Multiply& multiply, T* out, bool together,
                           const int64_t* row_offsets, const ColumnOffset& column_offset,
                           const Addend& addend) {
  constexpr int kNeighbours = Multiply::kNeighbours;
  int64_t columns[Multiply::kSumColumns];
  Sum<T> added[Multiply::kSumColumns];
#pragma unroll
  for (int j = 0; j < Multiply::kSumColumns; ++j) {
    columns[j] = column_offset(multiply.column(j));
    added[j] = columns[j] == kNotWritten ? Sum<T>(0) : addend(multiply.column(j));
  }
#pragma unroll
  for (int i = 0; i < Multiply::kSumRows; ++i) {
    warp_barrier();  // keeps the compiler from computing all rows' addresses at once
    const int64_t row = load_shared<int64_t>(row_offsets + multiply.row(i));
    if (row == kNotWritten) continue;
#pragma unroll
    for (int j = 0; j < Multiply::kSumColumns; j += kNeighbours) {
      Vec<T, kNeighbours> values;
#pragma unroll
      for (int v = 0; v < kNeighbours; ++v)
        values.at[v] = downcast<T>(multiply.sum(i, j + v) + added[j + v]);
      if (together) {
        if (columns[j] != kNotWritten) store(out + row + columns[j], values);
      } else {
#pragma unroll
        for (int v = 0; v < kNeighbours; ++v)
          if (columns[j + v] != kNotWritten) store(out + row + columns[j + v], values.at[v]);
      }
    }
  }
}

}  // namespace dilconv::cuda
