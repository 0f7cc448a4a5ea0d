// What the ways to sum up grad_weight share: which sums there are, in chunks of output pixels, in
// partial sums that are added up in order, and how they come into the weight.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

template <class S, class T>
class WeightSums {
 public:
  WeightSums(const WeightPlan& plan, void* w)
      : p_(plan),
        problem_(*plan.problem),
        w_(static_cast<S*>(w)),
        taps_adjacent_(plan.rows > plan.in_channels &&
                       problem_.w_strides[1] == problem_.kernel[0] * problem_.kernel[1] &&
                       problem_.w_strides[2] == problem_.kernel[1] && problem_.w_strides[3] == 1) {}

  // The partial sums, in the workspace.
  void place(Arena& arena) {
    sums_ = arena.take<T>(problem_.groups * p_.splits * p_.rows * p_.padded_channels);
  }

  // Adds up the partial sums.
  void write(const TaskPool& pool) {
    pool.run(
        pool, problem_.groups * row_squares(),
        [](void* self, int64_t index, int) { static_cast<WeightSums*>(self)->write_rows(index); },
        this);
  }

  // A row of the product: kernel element (a, b) and an input channel of the group.
  struct Row {
    int64_t a, b, channel;
  };

  Row row_at(int64_t index) const {
    const int64_t tap = index / p_.in_channels;
    return {tap / problem_.kernel[1], tap % problem_.kernel[1], index % p_.in_channels};
  }

  T* partial_sum(int64_t group, int64_t split) const {
    return sums_ + (group * p_.splits + split) * p_.rows * p_.padded_channels;
  }

  Chunk chunk_at(int64_t index) const {
    const int64_t row = index / p_.column_chunks * p_.chunk_rows;
    const int64_t column = index % p_.column_chunks * p_.chunk_columns;
    return {{row, least(row + p_.chunk_rows, problem_.batch * problem_.out_size[0])},
            {column, least(column + p_.chunk_columns, problem_.out_size[1])}};
  }

  Range chunks_of(int64_t split) const {
    const int64_t chunks = p_.row_chunks * p_.column_chunks;
    return {chunks * split / p_.splits, chunks * (split + 1) / p_.splits};
  }

 private:
  // Rows that are written together: squares, turned around, fill whole vectors of the weight.
  int64_t row_squares() const { return (p_.rows + kLanes<T> - 1) / kLanes<T>; }

  // The row that comes `index`-th in the weight.
  int64_t written_row(int64_t index) const {
    const int64_t taps = problem_.kernel[0] * problem_.kernel[1];
    return taps_adjacent_ ? index % taps * p_.in_channels + index / taps : index;
  }

  void write_rows(int64_t index) const {
    const int64_t group = index / row_squares(), first = index % row_squares() * kLanes<T>;
    const int64_t count = least(kLanes<T>, p_.rows - first);
    Row rows[kLanes<T>];
    T* totals[kLanes<T>];
    for (int64_t r = 0; r < count; ++r) {
      const int64_t row = written_row(first + r);
      rows[r] = row_at(row);
      totals[r] = partial_sum(group, 0) + row * p_.padded_channels;
      for (int64_t split = 1; split < p_.splits; ++split) {
        const T* part = partial_sum(group, split) + row * p_.padded_channels;
        for (int64_t c = 0; c < p_.padded_channels; ++c) totals[r][c] += part[c];
      }
    }
    const bool adjacent =
        taps_adjacent_ || (problem_.w_strides[1] == 1 && rows[0].channel + count <= p_.in_channels);
    for (int64_t channel = 0; channel < p_.out_channels; channel += kLanes<T>) {
      const int64_t channels = least(kLanes<T>, p_.out_channels - channel);
      if (adjacent) {
        transpose_lanes<T>(
            count, channels, count, [&](int64_t r) { return totals[r] + channel; },
            [&](int64_t c) { return w_at(group, channel + c, rows[0]); });
        continue;
      }
      for (int64_t r = 0; r < count; ++r)
        scatter(w_at(group, channel, rows[r]), problem_.w_strides[0], totals[r] + channel,
                channels);
    }
  }

  S* w_at(int64_t group, int64_t channel, const Row& row) const {
    return w_ + p_.weight_first + group * p_.weight_group_stride + channel * problem_.w_strides[0] +
           row.channel * problem_.w_strides[1] + row.a * problem_.w_strides[2] +
           row.b * problem_.w_strides[3];
  }

  const WeightPlan& p_;
  const dilconv_problem& problem_;
  S* w_;
  bool taps_adjacent_;  // a channel's are, in the weight, and its channels follow each other
  T* sums_ = nullptr;
};
