// What the depthwise kernels are told about a problem: plain data, passed by value.
#pragma once

#include "axis.h"

namespace dilconv::cuda::depthwise {

// What a block may take of shared memory: several blocks at once must fit.
constexpr int kSharedBytes = 48 * 1024;

struct Strides {
  int64_t batch, channel;
  int row, column;
};

inline Strides make_strides(const int64_t (&strides)[4]) {
  return {strides[0], strides[1], int(strides[2]), int(strides[3])};
}

// How planes of an image are copied into tiles in shared memory. A tile's row r holds the image row
// r * row_jump after its first; its column s the image column s after its first or, folded,
// s / fold * column_jump + s % fold.
struct TileSource {
  Strides strides;
  int height, width;
  int row_jump, column_jump;
  Divisor fold;     // columns side by side before a jump; 1: all are
  int vector;       // elements to a load
  int planes;       // to a block
  int rows, pitch;  // what a plane takes in shared memory
  // How a block's threads go through the vectors.
  Divisor row_vectors, plane_rows;
  int plane_step, row_step, vector_step;
};

inline void set_walk(TileSource& source, int threads) {
  source.row_vectors = Divisor(source.pitch / source.vector);
  source.plane_rows = Divisor(source.rows);
  source.vector_step = threads % source.row_vectors.value();
  source.row_step = threads / source.row_vectors.value() % source.rows;
  source.plane_step = threads / source.row_vectors.value() / source.rows;
}

// Blocks of a launch: enough for every GPU, few enough that what a block works out beforehand
// counts for nothing.
constexpr int64_t kBlocks = 4096;

// conv2d and grad_input: written channel c gathers, for each d < depth, from read channel
// (c * depth + d) / divisor with the weight of channel c * depth + d.
struct GatherPlan {
  Axis rows, columns;
  Strides read, written;
  int64_t weight_strides[3];  // channel, row, column
  int batch, depth;
  Divisor channels, divisor;
  const void* bias;  // over written channels, or null

  // A block writes row_groups * R positions of one phase of the rows, R being the kernel's, by
  // tile_columns; of tile.planes planes, or of channel_vectors vectors of channels.
  Divisor row_groups, tile_columns, channel_vectors;
  int phases;
  Divisor row_tiles, column_tiles, channel_tiles;
  // The taps of a phase that a table of weights has room for, and the kernel's columns.
  Divisor weight_rows, weight_columns;

  // planes.cu: what a block reads, and the tap columns for which that fits at once. Folded, so that
  // far-reaching taps stay inside, the columns written are chosen as the columns read: there are
  // `folds` tiles of neighbours between one column and that a jump on.
  TileSource tile;
  int taps_at_once;
  Divisor folds;
  int weights, weight_pitch;  // what they take in shared memory, and a kernel column of them
};

inline GatherPlan make_gather_plan(const ConvProblem& p) {
  const bool forward = p.op == DILCONV_CONV2D;
  const int multiplier = int(p.out_channels / p.groups);
  GatherPlan plan = {};
  plan.rows = make_axis(p, 0);
  plan.columns = make_axis(p, 1);
  plan.read = make_strides(forward ? p.x_strides : p.y_strides);
  plan.written = make_strides(forward ? p.y_strides : p.x_strides);
  plan.weight_strides[0] = p.w_strides[0];
  plan.weight_strides[1] = p.w_strides[2];
  plan.weight_strides[2] = p.w_strides[3];
  plan.batch = int(p.batch);
  plan.channels = Divisor(int(forward ? p.out_channels : p.in_channels));
  plan.depth = forward ? 1 : multiplier;
  plan.divisor = Divisor(forward ? multiplier : 1);
  plan.weight_rows = Divisor(plan.rows.most_taps());
  plan.weight_columns = Divisor(plan.columns.kernel);
  return plan;
}

// The tensors of conv2d and grad_input by their roles.
struct Gathered {
  const void* read;
  const void* weight;
  const void* bias;
  void* written;
};

inline Gathered gathered(const ConvProblem& p, const Tensors& t) {
  const void* const bias = p.has_bias ? t.bias : nullptr;
  return p.op == DILCONV_CONV2D ? Gathered{t.x, t.w, bias, t.y} : Gathered{t.y, t.w, bias, t.x};
}

inline int64_t sum_bytes(int64_t dtype) { return dtype == DILCONV_FLOAT64 ? 8 : 4; }

// grad_weight: weight channel o sums y of channel o times x of channel o / divisor.
struct WeightPlan {
  Axis rows, columns;
  Strides x, y;
  int64_t weight_strides[3];  // channel, row, column
  int batch, channels;
  Divisor divisor;

  // A thread sums for A taps of one kernel column, A being the kernel's; `runs` of A make a column.
  // A block takes one run of up to block_columns kernel columns.
  Divisor runs, column_blocks;
  int block_columns;
  // The positions are split; each split has its partial sums, which are then added in order.
  int splits;

  // The positions of y that a block works on at a time: tile_rows of one phase of the rows by
  // tile_columns, of several images; or, channels_last, of channel_vectors vectors of channels.
  int tile_rows;
  Divisor tile_columns, channel_vectors;
  Divisor phases, row_tiles, column_tiles;
  int image_tiles, channel_tiles;
  // planes_weight.cu: threads that share a kernel column, one for each place of the tile.
  Divisor places;
  TileSource x_tile, y_tile;
  // Rows of a tile: y's row r meets x's rows tile_stride * r + t * x_step. The rows of a phase are
  // y_step apart: a tile holds one phase, or, if the image is low, all rows and so all phases.
  int tile_stride, x_step, y_step;
  // pixels_weight.cu: threads that share channels and a kernel column, the columns of an image, and
  // channels to a load.
  Divisor slices, width;
  int x_vector, y_vector;
};

inline WeightPlan make_weight_plan(const ConvProblem& p) {
  WeightPlan plan = {};
  plan.rows = make_axis(p, 0);
  plan.columns = make_axis(p, 1);
  plan.x = make_strides(p.x_strides);
  plan.y = make_strides(p.y_strides);
  plan.weight_strides[0] = p.w_strides[0];
  plan.weight_strides[1] = p.w_strides[2];
  plan.weight_strides[2] = p.w_strides[3];
  plan.batch = int(p.batch);
  plan.channels = int(p.out_channels);
  plan.divisor = Divisor(int(p.out_channels / p.groups));
  return plan;
}

}  // namespace dilconv::cuda::depthwise
