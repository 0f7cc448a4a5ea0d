// conv2d and grad_input: written pixels by written channels, summed over (tap, read channel). Where
// these are few blocks, the sum is split by read channels; the partial sums are added in order
// afterwards.
#pragma once

#include "epilogue.h"
#include "pipeline.h"

namespace dilconv::cuda {

// The taps of one axis that read inside the image for some position of a block.
struct AxisTaps {
  int first, count;  // kernel indices first, first + kernel_step, ...
  int origin;        // what the first reads for position 0
};

// For positions [from, to] of a residue.
__device__ inline AxisTaps reaching_taps(const GatherAxis& axis, int residue, int from, int to) {
  AxisTaps taps = {0, 0, 0};
  for (int k = 0; k < axis.kernel_step && k < axis.kernel; ++k) {
    const int distance = residue + axis.pad - k * axis.dilation;
    if (distance % axis.residues != 0) continue;
    taps = {k, (axis.kernel - 1 - k) / axis.kernel_step + 1,
            axis.sign * (distance / axis.residues)};
    break;
  }
  const auto reaches = [&](int tap) {
    const int origin = taps.origin + tap * axis.tap_step;
    return origin + to * axis.read_step >= 0 && origin + from * axis.read_step < axis.read;
  };
  while (taps.count > 0 && !reaches(0)) {
    taps.first += axis.kernel_step;
    taps.origin += axis.tap_step;
    --taps.count;
  }
  while (taps.count > 0 && !reaches(taps.count - 1)) --taps.count;
  return taps;
}

// Which part of the result a block writes.
class GatherBlock {
 public:
  __device__ GatherBlock(const GatherParams& p, int tile_rows, int tile_columns) : p_(p) {
    unsigned rest = blockIdx.x;
    const auto digit = [&](int base) {
      const int value = int(rest % unsigned(base));
      rest /= unsigned(base);
      return value;
    };
    first_channel_ = digit(p.channel_tiles) * tile_columns;
    first_pixel_ = digit(p.tiles_per_strip) * tile_rows;
    first_column_ = digit(p.strips) * p.strip_width;
    residue_h_ = digit(residues_of(p.h));
    residue_w_ = digit(residues_of(p.w));
    first_sample_ = p.first_sample + digit(p.sample_groups) * p.samples_per_tile;
    split_ = digit(p.splits);
    group_ = int(rest);
    rows_ = (p.h.written - 1 - residue_h_) / p.h.residues + 1;
    columns_ = (p.w.written - 1 - residue_w_) / p.w.residues + 1 - first_column_;
    if (columns_ > p.strip_width) columns_ = p.strip_width;
    last_pixel_ = first_pixel_ + tile_rows - 1;
  }

  __device__ int group() const { return group_; }
  __device__ int split() const { return split_; }
  __device__ int first_channel() const { return first_channel_; }
  __device__ bool empty() const { return columns_ <= 0 || first_pixel_ >= pixels(); }

  __device__ AxisTaps taps_h() const {
    const bool whole = p_.samples_per_tile > 1;
    const int last = last_pixel_ / columns_;
    return reaching_taps(p_.h, residue_h_, whole ? 0 : first_pixel_ / columns_,
                         whole || last >= rows_ ? rows_ - 1 : last);
  }
  __device__ AxisTaps taps_w() const {
    return reaching_taps(p_.w, residue_w_, first_column_, first_column_ + columns_ - 1);
  }

  struct Pixel {
    int sample;  // negative if there is no such pixel
    int h, w;    // positions of the residue
  };
  __device__ Pixel pixel(int tile_row) const {
    int index = first_pixel_ + tile_row;
    int sample = first_sample_;
    if (p_.samples_per_tile > 1) {
      const int in_tile = index / pixels();
      if (in_tile >= p_.samples_per_tile) return {-1, 0, 0};
      sample += in_tile;
      index -= in_tile * pixels();
    }
    if (index >= pixels() || sample >= p_.batch) return {-1, 0, 0};
    return {sample, index / columns_, first_column_ + index % columns_};
  }

  // Of the pixel's first channel of the group.
  __device__ int64_t written_offset(const Pixel& at) const {
    if (at.sample < 0) return kNotWritten;
    return (at.sample - p_.first_written) * p_.written_sample +
           (residue_h_ + at.h * p_.h.residues) * p_.written_row +
           (residue_w_ + at.w * p_.w.residues) * p_.written_column;
  }

 private:
  // Those that have positions.
  __device__ static int residues_of(const GatherAxis& axis) {
    return axis.residues < axis.written ? axis.residues : axis.written;
  }
  __device__ int pixels() const { return rows_ * columns_; }

  const GatherParams& p_;
  int group_, split_, first_channel_, first_sample_, residue_h_, residue_w_;
  int rows_, columns_, first_column_, first_pixel_, last_pixel_;
};

template <class T, template <class, class, bool> class Multiplication, class TileShape,
          Chunks kPixels>
__global__ void __launch_bounds__(TileShape::kThreads,
                                  (Multiplication<T, TileShape, true>::kBlocks))
    gather_kernel(const GatherParams p) {
  using A = DepthInRows<T, TileShape::kRows>;
  using B = DepthInRows<T, TileShape::kColumns>;
  const GatherBlock block(p, TileShape::kRows, TileShape::kColumns);
  if (block.empty()) return;

  const AxisTaps h = block.taps_h(), w = block.taps_w();
  const int first_read = block.split() * p.split_channels;
  const ImageMatrix<T> read(p.read, block.group(), {h.count, w.count, p.h.tap_step, p.w.tap_step},
                            first_read);
  const ImageMatrix<T> weight(p.weight, block.group(),
                              {h.count, w.count, p.h.kernel_step, p.w.kernel_step}, first_read);
  PixelRow* const pixel_rows = reinterpret_cast<PixelRow*>(shared_memory());
  PixelRow* const weight_rows = pixel_rows + TileShape::kRows;
  int64_t* const written_rows = reinterpret_cast<int64_t*>(weight_rows + TileShape::kColumns);
  for (int m = int(threadIdx.x); m < TileShape::kRows; m += TileShape::kThreads) {
    const GatherBlock::Pixel at = block.pixel(m);
    store_shared(pixel_rows + m, at.sample < 0
                                     ? PixelRow{0, kNowhere, 0}
                                     : read.row(at.sample, h.origin + at.h * p.h.read_step,
                                                w.origin + at.w * p.w.read_step));
    store_shared(written_rows + m, block.written_offset(at));
  }
  for (int n = int(threadIdx.x); n < TileShape::kColumns; n += TileShape::kThreads) {
    const int channel = block.first_channel() + n;
    store_shared(weight_rows + n, channel < p.written_channels
                                      ? weight.row(channel, h.first, w.first)
                                      : PixelRow{0, kNowhere, 0});
  }
  block_barrier();
  DepthLoader<T, A, TileShape::kThreads, kPixels> load_pixels(read, pixel_rows);
  // Weights of few channels are read where they are, like the pixels; others are copied.
  constexpr Chunks kWeights =
      kPixels == Chunks::kSeveralTaps ? Chunks::kSeveralTaps : Chunks::kCopied;
  DepthLoader<T, B, TileShape::kThreads, kWeights> load_weights(weight, weight_rows);
  Multiplication<T, TileShape, true> multiply;
  const int slices = (read.column_count() + kSliceDepth<T> - 1) / kSliceDepth<T>;
  multiply_slices<A, B>(shared_memory() + TileShape::kGatherTableBytes, slices, load_pixels,
                        load_weights, multiply);

  const auto write = [&](auto* written) {
    write_sums(
        multiply, written + block.split() * p.written_split + block.group() * p.written_group,
        p.stores_together, written_rows,
        [&](int column) {
          const int channel = block.first_channel() + column;
          return channel < p.written_channels ? channel * p.written_channel : kNotWritten;
        },
        [&](int column) {
          if (!p.bias) return Sum<T>(0);
          const int channel = block.group() * p.written_channels + block.first_channel() + column;
          return Sum<T>(upcast(load<T>(static_cast<const T*>(p.bias) + channel)));
        });
  };
  if (p.splits > 1) {
    write(static_cast<Sum<T>*>(p.written));
  } else {
    write(static_cast<T*>(p.written));
  }
}

}  // namespace dilconv::cuda
