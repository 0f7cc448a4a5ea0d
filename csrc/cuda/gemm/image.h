// An image as a matrix that is never stored: a row for each pixel, a column for each (tap,
// channel). The element is what the tap reads for the pixel, or zero outside the image.
#pragma once

#include <climits>

#include "indexing.h"
#include "params.h"
#include "tiles.h"

namespace dilconv::cuda {

// A matrix row: what the tap without displacement reads.
struct alignas(16) PixelRow {
  int64_t offset;
  int y, x;
};
constexpr int kNowhere = INT_MIN / 2;  // the y of a row or a column that does not exist

// A matrix column: the tap's displacement, and how many channels there are from it on.
struct TapColumn {
  int64_t offset;
  int y, x;
  int channels;
};

template <class T>
class ImageMatrix {
 public:
  // From `first_channel` of the group on.
  __device__ ImageMatrix(const ImageParams& image, int group, const TapGrid& taps,
                         int first_channel = 0)
      : first_(group * image.group + first_channel * image.channel),
        channels_(image.channels - first_channel),
        image_(image),
        taps_(taps),
        columns_(taps.columns > 0 ? taps.columns : 1,
                 image.padded_channels > 0 ? image.padded_channels : 1) {}

  __device__ const OdometerBase& columns() const { return columns_; }
  // Channels of one tap in a chunk.
  __device__ int channels_per_tap() const {
    return columns_.inner() < kChunk<T> ? columns_.inner() : kChunk<T>;
  }
  __device__ int column_count() const {
    return taps_.rows * taps_.columns * image_.padded_channels;
  }

  __device__ PixelRow row(int sample, int y, int x) const {
    return {first_ + sample * image_.sample + y * image_.row + x * image_.column, y, x};
  }

  __device__ TapColumn column(const Odometer& k) const {
    const int y = k.outer * taps_.row_step, x = k.middle * taps_.column_step;
    return {y * image_.row + x * image_.column + k.inner * image_.channel,
            k.outer < taps_.rows ? y : kNowhere, x, channels_ - k.inner};
  }

  __device__ int channels() const { return channels_; }
  __device__ int64_t channel_stride() const { return image_.channel; }

  __device__ bool contains(const PixelRow& row, const TapColumn& column) const {
    return unsigned(row.y + column.y) < unsigned(image_.height) &&
           unsigned(row.x + column.x) < unsigned(image_.width);
  }
  __device__ const T* at(const PixelRow& row, const TapColumn& column) const {
    return static_cast<const T*>(image_.data) + (row.offset + column.offset);
  }

  // A chunk that lies in memory as it is: neighbouring channels of one tap, aligned.
  __device__ void copy_chunk(char* shared, const PixelRow& row, const TapColumn& column) const {
    copy_async(shared, at(row, column), column.channels > 0 && contains(row, column));
  }

  // A chunk of one tap: so many of the channels from the first on.
  __device__ void gather_tap(const T* first, int channels, T (&elements)[kChunk<T>]) const {
#pragma unroll
    for (int e = 0; e < kChunk<T>; ++e)
      elements[e] = load_if(e < channels, first + e * image_.channel);
  }

  // A chunk of several taps, where these have fewer channels than a chunk has elements. tap(i) is
  // the column of the i-th, asked for in order.
  template <class Tap>
  __device__ Vec<T, kChunk<T>> gather_taps(const PixelRow& row, const Tap& tap) const {
    Vec<T, kChunk<T>> chunk;
    int taps = 0, channel = columns_.inner(), channels = 0;
    const T* from = nullptr;
#pragma unroll
    for (int e = 0; e < kChunk<T>; ++e) {
      if (channel == columns_.inner()) {
        const TapColumn column = tap(taps++);
        from = at(row, column);
        channels = contains(row, column) ? column.channels : 0;
        channel = 0;
      }
      chunk.at[e] = load_if(channel < channels, from);
      from += image_.channel;
      ++channel;
    }
    return chunk;
  }

 private:
  const int64_t first_;
  const int channels_;
  const ImageParams& image_;
  const TapGrid taps_;
  OdometerBase columns_;
};

}  // namespace dilconv::cuda
