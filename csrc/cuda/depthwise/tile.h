// Copies part of an image plane into shared memory, as sums' type, with zeros outside the image.
#pragma once

#include <type_traits>

#include "../device.h"
#include "plan.h"

namespace dilconv::cuda::depthwise {

template <class S, int n>
__device__ void store_wide(Sum<S>* place, const Vec<S, n>& value) {
  constexpr int kStored = n * sizeof(Sum<S>) > 16 ? 16 / sizeof(Sum<S>) : n;
#pragma unroll
  for (int i = 0; i < n; i += kStored) {
    Vec<Sum<S>, kStored> wide;
#pragma unroll
    for (int k = 0; k < kStored; ++k) wide.at[k] = upcast(value.at[i + k]);
    store_shared(place + i, wide);
  }
}

// All threads of the block call it. Plane p begins at offsets[p] of `image`; if that is negative,
// it is all zeros, as is what lies outside the image. Vectors are aligned, and lie wholly inside or
// outside.
template <int vector, class S>
__device__ void load_vectors(Sum<S>* tile, const int64_t* offsets, const S* image, int first_row,
                             int first_column, const TileSource& source) {
  // Held as they came: unpacked, 16-bit elements would take a register each.
  using Part = std::conditional_t<vector * sizeof(S) % 4 == 0, uint32_t, uint16_t>;
  using Raw = Vec<Part, int(vector * sizeof(S) / sizeof(Part))>;
  constexpr int kAtOnce = 4;  // loads in flight
  int plane = threadIdx.x;
  int column = source.row_vectors.split(plane), row = source.plane_rows.split(plane);
  while (plane < source.planes) {
    Raw values[kAtOnce];
    int places[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      places[i] = -1;
      values[i] = {};
      if (plane >= source.planes) continue;
      const int h = first_row + row * source.row_jump;
      int w = first_column + column * vector;
      if (source.fold.value() > 1) {
        int jumps = column;
        w = first_column + source.fold.split(jumps);
        w += jumps * source.column_jump;
      }
      places[i] = (plane * source.rows + row) * source.pitch + column * vector;
      const int64_t offset = load_shared<int64_t>(offsets + plane);
      if (offset >= 0 && unsigned(h) < unsigned(source.height) &&
          unsigned(w) < unsigned(source.width))
        values[i] =
            load<Raw>(image + offset + (h * source.strides.row + w * source.strides.column));
      plane += source.plane_step;
      row += source.row_step;
      column += source.vector_step;
      if (column >= source.row_vectors.value()) {
        column -= source.row_vectors.value();
        ++row;
      }
      if (row >= source.rows) {
        row -= source.rows;
        ++plane;
      }
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i)
      if (places[i] >= 0) store_wide<S>(tile + places[i], bit_cast<Vec<S, vector>>(values[i]));
  }
}

// The tile's first row and column may lie outside the image.
template <class S>
__device__ void load_tile(Sum<S>* tile, const int64_t* offsets, const S* image, int first_row,
                          int first_column, const TileSource& source) {
  constexpr int kWidest = 16 / sizeof(S);
  if (source.vector == kWidest)
    return load_vectors<kWidest>(tile, offsets, image, first_row, first_column, source);
  if constexpr (sizeof(S) == 2)
    if (source.vector == 2)
      return load_vectors<2>(tile, offsets, image, first_row, first_column, source);
  load_vectors<1>(tile, offsets, image, first_row, first_column, source);
}

// The elements to a vector load of planes that begin at `data`: what makes 16 bytes, or 4, or 1
// element, as every row begins at a multiple of it.
inline int vector_elements(const void* data, int64_t bytes, const Strides& strides, int width) {
  const auto fits = [&](int64_t elements) {
    return reinterpret_cast<uintptr_t>(data) % (elements * bytes) == 0 && strides.column == 1 &&
           strides.row % elements == 0 && strides.channel % elements == 0 &&
           strides.batch % elements == 0 && width % elements == 0;
  };
  if (fits(16 / bytes)) return int(16 / bytes);
  return bytes == 2 && fits(2) ? 2 : 1;
}

}  // namespace dilconv::cuda::depthwise
