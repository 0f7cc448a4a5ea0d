#include <algorithm>
#include <numeric>

#include "planner.h"

namespace dilconv {
namespace {

constexpr int64_t kLanes = 16;

// Along the image, in `phases`, before anything is paired.
void set_places(MatrixWeightPlan& plan, int64_t phases) {
  const dilconv_problem& p = *plan.problem;
  plan.phases = phases;
  plan.axes[kBatch] = {p.batch, 1, 1, 1, 0, 1, 0, 1, 0};
  plan.axes[kPhase] = {phases, 1, 1, 1, 0, p.stride[0], 0, 1, 0};
  for (int axis = 0; axis < 2; ++axis) {
    const int64_t step = axis == 0 ? phases : 1;
    const int64_t count = divide_up(p.out_size[axis], step);
    const int64_t stride = count > 1 ? p.stride[axis] * step : 0;
    const int64_t dilation = p.kernel[axis] > 1 ? p.dilation[axis] : 0;
    const int64_t unit = std::max<int64_t>(1, std::gcd(stride, dilation));
    plan.axes[kRow + axis] = {count, 1, 1, step, 0, unit, 0, stride / unit, dilation / unit};
  }
}

// Neighbours, where taps do not tell them apart; else one half of the places with the other.
void pair_places(MatrixWeightPlan& plan, int paired) {
  const dilconv_problem& p = *plan.problem;
  WeightAxis& axis = plan.axes[paired];
  axis.count = divide_up(axis.count, 2);
  if (paired < kRow || p.kernel[paired - kRow] * p.stride[paired - kRow] == 1) {
    axis.partner = axis.step;
    axis.input_partner = axis.input_step;
    axis.step *= 2;
    axis.input_step *= 2;
  } else {
    axis.partner = axis.count * axis.step;
    axis.input_partner = axis.partner * p.stride[paired - kRow];
  }
}

// Places first + q * axis.step, of `axis`, for either pixel within `valid`.
Range valid_places(const WeightAxis& axis, const Range& valid, int64_t first, int64_t partner) {
  Range all = {axis.count, 0};
  for (int64_t member = 0; member < (partner > 0 ? 2 : 1); ++member) {
    const int64_t origin = first + member * partner;
    const int64_t begin = std::max<int64_t>(0, divide_up(valid.begin - origin, axis.step));
    const int64_t end = std::min(axis.count, divide_up(valid.end - origin, axis.step));
    if (begin >= end) continue;
    all = {std::min(all.begin, begin), std::max(all.end, end)};
  }
  return all.begin < all.end ? all : Range{0, 0};
}

struct ValidPlaces {
  std::vector<Range> rows, columns;
};

ValidPlaces find_valid(const MatrixWeightPlan& plan, const std::vector<Range> (&taps)[2]) {
  const WeightAxis &phase = plan.axes[kPhase], &row = plan.axes[kRow];
  const WeightAxis& column = plan.axes[kColumn];
  ValidPlaces valid;
  for (const Range& tap : taps[0])
    for (int64_t f = 0; f < phase.count; ++f) {
      const int64_t first = f * phase.step;
      const int64_t partner = first + phase.partner < plan.phases ? phase.partner : 0;
      valid.rows.push_back(valid_places(row, tap, first, partner + row.partner));
    }
  for (const Range& tap : taps[1])
    valid.columns.push_back(valid_places(column, tap, 0, column.partner));
  return valid;
}

// x's channels, as many as are packed: vectors' in sixteens, rows' as they are.
int64_t packed_in(const MatrixWeightPlan& plan) {
  return plan.taps_in_rows ? plan.in_channels : round_up(plan.in_channels, kLanes);
}

// Of one partial sum.
int64_t sum_count(const MatrixWeightPlan& plan) {
  const dilconv_problem& p = *plan.problem;
  return p.kernel[0] * p.kernel[1] * p.groups * packed_in(plan) *
         round_up(plan.out_channels, kLanes);
}

// In bytes, of the largest chunk.
int64_t packed_bytes(const MatrixWeightPlan& plan, const MatrixShape& shape) {
  const WeightLayout layout = largest_layout(plan, shape);
  const int64_t in = std::min(packed_in(plan), kTaskChannels);
  const int64_t out = round_up(std::min(plan.out_channels, kTaskChannels), kLanes);
  return 4 * (layout.positions * in + layout.units * layout.unit_pairs * out);
}

// As many places to a chunk as may be packed at a time: first along the units. But not fewer of
// these than taps reach beyond them, for that is packed again for the next chunk.
void cut_places(MatrixWeightPlan& plan, const MatrixShape& shape) {
  const dilconv_problem& p = *plan.problem;
  const int64_t packed =
      std::clamp<int64_t>(sum_count(plan), p.y_strides[1] == 1 ? 524288 : 1048576, 1572864);
  for (WeightAxis& axis : plan.axes) axis.cut = 1;
  for (const int a : {plan.unit_axis, int(kColumn), int(kRow), int(kPhase), int(kBatch)}) {
    WeightAxis& axis = plan.axes[a];
    if (axis.cut > 1 || axis.count <= 1) continue;
    int64_t fewest = 1;
    if (a == plan.unit_axis) {
      const int64_t taps = a >= kRow ? p.kernel[a - kRow] : 1;
      fewest = std::max(kLanes, (taps - 1) * axis.tap_step / std::max<int64_t>(1, axis.read_step));
    }
    const int64_t unit = a == plan.unit_axis ? kLanes : 1;
    for (int64_t parts = 1;; ++parts) {
      axis.cut = std::min(axis.count, round_up(divide_up(axis.count, parts), unit));
      if (packed_bytes(plan, shape) <= packed || axis.cut <= fewest) break;
    }
    if (axis.cut < axis.count) break;
  }
  for (WeightAxis& axis : plan.axes) axis.chunks = divide_up(axis.count, axis.cut);
}

int64_t size(const Range& range) { return range.end - range.begin; }

// Units that hold some of the places.
int64_t units_with(const Range& range) {
  return size(range) > 0 ? divide_up(range.end, kLanes) - range.begin / kLanes : 0;
}

// The time that the plan takes, about: in products of a tile.
double estimate(const MatrixWeightPlan& plan, const ValidPlaces& valid, const MatrixShape& shape) {
  // To pack 16 channels of a pair, and of neighbours whose channels are planes.
  constexpr double kPack = 0.5, kPackNeighbours = 0.25;
  constexpr double kSums = 8;  // of 16 by 16 channels, for a tap and chunk
  const double unit_time = shape.row_unit > 1 ? 1 : 8;
  const WeightAxis(&axes)[kWeightAxes] = plan.axes;
  const WeightLayout layout = largest_layout(plan, shape);
  double units = 0, column_places = 0, column_units = 0;
  for (const Range& columns : valid.columns) {
    column_places += double(size(columns));
    column_units += double(units_with(columns));
  }
  for (const Range& rows : valid.rows) {
    if (plan.joined)
      units +=
          double(valid.columns.size()) * double(size(rows)) * double(layout.line_pitch) / kLanes;
    else if (plan.unit_axis == kColumn)
      units += double(size(rows)) * column_units;
    else if (plan.unit_axis == kRow)
      units += double(units_with(rows)) * column_places;
    else
      units += double(size(rows)) * column_places;
  }
  units *=
      double(plan.unit_axis == kBatch ? divide_up(axes[kBatch].count, kLanes) : axes[kBatch].count);
  double chunks = 1;
  for (const WeightAxis& axis : axes) chunks *= double(axis.count) / double(axis.cut);
  const double in = double(packed_in(plan)) / kLanes;
  const double out = double(divide_up(plan.out_channels, kLanes));
  const double pairs = double(layout.units * layout.unit_pairs);
  const double taps = double(valid.columns.size() * plan.problem->kernel[0]);
  const WeightAxis& column = axes[kColumn];
  const bool neighbours = plan.problem->y_strides[1] != 1 && plan.unit_axis == kColumn &&
                          column.partner == 1 && column.input_partner == 1;
  const double pack = neighbours ? kPackNeighbours : kPack;
  // Rows have no places of their own: what is outside the image is multiplied.
  if (plan.taps_in_rows) units = chunks * pairs / kLanes * taps;
  return units * in * out * unit_time + chunks * kSums * taps * in * out +
         chunks * pack * (in * double(layout.positions) + out * pairs);
}

// Leaves out the rows that are outside the image for every phase: no valid tap reads them.
void skip_outside(const MatrixWeightPlan& plan, const WeightChunk& chunk, WeightLayout& layout) {
  const dilconv_problem& p = *plan.problem;
  const WeightAxis &phase = plan.axes[kPhase], &row = plan.axes[kRow];
  const int64_t first = chunk.places[kPhase].begin * phase.input_step - p.pad_before[0];
  const int64_t last = (chunk.places[kPhase].end - 1) * phase.input_step - p.pad_before[0] +
                       phase.input_partner + row.input_partner;
  const int64_t begin = std::max(layout.first_reads[kRow], divide_up(-last, row.input_step));
  const int64_t end = std::min(layout.first_reads[kRow] + layout.reads[kRow],
                               divide_up(p.in_size[0] - first, row.input_step));
  layout.first_reads[kRow] = begin;
  layout.reads[kRow] = std::max<int64_t>(1, end - begin);
}

// At most so many rows are left.
int64_t rows_inside(const MatrixWeightPlan& plan, const WeightChunk& chunk) {
  const WeightAxis &phase = plan.axes[kPhase], &row = plan.axes[kRow];
  const int64_t apart =
      (chunk.places[kPhase].end - chunk.places[kPhase].begin - 1) * phase.input_step +
      phase.input_partner + row.input_partner;
  return (std::max<int64_t>(1, plan.problem->in_size[0]) - 1 + apart) / row.input_step + 1;
}

// Whether tap_rows.h may run the problem, and fills vectors better than weight.h.
bool has_tap_rows(const ConvProblem& p, const MatrixShape& shape) {
  const int64_t in = p.in_channels / p.groups, out = p.out_channels / p.groups;
  return shape.row_unit == 1 && in <= kTaskChannels && mostly_inside(p) &&
         in * divide_up(out, kLanes) < out * divide_up(in, kLanes);
}

}  // namespace

WeightLayout find_layout(const MatrixWeightPlan& plan, const WeightChunk& chunk,
                         const MatrixShape& shape, bool largest) {
  const dilconv_problem& p = *plan.problem;
  WeightLayout layout = {};
  int64_t sizes[kWeightAxes];
  for (int a = 0; a < kWeightAxes; ++a) sizes[a] = chunk.places[a].end - chunk.places[a].begin;
  for (int a = 0; a < kWeightAxes; ++a)
    layout.first_reads[a] = chunk.places[a].begin * plan.axes[a].read_step;
  const auto reads = [&](int a, int64_t places) {
    const int64_t taps = a >= kRow ? p.kernel[a - kRow] : 1;
    return std::max<int64_t>(0, (places - 1) * plan.axes[a].read_step) +
           (taps - 1) * plan.axes[a].tap_step + 1;
  };
  int64_t line = sizes[plan.unit_axis];
  if (plan.joined) {
    layout.line_pitch = reads(kColumn, sizes[kColumn]);
    line = (sizes[kRow] - 1) * layout.line_pitch + sizes[kColumn];
  }
  // Tiles take whole units.
  layout.line_units = divide_up(line, kLanes);
  layout.unit_pairs = shape.row_unit > 1 ? kLanes : divide_up(line, layout.line_units);
  layout.lines = 1;
  for (int a = 0; a < kWeightAxes; ++a)
    if (a != plan.unit_axis && !(plan.joined && a == kRow)) layout.lines *= sizes[a];
  layout.units = layout.lines * layout.line_units;
  // Positions along the units are next to each other: a tile's rows are, too.
  int64_t distance = 1;
  for (const int a : {plan.unit_axis, int(kColumn), int(kRow), int(kPhase), int(kBatch)}) {
    if (layout.distances[a] > 0) continue;
    const bool whole_units = a == plan.unit_axis && !plan.joined;
    layout.reads[a] = reads(a, whole_units ? layout.line_units * layout.unit_pairs : sizes[a]);
    if (a == kRow && a != plan.unit_axis && !plan.joined && !plan.taps_in_rows) {
      if (largest)
        layout.reads[a] = std::min(layout.reads[a], rows_inside(plan, chunk));
      else
        skip_outside(plan, chunk, layout);
    }
    layout.distances[a] = distance;
    distance *= layout.reads[a];
  }
  layout.positions = distance + kLanes;
  return layout;
}

WeightLayout largest_layout(const MatrixWeightPlan& plan, const MatrixShape& shape) {
  WeightChunk chunk;
  for (int a = 0; a < kWeightAxes; ++a) chunk.places[a] = {0, plan.axes[a].cut};
  return find_layout(plan, chunk, shape, true);
}

OwnedMatrixWeightPlan::OwnedMatrixWeightPlan(const ConvProblem& problem, const MatrixShape& shape)
    : problem_(flattened(problem)) {
  const ConvProblem& p = problem_;
  constexpr int64_t kTasks = 32;                      // enough for many cores, few enough to reduce
  constexpr int64_t kPartialSums = int64_t(1) << 17;  // elements of all partial sums together
  plan.problem = &p;
  plan.in_channels = p.in_channels / p.groups;
  plan.out_channels = p.out_channels / p.groups;
  const std::vector<Range> taps[2] = {valid_taps(p, 0), valid_taps(p, 1)};
  const int64_t phases =
      p.kernel[0] > 1 ? std::clamp<int64_t>(p.dilation[0] / std::gcd(p.stride[0], p.dilation[0]), 1,
                                            std::max<int64_t>(1, p.out_size[0]))
                      : 1;
  double least_cost = -1;
  const auto consider = [&](int64_t phase_count, int paired, int unit_axis, bool joined,
                            bool taps_in_rows) {
    MatrixWeightPlan candidate = plan;
    candidate.taps_in_rows = taps_in_rows;
    set_places(candidate, phase_count);
    const WeightAxis(&axes)[kWeightAxes] = candidate.axes;
    const bool last = paired == kColumn;  // one axis must be
    if (axes[paired].count < 2 && !last) return;
    pair_places(candidate, paired);
    if (unit_axis != kColumn && axes[unit_axis].count < kLanes / 2) return;
    if (joined && (axes[kRow].count < 2 || axes[kRow].read_step != 1 ||
                   (axes[kColumn].count > 1 && axes[kColumn].read_step != 1)))
      return;
    candidate.unit_axis = unit_axis;
    candidate.joined = joined;
    cut_places(candidate, shape);
    if (joined && axes[kColumn].cut < axes[kColumn].count) return;
    ValidPlaces valid = find_valid(candidate, taps);
    const double cost = estimate(candidate, valid, shape);
    if (least_cost >= 0 && cost >= least_cost) return;
    least_cost = cost;
    plan = candidate;
    rows_ = std::move(valid.rows);
    columns_ = std::move(valid.columns);
  };
  const bool tap_rows = has_tap_rows(p, shape);
  // Dense rows of pixels are read as such.
  const bool dense = p.y_strides[1] != 1;
  for (const int64_t phase_count : {int64_t(1), phases}) {
    for (const int paired : {kColumn, kBatch, kPhase, kRow}) {
      for (const bool joined : {false, true}) {
        consider(phase_count, paired, kColumn, joined, false);
        if (tap_rows) consider(phase_count, paired, kColumn, joined, true);
      }
      if (dense) continue;
      consider(phase_count, paired, kBatch, false, false);
      consider(phase_count, paired, kRow, false, false);
    }
    if (phases == 1) break;
  }
  plan.rows = rows_.data();
  plan.columns = columns_.data();
  int64_t chunks = 1;
  for (const WeightAxis& axis : plan.axes) chunks *= axis.chunks;
  const int64_t sums = std::max<int64_t>(1, sum_count(plan));
  const int64_t tasks = p.groups * divide_up(plan.out_channels, kTaskChannels) *
                        (plan.taps_in_rows ? 1 : divide_up(plan.in_channels, kTaskChannels));
  plan.splits = std::clamp<int64_t>(kTasks / std::max<int64_t>(1, tasks), 1,
                                    std::max<int64_t>(1, std::min(chunks, kPartialSums / sums)));
}

}  // namespace dilconv
