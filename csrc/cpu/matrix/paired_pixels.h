// What grad_weight sums over: pairs of pixels of x and y, in chunks, and in lines of these.
//
// Included inside an instruction set's anonymous namespace; see matrix.inc.

class PairedPixels {
 public:
  static constexpr int64_t kPosition = 2 * kSquareLanes;  // elements of a pair of 16 channels

  PairedPixels(const MatrixWeightPlan& plan, const void* x, const void* y)
      : p_(plan),
        problem_(*plan.problem),
        x_(static_cast<const BFloat16*>(x)),
        y_(static_cast<const BFloat16*>(y)) {}

  // The chunks, last axis first.
  int64_t chunks() const {
    int64_t count = 1;
    for (const WeightAxis& axis : p_.axes) count *= axis.chunks;
    return count;
  }
  WeightChunk chunk_at(int64_t index) const {
    WeightChunk chunk;
    for (int a = kWeightAxes; a-- > 0;) {
      const WeightAxis& axis = p_.axes[a];
      const int64_t begin = index % axis.chunks * axis.cut;
      chunk.places[a] = {begin, least(axis.count, begin + axis.cut)};
      index /= axis.chunks;
    }
    return chunk;
  }

  // A line of a chunk's pairs: its places along the other axes, and the packed position that its
  // first pair reads with the first tap.
  struct Line {
    int64_t phase, row, column;
    int64_t position;
  };

  void list_lines(const WeightChunk& chunk, const WeightLayout& layout, Line* lines) const {
    WeightChunk others = chunk;
    others.places[p_.unit_axis].end = others.places[p_.unit_axis].begin + 1;
    if (p_.joined) others.places[kRow].end = others.places[kRow].begin + 1;
    for_places(others, [&](const int64_t (&place)[kWeightAxes]) {
      int64_t position = 0;
      for (int a = 0; a < kWeightAxes; ++a)
        position += (place[a] * p_.axes[a].read_step - layout.first_reads[a]) * layout.distances[a];
      *lines++ = {place[kPhase], place[kRow], place[kColumn], position};
    });
  }

  // In packed positions of x: from a line's pair to the next, and to what a tap reads.
  int64_t pair_positions() const { return p_.joined ? 1 : p_.axes[p_.unit_axis].read_step; }
  int64_t tap_positions(const WeightLayout& layout, int64_t tap) const {
    return tap / problem_.kernel[1] * p_.axes[kRow].tap_step * layout.distances[kRow] +
           tap % problem_.kernel[1] * p_.axes[kColumn].tap_step * layout.distances[kColumn];
  }

  // Whether every pair of a chunk's lines is one of y's: else some are zero.
  bool fills_lines(const WeightChunk& chunk, const WeightLayout& layout) const {
    const Range& along = chunk.places[p_.unit_axis];
    return !p_.joined && along.end - along.begin == layout.line_units * layout.unit_pairs;
  }

  // Calls use(pair, place) for each run of a chunk's pairs of y that follow each other: where in
  // the lines, one after the other, and where in the image it begins.
  template <class Use>
  void for_y_runs(const WeightChunk& chunk, const WeightLayout& layout, const Use& use) const {
    WeightChunk starts = chunk;
    Range& along = starts.places[p_.unit_axis];
    along.end = along.begin + 1;
    int64_t line = 0;
    for_places(starts, [&](const int64_t (&place)[kWeightAxes]) {
      const int64_t row = p_.joined ? place[kRow] - chunk.places[kRow].begin : 0;
      use(line * layout.line_units * layout.unit_pairs + row * layout.line_pitch, place);
      if (!p_.joined || place[kRow] + 1 == chunk.places[kRow].end) ++line;
    });
  }

  // Calls use(position, place) for each run of packed positions of x, along columns.
  template <class Use>
  void for_x_runs(const WeightLayout& layout, const Use& use) const {
    WeightChunk starts;
    for (int a = 0; a < kWeightAxes; ++a)
      starts.places[a] = {layout.first_reads[a],
                          layout.first_reads[a] + (a == kColumn ? 1 : layout.reads[a])};
    for_places(starts, [&](const int64_t (&place)[kWeightAxes]) {
      int64_t position = 0;
      for (int a = 0; a < kColumn; ++a)
        position += (place[a] - starts.places[a].begin) * layout.distances[a];
      use(position, place);
    });
  }

  // `count` pairs of a group's channels from one on: of y along the units, from the `skipped`-th of
  // a run on.
  PairRun y_run(const int64_t (&start)[kWeightAxes], int64_t skipped, int64_t count, int64_t group,
                int64_t channel) const {
    const WeightAxis(&axes)[kWeightAxes] = p_.axes;
    const int64_t limits[3] = {problem_.batch, problem_.out_size[0], problem_.out_size[1]};
    const int64_t strides[3] = {problem_.y_strides[0], problem_.y_strides[2],
                                problem_.y_strides[3]};
    const int unit_dimension = p_.unit_axis == kBatch ? 0 : p_.unit_axis - 1;
    PairRun run = {};
    run.count = count;
    run.stride = axes[p_.unit_axis].step * strides[unit_dimension];
    for (int64_t m = 0; m < 2; ++m) {
      const auto at = [&](int a) {
        const int64_t place = start[a] + (a == p_.unit_axis ? skipped : 0);
        return place * axes[a].step + m * axes[a].partner;
      };
      const int64_t index[3] = {at(kBatch), at(kPhase) + at(kRow), at(kColumn)};
      const int64_t step = axes[p_.unit_axis].step;
      const int64_t left = limits[unit_dimension] - index[unit_dimension];
      run.end[m] = has_phase(start[kPhase], m) ? least(count, (left + step - 1) / step) : 0;
      run.from[m] = y_ + (group * p_.out_channels + channel) * problem_.y_strides[1];
      for (int d = 0; d < 3; ++d) {
        run.from[m] += index[d] * strides[d];
        if (index[d] >= limits[d]) run.end[m] = 0;
      }
    }
    return run;
  }

  // And of x along columns.
  PairRun x_run(const int64_t (&start)[kWeightAxes], int64_t skipped, int64_t count, int64_t group,
                int64_t channel) const {
    const WeightAxis(&axes)[kWeightAxes] = p_.axes;
    const int64_t step = axes[kColumn].input_step, width = problem_.in_size[1];
    PairRun run = {};
    run.count = count;
    run.stride = step * problem_.x_strides[3];
    for (int64_t m = 0; m < 2; ++m) {
      const auto at = [&](int a) {
        return start[a] * axes[a].input_step + m * axes[a].input_partner;
      };
      const int64_t n = at(kBatch), h = at(kPhase) + at(kRow) - problem_.pad_before[0];
      const int64_t w = at(kColumn) + skipped * step - problem_.pad_before[1];
      run.from[m] = x_ + (group * p_.in_channels + channel) * problem_.x_strides[1] +
                    n * problem_.x_strides[0] + h * problem_.x_strides[2] +
                    w * problem_.x_strides[3];
      if (n >= problem_.batch || h < 0 || h >= problem_.in_size[0] || !has_phase(start[kPhase], m))
        continue;
      run.begin[m] = w >= 0 ? 0 : (step - 1 - w) / step;
      run.end[m] = w >= width ? 0 : least(count, (width - w + step - 1) / step);
    }
    return run;
  }

 private:
  // Calls use(place) for every place of the chunk, in order.
  template <class Use>
  static void for_places(const WeightChunk& chunk, const Use& use) {
    const Range(&all)[kWeightAxes] = chunk.places;
    int64_t place[kWeightAxes];
    for (place[0] = all[0].begin; place[0] < all[0].end; ++place[0])
      for (place[1] = all[1].begin; place[1] < all[1].end; ++place[1])
        for (place[2] = all[2].begin; place[2] < all[2].end; ++place[2])
          for (place[3] = all[3].begin; place[3] < all[3].end; ++place[3]) use(place);
  }

  // Whether the member of a pair in that phase is one: the last phase may have no partner.
  bool has_phase(int64_t phase, int64_t member) const {
    return phase * p_.axes[kPhase].step + member * p_.axes[kPhase].partner < p_.phases;
  }

  const MatrixWeightPlan& p_;
  const dilconv_problem& problem_;
  const BFloat16* x_;
  const BFloat16* y_;
};
