// grad_weight: output channels by (tap, input channel), summed over pixels. The sum is split into
// parts that are added in order afterwards, so that the result is the same every time.
#pragma once

#include "epilogue.h"
#include "pipeline.h"

namespace dilconv::cuda {

// Output positions of one axis at which at least one of the taps [first, last] reads inside.
struct OutputRange {
  int begin, count;
};

__device__ inline OutputRange useful_positions(const WeightParams& p, int axis, int first,
                                               int last) {
  const int stride = p.stride[axis];
  // Position i reads i * stride + tap * dilation - pad.
  const int lowest = p.pad[axis] - last * p.dilation[axis];
  const int highest = p.in_size[axis] - 1 + p.pad[axis] - first * p.dilation[axis];
  const int begin = lowest > 0 ? (lowest + stride - 1) / stride : 0;
  int end = highest < 0 ? 0 : highest / stride + 1;
  if (end > p.out_size[axis]) end = p.out_size[axis];
  return {begin, end > begin ? end - begin : 0};
}

// Which part of the product a block writes, and which pixels it sums over.
struct WeightBlock {
  int first_row, first_column, group, split;
  OutputRange h, w;

  __device__ WeightBlock(const WeightParams& p, int tile_rows, int tile_columns) {
    unsigned rest = blockIdx.x;
    const auto digit = [&](int base) {
      const int value = int(rest % unsigned(base));
      rest /= unsigned(base);
      return value;
    };
    first_column = digit(p.column_tiles) * tile_columns;
    first_row = digit(p.row_tiles) * tile_rows;
    group = digit(p.groups);
    split = int(rest);

    const int first = (p.taps_are_rows ? first_row : first_column) / p.padded_depths;
    const int end = p.taps_are_rows ? first_row + tile_rows : first_column + tile_columns;
    const int taps = p.kernel[0] * p.kernel[1];
    const int last = end - 1 < taps * p.padded_depths ? (end - 1) / p.padded_depths : taps - 1;
    const int width = p.kernel[1];
    const bool one_row = first / width == last / width;
    h = useful_positions(p, 0, first / width, last / width);
    w = useful_positions(p, 1, one_row ? first % width : 0, one_row ? last % width : width - 1);
  }

  __device__ Pixels pixels(const WeightOperand& operand, int batch) const {
    return {batch,
            h.count,
            w.count,
            operand.origin[0] + h.begin * operand.step[0],
            operand.origin[1] + w.begin * operand.step[1],
            operand.step[0],
            operand.step[1]};
  }
};

template <class T, template <class, class, bool> class Multiplication, class TileShape,
          bool kCopies>
__global__ void __launch_bounds__(TileShape::kThreads,
                                  (Multiplication<T, TileShape, false>::kBlocks))
    grad_weight_kernel(const WeightParams p) {
  using A = DepthAcrossRows<T, TileShape::kRows>;
  using B = DepthAcrossRows<T, TileShape::kColumns>;
  constexpr int kThreads = TileShape::kThreads;
  const WeightBlock block(p, TileShape::kRows, TileShape::kColumns);
  const int64_t pixels = int64_t(p.batch) * block.h.count * block.w.count;
  const int64_t slices = (pixels + kSliceDepth<T> - 1) / kSliceDepth<T>;
  const int64_t first_slice = slices * block.split / p.splits;
  const int64_t end_slice = slices * (block.split + 1) / p.splits;

  const ImageMatrix<T> left(p.left.image, block.group, p.left.taps);
  const ImageMatrix<T> right(p.right.image, block.group, p.right.taps);
  const Pixels left_pixels = block.pixels(p.left, p.batch);
  const Pixels right_pixels = block.pixels(p.right, p.batch);
  const Odometer first_pixel = left_pixels.base().at(uint64_t(first_slice) * kSliceDepth<T>);
  using LoadA = PixelLoader<T, A, kThreads, kCopies>;
  using LoadB = PixelLoader<T, B, kThreads, kCopies>;
  char* const table_a = shared_memory();
  char* const table_b = table_a + LoadA::kTableBytes;
  int64_t* const written_rows = reinterpret_cast<int64_t*>(table_b + LoadB::kTableBytes);
  char* const stages = reinterpret_cast<char*>(written_rows + TileShape::kRows);
  static_assert(LoadA::kTableBytes + LoadB::kTableBytes + TileShape::kRows * 8 ==
                    TileShape::kWeightTableBytes,
                "sizes differ");
  for (int m = int(threadIdx.x); m < TileShape::kRows; m += kThreads) {
    const int row = block.first_row + m;
    store_shared(written_rows + m, row < p.rows ? int64_t(row) * p.pitch : kNotWritten);
  }
  // The first warps work out the left image's rows, the last ones the right image's.
  const int thread = int(threadIdx.x);
  const bool first_half = thread < kThreads / 2;
  RowWalk walk(left_pixels.base(), first_pixel, kSliceDepth<T>,
               first_half ? thread : kThreads - 1 - thread);
  LoadA load_left(left, left_pixels, walk, first_half, block.first_row, table_a);
  LoadB load_right(right, right_pixels, walk, !first_half, block.first_column, table_b);

  Multiplication<T, TileShape, false> multiply;
  multiply_slices<A, B>(stages, int(end_slice - first_slice), load_left, load_right, multiply);

  const int64_t part = (int64_t(block.split) * p.groups + block.group) * p.rows;
  write_sums(
      multiply, static_cast<Sum<T>*>(p.partial) + part * p.pitch, true, written_rows,
      [&](int n) {
        const int column = block.first_column + n;
        return column < p.pitch ? int64_t(column) : kNotWritten;
      },
      [](int) { return Sum<T>(0); });
}

}  // namespace dilconv::cuda
