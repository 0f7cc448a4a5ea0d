// Plans of the matrix kernel. conv2d and grad_input use the direct kernel's GatherPlan. Plain data,
// as direct/plan.h explains.
#pragma once

#include "../direct/plan.h"

namespace dilconv {

// How an instruction set multiplies bfloat16: rows by vectors, in whole steps of the summation.
struct MatrixShape {
  int64_t step;          // products of one step, a multiple of 2
  int64_t row_unit;      // rows of a register tile come in multiples of this
  int64_t depth;         // products of one chunk of a summation
  int64_t block_pixels;  // of a task
  double speed;          // how many times as fast its products are as those of float32, about
};

// grad_weight: x, shifted by each tap, times y, summed over output pixels. One of them is the rows'
// operand, the other the vectors'.
struct MatrixWeightPlan {
  const dilconv_problem* problem;
  bool x_in_rows;
  int64_t in_channels, out_channels;  // per group
  // Output pixels of one chunk of the summation: rows of (batch, height) by columns. A row takes
  // `pitch` products, an even number.
  int64_t chunk_rows, chunk_columns, pitch;
  int64_t row_chunks, column_chunks;
  int64_t splits;         // partial sums, added up in order: fixed by the problem
  int64_t x_tasks;        // along (tap, input channel)
  int64_t task_channels;  // output channels of one task, at most
  const Range* valid_h;   // per kernel element: output positions whose tap reads inside the image
  const Range* valid_w;
};

}  // namespace dilconv
