// Plans of the matrix kernel. Plain data, as direct/plan.h explains.
#pragma once

#include "../direct/plan.h"

namespace dilconv {

// How an instruction set multiplies bfloat16: rows by vectors, in whole steps of the summation.
struct MatrixShape {
  int64_t step;        // products of one step, a multiple of 2
  int64_t row_unit;    // rows of a register tile come in units of at most this
  int64_t unit_cost;   // of a unit's step beyond its rows', as so many rows
  int64_t copy_cost;   // of 32 products of a pixel, as so many rows' steps of 32 products
  int64_t depth;       // products of one chunk of grad_weight's summation
  int64_t read_depth;  // of conv2d's and grad_input's
  double speed;        // how many times as fast its products are as those of float32, about
};

// conv2d and grad_input: `tensors` is the problem as it lies, `products` as register tiles see it:
// they read pixels whose channels are dense and in whole steps, and no tap reads outside. That is
// the tensor itself, or a copy of some samples with zeros around them.
struct MatrixGatherPlan {
  GatherPlan tensors, products;
  bool copied;
  int64_t before[2];  // zeros above and to the left of the image in the copy
  // Kernel columns whose channels lie side by side in a pixel of the copy. All of them where few
  // channels would leave most of a step empty: the pixel is then a written one, j, which reads from
  // column fold_origin + j * fold_step on, every fold_dilation-th. Else 1.
  int64_t folded_columns;
  int64_t fold_origin, fold_step, fold_dilation;
  int64_t chunk_channels;  // of products' read channels: the summation is cut here
  int64_t block_units;     // units of rows in a task
};

// Written pixels along one axis: how many, and how far apart what they read and write is.
struct PixelAxis {
  int64_t count, read, written;
};

// How a region's pixels become units of rows: of `rows` pixels along the last axis, where the last
// unit of a line may overlap the one before.
struct PixelLines {
  PixelAxis axes[3];
  int64_t rows;
  int64_t line_units;  // of each line
  int64_t units;       // of all
  double cost;         // the time that they take, about: in rows' steps of one product
};

// How `samples` samples of a region become units of at most shape.row_unit rows.
PixelLines find_lines(const MatrixGatherPlan& plan, const Region& region, int64_t samples,
                      const MatrixShape& shape);

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
  int64_t x_tasks;        // along (tap, input channel), at most
  int64_t task_channels;  // output channels of one task, at most
  const Range* valid_h;   // per kernel element: output positions whose tap reads inside the image
  const Range* valid_w;
};

}  // namespace dilconv
