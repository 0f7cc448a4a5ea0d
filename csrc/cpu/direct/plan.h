// Plans of the direct kernel: how a convolution is cut into pieces, decided once per call, before
// any data is read.
//
// Plain data: the code that is compiled once per instruction set shares no templates, so that the
// linker can never hand one set's code to another's machine.
#pragma once

#include "../../core/dilconv.h"

namespace dilconv {

// ---- conv2d and grad_input: every written position gathers what its taps read
// -------------------------------

// A kernel element along one axis: written position j of a span reads position origin + j *
// read_step.
struct Tap {
  int64_t kernel;
  int64_t origin;
};

// Written positions begin + j * step, j in [0, count), along one axis, with the taps that reach at
// least one of them. A read position may lie outside the image: it counts as zero.
struct Span {
  int64_t begin, step, count;
  int64_t read_step;
  const Tap* taps;
  int64_t tap_count;
};

// A rectangle of written positions that share their taps.
struct Region {
  Span h, w;
  bool in_place;  // rows are whole vectors that every tap reads inside the image, densely
};

// kPaddedPixels: written pixels, read from copies of planes with zeros around.
enum class VectorsHold { kWrittenPixels, kPaddedPixels, kWrittenChannels, kReadChannels };

// grad_input is the same gather as conv2d with the channels' roles swapped, and one set of spans
// per residue of the position modulo the stride. Channel counts are per group; weight strides are
// (written channel, read channel, kernel height, kernel width).
struct GatherPlan {
  int64_t batch, groups, read_channels, written_channels;
  int64_t read_size[2], kernel[2];
  int64_t read_strides[4], written_strides[4], weight_strides[4];
  int64_t weight_group_stride;
  VectorsHold vectors;
  int64_t samples;         // that are worked on together, so that what they read stays in the cache
  int64_t block_pixels;    // pixels that share a packed panel
  int64_t panel_depth;     // products per pixel in a panel: the summation is cut here
  int64_t split_channels;  // written channels of one task, at most
  int64_t tile[2];         // padded planes: written positions of a task
  int64_t plane_channels;  // and read channels whose planes are copied together
  const Region* regions;
  int64_t region_count;
};

// ---- grad_weight: a product of x, shifted by each tap, with y, summed over pixels
// ---------------------------

struct Range {
  int64_t begin, end;
};

struct WeightPlan {
  const dilconv_problem* problem;
  int64_t weight_first, weight_group_stride;  // where element 0 is, and groups' distance
  int64_t in_channels, out_channels;          // per group
  int64_t padded_channels;                    // out_channels in whole vectors
  int64_t rows;                               // of the product: kernel elements times in_channels
  int64_t chunk_rows,
      chunk_columns;  // output pixels of one summation chunk: rows of (batch, height), columns
  int64_t row_chunks, column_chunks;
  bool pixels_in_vectors;  // else output channels are
  // Then, rows of x copied for a chunk: those that taps share, or each kernel row's own.
  bool taps_share_rows;
  int64_t window_rows;
  int64_t splits;  // partial sums, added up in order: fixed by the problem, not by threads
  int64_t row_tasks, channel_tasks;  // tasks along the rows and the output channels
  const Range* valid_h;  // per kernel element: output positions whose tap reads inside the image
  const Range* valid_w;
};

// Where summations are cut: products per pixel in a gather's panel (a register tile's panel then
// fits the first-level cache), pixels in a chunk of grad_weight.
constexpr int64_t kPanelDepth = 128;
constexpr int64_t kChunkPixels = 128;
// Strides up to which columns that lie a stride apart are copied beside each other.
constexpr int64_t kMostPhases = 8;
// Distance between packed rows: not a power of two, so that they do not compete for the same cache
// lines.
constexpr int64_t kPanelPitch = kPanelDepth + 16;
constexpr int64_t kChunkPitch = kChunkPixels + 16;
constexpr int kMaxVectors = 3;  // vectors in a register tile
// So few written channels share a vector of pixels too seldom to pack it.
constexpr int64_t kFewWritten = 4;

}  // namespace dilconv
