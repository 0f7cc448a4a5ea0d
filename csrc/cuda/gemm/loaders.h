// Bringing slices of the operands into shared memory.
//
// Where chunks lie in memory as they are, cp.async copies them. Elsewhere each thread gathers the
// elements of its chunks into registers before the current slice is multiplied, and stores them
// after that; but chunks of several taps, for which the registers do not suffice, at once.
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
  // Where the i-th chunk goes.
  __device__ static char* place(Layout stage, int i) {
    constexpr int kStep = kCopies ? kThreads / Layout::kChunksPerRow : 0;
    if constexpr (kCopies && kStep % 8 == 0) {  // then the swizzle is that of the first
      return stage.from_row(i * kStep).chunk(row(0), chunk(0));
    } else {
      return stage.chunk(row(i), chunk(i));
    }
  }
  __device__ static int chunk(int i) {
    return kCopies ? int(threadIdx.x) % Layout::kChunksPerRow
                   : int(threadIdx.x) / Layout::kRows + i * (kThreads / Layout::kRows);
  }
};

// Where a slice's chunks come from.
enum class Chunks {
  kCopied,       // each lies in memory as it is
  kOneTap,       // gathered, each from channels of one tap
  kSeveralTaps,  // gathered, each from several taps of few channels
};

// Puts gathered elements together. Not sooner, as that waits for all of them.
template <class T>
__device__ void store_chunk(char* shared, const T (&elements)[kChunk<T>]) {
  Vec<T, kChunk<T>> chunk;
#pragma unroll
  for (int e = 0; e < kChunk<T>; ++e) chunk.at[e] = elements[e];
  store_shared(shared, chunk);
}

// Loads slices of an image matrix whose columns are the depth: the pixels stay, the taps move.
template <class T, class Layout, int kThreads, Chunks kChunks>
class DepthLoader {
  static constexpr bool kCopies = kChunks == Chunks::kCopied;
  using Mine = Share<Layout, kThreads, kCopies>;
  static constexpr int kRows = kCopies ? Mine::kCount : 1;  // of the thread
  // From a chunk of the thread to the next of the same rows, in this slice or a later one.
  static constexpr int kStep = kCopies ? kSliceDepth<T> : kThreads / Layout::kRows * kChunk<T>;

 public:
  // rows: a table in shared memory of the tile's rows.
  __device__ DepthLoader(const ImageMatrix<T>& matrix, const PixelRow* rows)
      : matrix_(matrix),
        rows_(rows),
        step_(matrix.columns().at(unsigned(kStep))),
        column_(matrix.columns().at(unsigned(Mine::chunk(0) * kChunk<T>))) {
    find_tap();
  }

  __device__ void fetch(Layout stage) {
    if constexpr (kChunks == Chunks::kCopied) {
      const unsigned inside = column_.inner < matrix_.channels() ? inside_ : 0;
#pragma unroll
      for (int i = 0; i < Mine::kCount; ++i)
        copy_async(Mine::place(stage, i), from_[i], inside & (1u << i));
      advance();
    } else if constexpr (kChunks == Chunks::kOneTap) {
#pragma unroll
      for (int i = 0; i < Mine::kCount; ++i) {
        matrix_.gather_tap(from_[0], inside_ ? matrix_.channels() - column_.inner : 0,
                           elements_[i]);
        advance();
      }
    } else {
      const PixelRow row = load_shared<PixelRow>(rows_ + Mine::row(0));
#pragma unroll 1
      for (int i = 0; i < Mine::kCount; ++i) {
        Odometer column = column_;
        store_shared(Mine::place(stage, i), matrix_.gather_taps(row, [&](int tap) {
          if (tap > 0) column = matrix_.columns().sum(column, {0, 1, 0});
          return matrix_.column(column);
        }));
        column_ = matrix_.columns().sum(column_, step_);
      }
    }
  }

  // Completes a fetch into the same stage.
  __device__ void store(Layout stage) const {
    if constexpr (kChunks == Chunks::kOneTap) {
#pragma unroll
      for (int i = 0; i < Mine::kCount; ++i) store_chunk(Mine::place(stage, i), elements_[i]);
    }
  }

 private:
  // To the thread's next chunk.
  __device__ void advance() {
    if (column_.inner + kStep < matrix_.columns().inner()) {
      column_.inner += kStep;
#pragma unroll
      for (int r = 0; r < kRows; ++r) from_[r] += kStep * matrix_.channel_stride();
    } else {
      column_ = matrix_.columns().sum(column_, step_);
      find_tap();
    }
  }

  // What depends on the tap of the column is worked out once for all its channels.
  __device__ void find_tap() {
    if constexpr (kChunks != Chunks::kSeveralTaps) {
      const TapColumn column = matrix_.column(column_);
      inside_ = 0;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const PixelRow row = load_shared<PixelRow>(rows_ + Mine::row(r));
        from_[r] = matrix_.at(row, column);
        inside_ |= unsigned(matrix_.contains(row, column)) << r;
      }
    }
  }

  const ImageMatrix<T>& matrix_;
  const PixelRow* const rows_;
  const Odometer step_;
  Odometer column_;
  const T* from_[kRows];
  unsigned inside_ = 0;  // a bit for each row
  T elements_[kChunks == Chunks::kOneTap ? Mine::kCount : 1][kChunk<T>];
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

// Where a thread that works out a row of every slice is among the pixels: the same for both
// operands, as none works out rows of both.
class RowWalk {
 public:
  __device__ RowWalk(const OdometerBase& base, const Odometer& first_pixel, int slice, int row)
      : base_(base),
        step_(base.at(unsigned(slice))),
        row_(row),
        position_(base.sum(first_pixel, base.at(unsigned(row)))) {}

  __device__ int row() const { return row_; }  // within the slice, if less than its depth
  __device__ const Odometer& position() const { return position_; }
  __device__ void next_slice() { position_ = base_.sum(position_, step_); }

 private:
  const OdometerBase base_;
  const Odometer step_;
  const int row_;
  Odometer position_;
};

// Loads slices of an image matrix whose rows are the depth: the taps stay, the pixels move. What a
// thread knows about its columns lies in a table in shared memory, where it takes no registers. The
// rows of a slice, which all threads read, are worked out once, a slice ahead.
template <class T, class Layout, int kThreads, bool kCopies>
class PixelLoader {
  using Mine = Share<Layout, kThreads, kCopies>;
  static constexpr int kTableEntries = Layout::kChunksPerRow * kChunk<T>;
  static constexpr int kRowBytes = kMostSliceDepth * int(sizeof(PixelRow));

 public:
  // Places and channel counts apart, so that neighbouring entries meet no bank conflicts.
  static constexpr int kTableBytes =
      kTableEntries * int(sizeof(PixelRow) + sizeof(int)) + 2 * kRowBytes;

  // The tables are complete after the next barrier. walks: whether the walk's row, of this image,
  // is the thread's to work out.
  __device__ PixelLoader(const ImageMatrix<T>& matrix, const Pixels& pixels, RowWalk& walk,
                         bool walks, int first_column, char* table)
      : matrix_(matrix),
        pixels_(pixels),
        walk_(walk),
        walks_(walks && walk.row() < kSliceDepth<T>),
        rows_(table),
        table_(table + 2 * kRowBytes),
        taps_per_chunk_(kChunk<T> / matrix.channels_per_tap()) {
    const int channels_per_tap = matrix.channels_per_tap();
    for (int tap = int(threadIdx.x); tap * channels_per_tap < kTableEntries; tap += kThreads) {
      const TapColumn column =
          matrix.column(matrix.columns().at(unsigned(first_column + tap * channels_per_tap)));
      store_shared(place_of(tap), PixelRow{column.offset, column.y, column.x});
      store_shared(channels_of(tap), column.channels);
    }
    find_row(0);
  }

  __device__ void fetch(Layout stage) {
    const char* const rows = rows_ + odd_ * kRowBytes;
    odd_ ^= 1;
    find_row(odd_);
    if constexpr (kCopies) {
      const TapColumn column = tap_column(Mine::chunk(0));  // one tap to a chunk
#pragma unroll
      for (int i = 0; i < Mine::kCount; ++i)
        matrix_.copy_chunk(Mine::place(stage, i),
                           load_shared<PixelRow>(rows + Mine::row(i) * int(sizeof(PixelRow))),
                           column);
    } else {
      const PixelRow row = load_shared<PixelRow>(rows + Mine::row(0) * int(sizeof(PixelRow)));
      if (taps_per_chunk_ > 1) {
#pragma unroll 1
        for (int i = 0; i < Mine::kCount; ++i) {
          const int first = Mine::chunk(i) * taps_per_chunk_;
          store_shared(Mine::place(stage, i),
                       matrix_.gather_taps(row, [&](int tap) { return tap_column(first + tap); }));
        }
      } else {
#pragma unroll
        for (int i = 0; i < Mine::kCount; ++i) {
          const TapColumn column = tap_column(Mine::chunk(i));
          matrix_.gather_tap(matrix_.at(row, column),
                             matrix_.contains(row, column) ? column.channels : 0, elements_[i]);
        }
      }
    }
  }

  __device__ void store(Layout stage) const {
    if constexpr (!kCopies) {
      if (taps_per_chunk_ > 1) return;  // they are there
#pragma unroll
      for (int i = 0; i < Mine::kCount; ++i) store_chunk(Mine::place(stage, i), elements_[i]);
    }
  }

 private:
  // Of the next slice, for whose rows there are two places: this slice's are still being read.
  __device__ void find_row(int odd) {
    if (!walks_) return;
    store_shared(rows_ + odd * kRowBytes + walk_.row() * int(sizeof(PixelRow)),
                 pixels_.row(matrix_, walk_.position()));
    walk_.next_slice();
  }

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
  RowWalk& walk_;
  const bool walks_;
  char* const rows_;
  char* const table_;
  const int taps_per_chunk_;
  int odd_ = 0;
  T elements_[kCopies ? 1 : Mine::kCount][kChunk<T>];
};

}  // namespace dilconv::cuda
