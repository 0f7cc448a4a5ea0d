// grad_weight: for every kernel element and input channel (a row), the products of x with y, summed
// over pixels.
//
// Rows are the broadcast operand, output channels the vectors, pixels the summation: cut into
// chunks of at most kChunkPixels pixels, chunks into plan.splits partial sums. A task owns some
// rows and output channels of one partial sum; the partial sums are added in order afterwards. All
// of it is fixed by the problem, so the bits do not depend on threads.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

template <class S, class T>
class WeightGradient {
  using Sums = WeightSums<S, T>;
  using Row = typename Sums::Row;

 public:
  WeightGradient(const WeightPlan& plan, int workers, const void* x, const void* y, void* w,
                 void* workspace)
      : p_(plan),
        problem_(*plan.problem),
        x_(static_cast<const S*>(x)),
        y_(static_cast<const S*>(y)),
        sums_(plan, w),
        channel_tasks_(plan.padded_channels / kLanes<T>, most(1, 256 / kLanes<T>)),
        row_tasks_(plan.rows, (plan.rows + plan.row_tasks - 1) / plan.row_tasks),
        vectors_in_place_(kSame<S, T> && problem_.y_strides[1] == 1 &&
                          plan.out_channels == plan.padded_channels),
        window_(plan, x_) {
    Arena arena(workspace);
    sums_.place(arena);
    worker_bytes_ = scratch_at(nullptr).bytes;
    workers_ = arena.take<char>(workers * worker_bytes_);
    bytes_ = arena.used();
  }

  size_t workspace_bytes() const { return size_t(bytes_); }

  void run(const TaskPool& pool) {
    pool.run(
        pool, problem_.groups * p_.splits * row_tasks_.parts * channel_tasks_.parts,
        [](void* self, int64_t index, int worker) {
          static_cast<WeightGradient*>(self)->task(index, worker);
        },
        this);
    sums_.write(pool);
  }

 private:
  // A row of y is cut into at most three stretches, and pixels are at least one each.
  static constexpr int64_t kMostStretches = kChunkPixels;

  struct Scratch {
    Scratch(char* base, int64_t vector_elements, int64_t window_elements) {
      Arena arena(base);
      rows = arena.take<T>(kMaxRows * kChunkPitch);
      vectors = arena.take<T>(vector_elements);
      window = arena.take<T>(window_elements);
      bytes = arena.used();
    }
    T* rows;
    T* vectors;
    T* window;
    int64_t bytes;
  };

  Scratch scratch_at(char* base) const {
    const int64_t vectors = vectors_in_place_ ? 0 : kChunkPixels * (256 + kMaxVectors * kLanes<T>);
    return Scratch(base, vectors, window_.elements());
  }

  void task(int64_t index, int worker) const {
    const Scratch scratch = scratch_at(workers_ + worker * worker_bytes_);
    const int64_t channel_task = index % channel_tasks_.parts;
    index /= channel_tasks_.parts;
    const int64_t row_task = index % row_tasks_.parts;
    index /= row_tasks_.parts;
    const int64_t split = index % p_.splits, group = index / p_.splits;

    const Range rows = {row_tasks_.begin(row_task), row_tasks_.begin(row_task + 1)};
    const int64_t first = channel_tasks_.begin(channel_task) * kLanes<T>;
    const Cut tiles(channel_tasks_.size(channel_task), kMaxVectors);
    T* sums = sums_.partial_sum(group, split) + first;
    for (int64_t row = rows.begin; row < rows.end; ++row)
      clear(sums + row * p_.padded_channels, tiles.total * kLanes<T>);

    Source<T> source;
    for (int axis = 0; axis < 3; ++axis) source.strides[axis] = problem_.x_strides[1 + axis];
    const Range chunks = sums_.chunks_of(split);
    for (int64_t c = chunks.begin; c < chunks.end; ++c) {
      const Chunk chunk = sums_.chunk_at(c);
      if (!vectors_in_place_) pack_vectors(chunk, group, first, tiles, scratch.vectors);
      if (window_.elements() > 0) window_.fill(chunk, group, scratch.window, source);
      const Cut row_blocks(rows.end - rows.begin, kMaxRows);
      for (int64_t b = 0; b < row_blocks.parts; ++b)
        multiply_rows(chunk, source, group, first, rows.begin + row_blocks.begin(b),
                      row_blocks.size(b), tiles, scratch, sums);
    }
  }

  const S* y_at(int64_t n, int64_t i, int64_t j, int64_t channel) const {
    return y_ + n * problem_.y_strides[0] + channel * problem_.y_strides[1] +
           i * problem_.y_strides[2] + j * problem_.y_strides[3];
  }

  // y's channels of a chunk, pixel by pixel: one panel per tile.
  void pack_vectors(const Chunk& chunk, int64_t group, int64_t first, const Cut& tiles,
                    T* to) const {
    const int64_t columns = chunk.columns.end - chunk.columns.begin;
    const bool dense = problem_.y_strides[2] == columns * problem_.y_strides[3];
    for (int64_t t = 0; t < tiles.parts; ++t) {
      const int64_t channel = first + tiles.begin(t) * kLanes<T>, width = tiles.size(t) * kLanes<T>;
      const int64_t valid = least(width, p_.out_channels - channel);
      for (int64_t row = chunk.rows.begin, rows; row < chunk.rows.end; row += rows) {
        // Dense planes are one long row within a sample.
        const int64_t sample_end = (row / problem_.out_size[0] + 1) * problem_.out_size[0];
        rows = dense ? least(chunk.rows.end, sample_end) - row : 1;
        const S* from = y_at(row / problem_.out_size[0], row % problem_.out_size[0],
                             chunk.columns.begin, group * p_.out_channels + channel);
        pack_pixels(from, rows * columns, valid, width, to);
        to += rows * columns * width;
      }
    }
  }

  void pack_pixels(const S* from, int64_t columns, int64_t valid, int64_t width, T* to) const {
    constexpr int64_t kPixels = 16;  // keeps the strided side in the cache
    const int64_t channel_stride = problem_.y_strides[1], pixel_stride = problem_.y_strides[3];
    if (channel_stride == 1) {
      if constexpr (kSame<S, T>)
        copy_rows(to, width, from, pixel_stride, columns, valid);
      else
        for (int64_t q = 0; q < columns; ++q)
          gather(to + q * width, from + q * pixel_stride, 1, valid);
      if (valid < width) clear_rows(to + valid, width, columns, width - valid);
      return;
    }
    if (pixel_stride == 1) {
      constexpr int64_t lanes = kLanes<T>;
      for (int64_t q = 0; q < columns; q += lanes)
        for (int64_t c = 0; c < width; c += lanes) {
          const int64_t channels = least(lanes, valid - c);
          for (int64_t r = c; r < c + channels; ++r)  // about a chunk ahead
            __builtin_prefetch(from + r * channel_stride + q + kChunkPixels);
          transpose<T>(to + q * width + c, width, from + c * channel_stride + q, channel_stride,
                       channels, least(lanes, columns - q), lanes);
        }
      return;
    }
    for (int64_t q0 = 0; q0 < columns; q0 += kPixels) {
      const int64_t end = least(q0 + kPixels, columns);
      for (int64_t c = 0; c < valid; ++c)
        for (int64_t q = q0; q < end; ++q)
          to[q * width + c] = widen(from[c * channel_stride + q * pixel_stride]);
      if (valid < width) clear_rows(to + q0 * width + valid, width, end - q0, width - valid);
    }
  }

  // What a register tile multiplies in one chunk: stretches of pixels, and where each begins in the
  // chunk. Those that every row's tap reads inside the source are read where they are, the others
  // from a packed copy with zeros.
  struct Stretches {
    int count = 0;
    ApartSegment<T> segments[kMostStretches];
    int64_t begins[kMostStretches];
    int64_t offsets[kMaxRows], packed_offsets[kMaxRows];
    int64_t packed = 0;  // pixels
  };

  // One register tile's rows against every tile of the chunk's vectors, from a channel on.
  void multiply_rows(const Chunk& chunk, const Source<T>& source, int64_t group, int64_t channel,
                     int64_t first, int64_t count, const Cut& tiles, const Scratch& scratch,
                     T* sums) const {
    Stretches stretches;
    find_stretches(chunk, source, group, channel, first, count, scratch, stretches);
    if (stretches.count == 0) return;
    const int64_t pixels =
        (chunk.rows.end - chunk.rows.begin) * (chunk.columns.end - chunk.columns.begin);
    const T* panel = scratch.vectors;
    for (int64_t t = 0; t < tiles.parts; ++t) {
      const int64_t width = tiles.size(t) * kLanes<T>;
      for (int s = 0; s < stretches.count && !vectors_in_place_; ++s) {
        stretches.segments[s].vectors = panel + stretches.begins[s] * width;
        stretches.segments[s].vector_step = width;
      }
      apart_tile<T>(int(count), int(tiles.size(t)))(
          stretches.segments, stretches.count,
          sums + first * p_.padded_channels + tiles.begin(t) * kLanes<T>, p_.padded_channels);
      for (int s = 0; s < stretches.count && vectors_in_place_; ++s)
        stretches.segments[s].vectors += width;
      panel += pixels * width;
    }
  }

  void find_stretches(const Chunk& chunk, const Source<T>& source, int64_t group, int64_t channel,
                      int64_t first, int64_t count, const Scratch& scratch,
                      Stretches& stretches) const {
    // Rows and columns of y that some of the taps reach from inside the image, and all of them.
    Range some_h = {problem_.out_size[0], 0}, some_w = {problem_.out_size[1], 0};
    Range all_h = {0, problem_.out_size[0]}, all_w = chunk.columns;
    Row rows[kMaxRows];
    for (int64_t r = 0; r < count; ++r) {
      rows[r] = sums_.row_at(first + r);
      stretches.offsets[r] = (rows[r].channel - rows[0].channel) * source.strides[0] +
                             (rows[r].a - rows[0].a) * problem_.dilation[0] * source.strides[1] +
                             (rows[r].b - rows[0].b) * problem_.dilation[1] * source.strides[2];
      stretches.packed_offsets[r] = r * kChunkPitch;
      const Range &h = p_.valid_h[rows[r].a], &w = p_.valid_w[rows[r].b];
      some_h = {least(some_h.begin, h.begin), most(some_h.end, h.end)};
      some_w = {least(some_w.begin, w.begin), most(some_w.end, w.end)};
      if (source.window) continue;
      all_h = {most(all_h.begin, h.begin), least(all_h.end, h.end)};
      all_w = {most(all_w.begin, w.begin), least(all_w.end, w.end)};
    }
    some_w = {most(some_w.begin, chunk.columns.begin), least(some_w.end, chunk.columns.end)};
    if (some_w.begin >= some_w.end) return;
    const Range nowhere = {some_w.end, some_w.end};
    all_w = {most(all_w.begin, some_w.begin), least(all_w.end, some_w.end)};
    if ((!kSame<S, T> && !source.window) || all_w.begin >= all_w.end) all_w = nowhere;
    int64_t n = chunk.rows.begin / problem_.out_size[0],
            i = chunk.rows.begin % problem_.out_size[0];
    for (int64_t row = chunk.rows.begin; row < chunk.rows.end; ++row) {
      const Position at = {chunk, group, channel, row, n, i};
      if (i >= some_h.begin && i < some_h.end) {
        const Range in_place = i >= all_h.begin && i < all_h.end ? all_w : nowhere;
        add_packed(at, rows, count, {some_w.begin, in_place.begin}, scratch, stretches);
        add_in_place(at, source, rows[0], in_place, stretches);
        add_packed(at, rows, count, {in_place.end, some_w.end}, scratch, stretches);
      }
      if (++i == problem_.out_size[0]) i = 0, ++n;
    }
  }

  // A row of y: row i of sample n, from a channel of the group on.
  struct Position {
    const Chunk& chunk;
    int64_t group, channel, row, n, i;

    int64_t pixel(int64_t column) const {
      return (row - chunk.rows.begin) * (chunk.columns.end - chunk.columns.begin) + column -
             chunk.columns.begin;
    }
  };

  void add_in_place(const Position& at, const Source<T>& source, const Row& first, const Range& w,
                    Stretches& stretches) const {
    if (w.begin >= w.end) return;
    const T* from = nullptr;
    if (source.window) {
      from = source.window + source.tops[at.row - at.chunk.rows.begin] +
             first.channel * source.strides[0] +
             first.a * problem_.dilation[0] * source.strides[1] +
             (first.b * problem_.dilation[1] +
              (w.begin - at.chunk.columns.begin) * problem_.stride[1]) *
                 source.strides[2];
    } else if constexpr (kSame<S, T>) {
      from = x_at(first, at.group, at.n, at.i, w.begin);
    }
    add({from, stretches.offsets, nullptr, problem_.stride[1] * source.strides[2], 0,
         w.end - w.begin},
        at, w.begin, stretches);
  }

  void add_packed(const Position& at, const Row* rows, int64_t count, const Range& w,
                  const Scratch& scratch, Stretches& stretches) const {
    if (w.begin >= w.end) return;
    T* const to = scratch.rows + stretches.packed;
    for (int64_t r = 0; r < count; ++r)
      pack_row(rows[r], at.group, at.n, at.i, w, to + stretches.packed_offsets[r]);
    stretches.packed += w.end - w.begin;
    add({to, stretches.packed_offsets, nullptr, 1, 0, w.end - w.begin}, at, w.begin, stretches);
  }

  // Adds a stretch that begins with a column of y, or makes the last one longer if it goes on
  // there.
  void add(ApartSegment<T> segment, const Position& at, int64_t column,
           Stretches& stretches) const {
    if constexpr (kSame<S, T>) {
      if (vectors_in_place_) {
        segment.vectors = y_at(at.n, at.i, column, at.group * p_.out_channels + at.channel);
        segment.vector_step = problem_.y_strides[3];
      }
    }
    const int64_t begin = at.pixel(column);
    if (stretches.count > 0) {
      ApartSegment<T>& last = stretches.segments[stretches.count - 1];
      if (stretches.begins[stretches.count - 1] + last.depth == begin &&
          last.offsets == segment.offsets &&
          last.rows + last.depth * last.row_step == segment.rows &&
          (!vectors_in_place_ || last.vectors + last.depth * last.vector_step == segment.vectors)) {
        last.depth += segment.depth;
        return;
      }
    }
    stretches.begins[stretches.count] = begin;
    stretches.segments[stretches.count++] = segment;
  }

  // What the row's tap reads from output position (i, j).
  const S* x_at(const Row& row, int64_t group, int64_t n, int64_t i, int64_t j) const {
    const int64_t h =
        i * problem_.stride[0] + row.a * problem_.dilation[0] - problem_.pad_before[0];
    const int64_t w =
        j * problem_.stride[1] + row.b * problem_.dilation[1] - problem_.pad_before[1];
    return x_ + n * problem_.x_strides[0] +
           (group * p_.in_channels + row.channel) * problem_.x_strides[1] +
           h * problem_.x_strides[2] + w * problem_.x_strides[3];
  }

  // x as the row's tap sees it from output row i, columns w; zeros outside the image.
  void pack_row(const Row& row, int64_t group, int64_t n, int64_t i, const Range& w, T* to) const {
    const Range& valid_h = p_.valid_h[row.a];
    const Range& valid_w = p_.valid_w[row.b];
    int64_t begin = most(w.begin, valid_w.begin), end = least(w.end, valid_w.end);
    if (i < valid_h.begin || i >= valid_h.end || begin >= end) begin = end = w.end;
    clear(to, begin - w.begin);
    clear(to + end - w.begin, w.end - end);
    if (begin < end)
      gather(to + begin - w.begin, x_at(row, group, n, i, begin),
             problem_.stride[1] * problem_.x_strides[3], end - begin);
  }

  const WeightPlan& p_;
  const dilconv_problem& problem_;
  const S* x_;
  const S* y_;
  Sums sums_;
  Cut channel_tasks_;  // in vectors
  Cut row_tasks_;
  bool vectors_in_place_;  // y's channels lie densely, in whole vectors
  Window<S, T> window_;
  char* workers_;
  int64_t worker_bytes_, bytes_;
};

// Calls use(gradient) with what the plan chose.
template <class S, class T, class Use>
auto with_weight(const WeightPlan& plan, int workers, const void* x, const void* y, void* w,
                 void* workspace, const Use& use) {
  if (plan.pixels_in_vectors) {
    PlanesWeight<S, T> gradient(plan, workers, x, y, w, workspace);
    return use(gradient);
  }
  WeightGradient<S, T> gradient(plan, workers, x, y, w, workspace);
  return use(gradient);
}

template <class S, class T>
size_t weight_workspace(const WeightPlan& plan, int workers) {
  return with_weight<S, T>(plan, workers, nullptr, nullptr, nullptr, nullptr,
                           [](const auto& gradient) { return gradient.workspace_bytes(); });
}

template <class S, class T>
void run_weight(const WeightPlan& plan, const void* x, const void* y, void* w, void* workspace,
                const TaskPool& pool) {
  with_weight<S, T>(plan, pool.workers, x, y, w, workspace,
                    [&](auto& gradient) { gradient.run(pool); });
}
