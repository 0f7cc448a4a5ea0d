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
  int64_t turn_cost;   // of a square of 32 by 16 sums, turned around, as rows' steps of one product
  int64_t read_depth;  // of conv2d's and grad_input's
  double speed;        // how many times as fast its products are as those of float32, about
};

// conv2d and grad_input as planes.h does them.
struct MatrixPlanesPlan {
  GatherPlan tensors;  // with one region: all that is written, and every tap
  int64_t pairs;       // of a group's read channels
  // Of the copy of two channels: read positions a step of written ones apart are of one phase, and
  // neighbours. Phases that no tap reads are left out: the others begin a unit apart.
  int64_t step[2], unit[2], phases[2];
  int64_t size[2];      // rows and columns of a phase
  int64_t before[2];    // zeros above and to the left of the image; negative where it is cropped
  int64_t plane;        // pairs, from one pair of channels to the next
  int64_t lines, line;  // how many there are of written positions, and how long they are
  bool lines_dense;     // written rows in a line follow each other, as in the copy
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
  // Groups of few channels that are multiplied as one, with weights of zero between them; `tensors`
  // and `products` count them as one.
  int64_t joined_groups;
  // Whether written pixels are in vectors: planes.h then, and nothing of the rest.
  bool in_planes;
  MatrixPlanesPlan planes;
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

// grad_weight: the products of y with x, shifted by each tap, summed over output pixels in pairs. A
// pair's pixels are as far apart as any other pair's, so that what a tap reads are pairs as well,
// and x is packed once for all taps. The pairs' places are counted along four axes; a phase has the
// output rows whose taps read the same input rows, a dilation apart.
enum { kBatch, kPhase, kRow, kColumn, kWeightAxes };

struct WeightAxis {
  int64_t count;    // of places
  int64_t cut;      // of a chunk's, at most
  int64_t chunks;   // that makes so many
  int64_t step;     // output positions from one to the next
  int64_t partner;  // and from a pair's first pixel to its second
  // The input positions that are packed: how far they are from each other and from their partners,
  // and how many of them it is from place to place and from tap to tap.
  int64_t input_step, input_partner, read_step, tap_step;
};

// Of x's and of y's channels, in a task, at most.
constexpr int64_t kTaskChannels = 256;

struct MatrixWeightPlan {
  const dilconv_problem* problem;
  int64_t in_channels, out_channels;  // per group
  WeightAxis axes[kWeightAxes];
  int64_t phases;
  // Whether the register tile's rows are x's channels as the taps read them, and y's are in
  // vectors: see tap_rows.h. Else the rows are y's channels, and x's are in vectors.
  bool taps_in_rows;
  int unit_axis;   // along which a unit's pairs lie
  bool joined;     // a phase's rows follow each other in one line, with pairs of zeros in between
  int64_t splits;  // partial sums, added up in order: fixed by the problem
  // The places whose tap reads inside the image for either pixel: rows for each kernel row and
  // phase, columns for each kernel column.
  const Range* rows;
  const Range* columns;
};

// A chunk of the summation: the places of every axis.
struct WeightChunk {
  Range places[kWeightAxes];
};

// How a chunk is packed.
struct WeightLayout {
  int64_t lines, line_units;         // pairs of y in lines, of so many units
  int64_t units;                     // of all
  int64_t unit_pairs;                // of each
  int64_t line_pitch;                // if lines are joined rows: places of a row
  int64_t first_reads[kWeightAxes];  // of x, the first packed position
  int64_t reads[kWeightAxes];        // how many of them
  int64_t distances[kWeightAxes];    // from one to the next
  int64_t positions;                 // of all, with those that the last unit reads beyond
};

// A chunk's; or, `largest`, at least as large as that of any chunk of so many places.
WeightLayout find_layout(const MatrixWeightPlan& plan, const WeightChunk& chunk,
                         const MatrixShape& shape, bool largest = false);

// At least as large as that of any chunk of the plan.
WeightLayout largest_layout(const MatrixWeightPlan& plan, const MatrixShape& shape);

}  // namespace dilconv
