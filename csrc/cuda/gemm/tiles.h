// How a matrix product is cut into tiles, and how tiles lie in shared memory.
//
// Every tile is a table of 16-byte chunks whose places are permuted (swizzled) so that neither
// writing chunks of one row, or of eight neighbouring rows, nor what the multiplications read meets
// a bank conflict.
#pragma once

#include "../device.h"

namespace dilconv::cuda {

constexpr int kChunkBytes = 16;
// The depth of a slice, the part of the sum that is multiplied at a time.
constexpr int kSliceBytes = 64;
constexpr int kStages =
    3;  // slices in shared memory: one is multiplied, the next two are on their way

template <class T>
constexpr int kChunk = kChunkBytes / int(sizeof(T));  // elements
template <class T>
constexpr int kSliceDepth = kSliceBytes / int(sizeof(T));

constexpr int kMostSliceDepth = kSliceDepth<int16_t>;

// A block's part of the result, rows by columns, and that of each of its warps.
template <int rows, int columns, int warp_rows, int warp_columns>
struct Tile {
  static constexpr int kRows = rows, kColumns = columns;
  static constexpr int kWarpRows = warp_rows, kWarpColumns = warp_columns;
  static constexpr int kWarpsAcross = columns / warp_columns;
  static constexpr int kThreads = 32 * (rows / warp_rows) * kWarpsAcross;
  static constexpr int kStageBytes = (rows + columns) * kSliceBytes;
  // What the kernels keep about rows and columns, in tables before the stages.
  static constexpr int kGatherTableBytes = (rows + columns) * 16 + rows * 8;
  static constexpr int kWeightTableBytes =
      (rows + columns) * (16 + 4) + rows * 8 + 4 * kMostSliceDepth * 16;
  static constexpr int kGatherBytes = kGatherTableBytes + kStages * kStageBytes;
  static constexpr int kWeightBytes = kWeightTableBytes + kStages * kStageBytes;
};
using LargeTile = Tile<128, 128, 64, 64>;
using MediumTile = Tile<128, 64, 64, 32>;
using NarrowTile = Tile<128, 32, 32, 32>;
using SmallTile = Tile<64, 64, 32, 32>;

// One operand's slice, stored with the depth of the sum along the rows: row m holds four chunks.
template <class T, int width>
struct DepthInRows {
  static constexpr int kRows = width, kChunksPerRow = kSliceBytes / kChunkBytes;
  static constexpr bool kDepthInRows = true;
  char* data;

  // Two rows share the 128 bytes of all banks.
  __device__ char* chunk(int row, int index) const {
    const int swizzle = (row & 2) | ((row >> 2) & 1);
    return data + row * kSliceBytes + ((index ^ swizzle) * kChunkBytes);
  }
  __device__ char* at(int m, int depth) const {
    return chunk(m, depth / kChunk<T>) + depth % kChunk<T> * int(sizeof(T));
  }
  // The same from row `first` on, if that is a multiple of kUnit, which keeps the swizzle.
  static constexpr int kUnit = 8;
  __device__ DepthInRows from(int first) const { return {data + first * kSliceBytes}; }
  __device__ DepthInRows from_row(int first) const { return from(first); }
};

// The same, stored with the depth of the sum across the rows: row k holds `width` elements.
template <class T, int width>
struct DepthAcrossRows {
  static constexpr int kRows = kSliceDepth<T>, kChunksPerRow = width / kChunk<T>;
  static constexpr bool kDepthInRows = false;
  char* data;

  __device__ char* chunk(int row, int index) const {
    const int pairs = (row & 2) | ((row >> 2) & 1);
    // Eight 16-bit rows are read at one chunk; four wider ones at two.
    const int swizzle = kChunksPerRow == 4 ? pairs
                        : sizeof(T) == 2   ? row & 7
                                           : ((row & 3) << 1) | ((row >> 2) & 1);
    return data + row * (kChunksPerRow * kChunkBytes) + ((index ^ swizzle) * kChunkBytes);
  }
  __device__ char* at(int m, int depth) const {
    return chunk(depth, m / kChunk<T>) + m % kChunk<T> * int(sizeof(T));
  }
  static constexpr int kUnit = 8 * kChunk<T>;
  __device__ DepthAcrossRows from(int first) const { return {data + first * int(sizeof(T))}; }
  // The same for the rows, whose swizzle repeats every eight.
  __device__ DepthAcrossRows from_row(int first) const {
    return {data + first * (kChunksPerRow * kChunkBytes)};
  }
};

}  // namespace dilconv::cuda
