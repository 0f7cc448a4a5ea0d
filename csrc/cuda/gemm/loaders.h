// Bringing slices of the operands into shared memory.
//
// Where chunks lie in memory as they are, cp.async copies them. Elsewhere each thread gathers the
// elements of its chunks into registers before the current slice is multiplied, and stores them
// after that.
#pragma once

#include "image.h"

namespace dilconv::cuda {

// Which chunks of a slice a thread brings. Copied ones: a row's chunks by neighbouring threads, as
// they are neighbours in memory. Gathered ones: one row per thread, as pixels are neighbours.
template <class Layout, int kThreads, bool kCopies>
struct Share {
  static constexpr int kCount = Layout::kRows * Layout::kChunksPerRow / kThreads;
  static_assert(kCount * kThreads == Layout::kRows * Layout::kChunksPerRow, "uneven shares");
  static_assert(kCopies ? kThreads % Layout::kChunksPerRow == 0 : kThreads % Layout::kRows == 0,
                "a thread must keep its column, or its row");

  __device__ static int row(int i) {
    return kCopies
               ? int(threadIdx.x) / Layout::kChunksPerRow + i * (kThreads / Layout::kChunksPerRow)
               : int(threadIdx.x) % Layout::kRows;
  }
  __device__ static int chunk(int i) {
    return kCopies ? int(threadIdx.x) % Layout::kChunksPerRow
                   : int(threadIdx.x) / Layout::kRows + i * (kThreads / Layout::kRows);
  }
};

// Loads slices of an image matrix whose columns are the depth: the pixels stay, the taps move.
// row_of(m): the PixelRow of the tile's row m.
template <class T, class Layout, int kThreads, bool kCopies, class RowOf>
class DepthLoader {
  using Mine = Share<Layout, kThreads, kCopies>;

 public:
  __device__ DepthLoader(const ImageMatrix<T>& matrix, const RowOf& row_of)
      : matrix_(matrix),
        row_of_(row_of),
        step_(matrix.columns().at(
            unsigned(kCopies ? kSliceDepth<T> : (Mine::chunk(1) - Mine::chunk(0)) * kChunk<T>))),
        column_(matrix.columns().at(unsigned(Mine::chunk(0) * kChunk<T>))) {}

  __device__ void fetch(Layout stage) {
    if constexpr (kCopies) {
      const TapColumn column = matrix_.column(column_);
#pragma unroll
      for (int i = 0; i < Mine::kCount; ++i)
        matrix_.copy_chunk(stage.chunk(Mine::row(i), Mine::chunk(i)), row_of_(Mine::row(i)),
                           column);
      column_ = matrix_.columns().sum(column_, step_);
    } else {
      const PixelRow row = row_of_(Mine::row(0));
#pragma unroll
      for (int i = 0; i < Mine::kCount; ++i) {
        Odometer column = column_;
        chunks_[i] = matrix_.gather_chunk(row, [&](int tap) {
          if (tap > 0) column = matrix_.columns().sum(column, {0, 1, 0});
          return matrix_.column(column);
        });
        column_ = matrix_.columns().sum(column_, step_);
      }
    }
  }

  // Completes a fetch into the same stage.
  __device__ void store(Layout stage) const {
    if constexpr (!kCopies) {
#pragma unroll
      for (int i = 0; i < Mine::kCount; ++i)
        store_shared(stage.chunk(Mine::row(i), Mine::chunk(i)), chunks_[i]);
    }
  }

 private:
  const ImageMatrix<T>& matrix_;
  const RowOf& row_of_;
  const Odometer step_;  // to the thread's next chunk, in this slice or the next
  Odometer column_;
  Vec<T, kChunk<T>> chunks_[kCopies ? 1 : Mine::kCount];
};

// The rows of an image matrix that a sum runs over: in each sample a rectangle, whose position (i,
// j) is the pixel (y + i * y_step, x + j * x_step).
struct Pixels {
  int batch, height, width;
  int y, x, y_step, x_step;

  __device__ OdometerBase base() const { return {height > 0 ? height : 1, width > 0 ? width : 1}; }

  template <class T>
  __device__ PixelRow row(const ImageMatrix<T>& matrix, const Odometer& position) const {
    if (position.outer >= batch) return {0, kNowhere, 0};
    return matrix.row(position.outer, y + position.middle * y_step, x + position.inner * x_step);
  }
};

// Loads slices of an image matrix whose rows are the depth: the taps stay, the pixels move. What a
// thread knows about its columns lies in a table in shared memory, where it takes no registers.
template <class T, class Layout, int kThreads, bool kCopies>
class PixelLoader {
  using Mine = Share<Layout, kThreads, kCopies>;
  static constexpr int kTableEntries = Layout::kChunksPerRow * kChunk<T>;

 public:
  // Places and channel counts apart, so that neighbouring entries meet no bank conflicts.
  static constexpr int kTableBytes = kTableEntries * int(sizeof(PixelRow) + sizeof(int));

  // The table is complete after the next barrier.
  __device__ PixelLoader(const ImageMatrix<T>& matrix, const Pixels& pixels,
                         const Odometer& first_pixel, int first_column, char* table)
      : matrix_(matrix),
        pixels_(pixels),
        base_(pixels.base()),
        step_(base_.at(unsigned(kCopies ? Mine::row(1) - Mine::row(0) : kSliceDepth<T>))),
        position_(base_.sum(first_pixel, base_.at(unsigned(Mine::row(0))))),
        table_(table),
        taps_per_chunk_(kChunk<T> / matrix.channels_per_tap()) {
    const int channels_per_tap = matrix.channels_per_tap();
    for (int tap = int(threadIdx.x); tap * channels_per_tap < kTableEntries; tap += kThreads) {
      const TapColumn column =
          matrix.column(matrix.columns().at(unsigned(first_column + tap * channels_per_tap)));
      store_shared(place_of(tap), PixelRow{column.offset, column.y, column.x});
      store_shared(channels_of(tap), column.channels);
    }
  }

  __device__ void fetch(Layout stage) {
    if constexpr (kCopies) {
      const TapColumn column = tap_column(Mine::chunk(0));  // one tap to a chunk
#pragma unroll
      for (int i = 0; i < Mine::kCount; ++i) {
        matrix_.copy_chunk(stage.chunk(Mine::row(i), Mine::chunk(i)),
                           pixels_.row(matrix_, position_), column);
        position_ = base_.sum(position_, step_);
      }
    } else {
      const PixelRow row = pixels_.row(matrix_, position_);
#pragma unroll
      for (int i = 0; i < Mine::kCount; ++i) {
        const int first = Mine::chunk(i) * taps_per_chunk_;
        chunks_[i] = matrix_.gather_chunk(row, [&](int tap) { return tap_column(first + tap); });
      }
      position_ = base_.sum(position_, step_);
    }
  }

  __device__ void store(Layout stage) const {
    if constexpr (!kCopies) {
#pragma unroll
      for (int i = 0; i < Mine::kCount; ++i)
        store_shared(stage.chunk(Mine::row(i), Mine::chunk(i)), chunks_[i]);
    }
  }

 private:
  __device__ TapColumn tap_column(int index) const {
    const PixelRow place = load_shared<PixelRow>(place_of(index));
    return {place.offset, place.y, place.x, load_shared<int>(channels_of(index))};
  }

  // Both from one pointer: another would cost a register.
  __device__ char* place_of(int index) const { return table_ + index * int(sizeof(PixelRow)); }
  __device__ char* channels_of(int index) const {
    return table_ + kTableEntries * int(sizeof(PixelRow)) + index * int(sizeof(int));
  }

  const ImageMatrix<T>& matrix_;
  const Pixels& pixels_;
  const OdometerBase base_;
  const Odometer step_;  // to the thread's next row, in this slice or the next
  Odometer position_;
  char* const table_;
  const int taps_per_chunk_;
  Vec<T, kChunk<T>> chunks_[kCopies ? 1 : Mine::kCount];
};

}  // namespace dilconv::cuda
