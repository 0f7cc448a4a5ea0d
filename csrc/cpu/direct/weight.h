// grad_weight: for every kernel element and input channel (a row), the products of x with y, summed
// over pixels.
//
// Rows are the broadcast operand, output channels the vectors, pixels the summation: cut into
// chunks of at most kChunkPixels pixels, chunks into plan.splits partial sums. A task owns some
// rows and output channels of one partial sum; the partial sums are added in order afterwards. All
// of it is fixed by the problem, so the bits do not depend on threads.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

// Output rows [rows.begin, rows.end), counted through the batch, by columns [columns.begin,
// columns.end).
struct Chunk {
  Range rows, columns;
};

template <class S, class T>
class WeightGradient {
 public:
  WeightGradient(const WeightPlan& plan, int workers, const void* x, const void* y, void* w,
                 void* workspace)
      : p_(plan),
        problem_(*plan.problem),
        x_(static_cast<const S*>(x)),
        y_(static_cast<const S*>(y)),
        w_(static_cast<S*>(w)),
        channel_tasks_(plan.padded_channels / kLanes<T>, most(1, 256 / kLanes<T>)),
        row_tasks_(plan.rows, (plan.rows + plan.row_tasks - 1) / plan.row_tasks) {
    Arena arena(workspace);
    sums_ = arena.take<T>(problem_.groups * plan.splits * plan.rows * plan.padded_channels);
    worker_bytes_ = Scratch(nullptr).bytes;
    workers_ = workspace ? static_cast<char*>(workspace) + arena.used() : nullptr;
    bytes_ = arena.used() + workers * worker_bytes_;
  }

  size_t workspace_bytes() const { return size_t(bytes_); }

  void run(const TaskPool& pool) {
    pool.run(
        pool, problem_.groups * p_.splits * row_tasks_.parts * channel_tasks_.parts,
        [](void* self, int64_t index, int worker) {
          static_cast<WeightGradient*>(self)->task(index, worker);
        },
        this);
    pool.run(
        pool, problem_.groups * p_.rows,
        [](void* self, int64_t index, int) {
          static_cast<WeightGradient*>(self)->write_row(index);
        },
        this);
  }

 private:
  struct Scratch {
    explicit Scratch(char* base) {
      Arena arena(base);
      rows = arena.take<T>(kMaxRows * kChunkPitch);
      vectors = arena.take<T>(kChunkPixels * (256 + kMaxVectors * kLanes<T>));
      bytes = arena.used();
    }
    T* rows;
    T* vectors;
    int64_t bytes;
  };

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

  void task(int64_t index, int worker) const {
    const Scratch scratch(workers_ + worker * worker_bytes_);
    const int64_t channel_task = index % channel_tasks_.parts;
    index /= channel_tasks_.parts;
    const int64_t row_task = index % row_tasks_.parts;
    index /= row_tasks_.parts;
    const int64_t split = index % p_.splits, group = index / p_.splits;

    const Range rows = {row_tasks_.begin(row_task), row_tasks_.begin(row_task + 1)};
    const int64_t first = channel_tasks_.begin(channel_task) * kLanes<T>;
    const Cut tiles(channel_tasks_.size(channel_task), kMaxVectors);
    T* sums = partial_sum(group, split) + first;
    for (int64_t row = rows.begin; row < rows.end; ++row)
      clear(sums + row * p_.padded_channels, tiles.total * kLanes<T>);

    const int64_t chunks = p_.row_chunks * p_.column_chunks;
    for (int64_t c = chunks * split / p_.splits; c < chunks * (split + 1) / p_.splits; ++c) {
      const Chunk chunk = chunk_at(c);
      pack_vectors(chunk, group, first, tiles, scratch.vectors);
      const Cut row_blocks(rows.end - rows.begin, kMaxRows);
      for (int64_t b = 0; b < row_blocks.parts; ++b)
        multiply_rows(chunk, group, rows.begin + row_blocks.begin(b), row_blocks.size(b), tiles,
                      scratch, sums);
    }
  }

  const S* y_at(int64_t row, int64_t column, int64_t channel) const {
    return y_ + row / problem_.out_size[0] * problem_.y_strides[0] +
           channel * problem_.y_strides[1] + row % problem_.out_size[0] * problem_.y_strides[2] +
           column * problem_.y_strides[3];
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
        const S* from = y_at(row, chunk.columns.begin, group * p_.out_channels + channel);
        pack_pixels(from, rows * columns, valid, width, to);
        to += rows * columns * width;
      }
    }
  }

  void pack_pixels(const S* from, int64_t columns, int64_t valid, int64_t width, T* to) const {
    constexpr int64_t kPixels = 16;  // keeps the strided side in the cache
    const int64_t channel_stride = problem_.y_strides[1], pixel_stride = problem_.y_strides[3];
    if (channel_stride == 1) {
      for (int64_t q = 0; q < columns; ++q) {
        gather(to + q * width, from + q * pixel_stride, 1, valid);
        clear(to + q * width + valid, width - valid);
      }
      return;
    }
    int64_t squared = 0;  // channels
    if constexpr (kSame<S, T>) {
      if (pixel_stride == 1 && columns >= kLanes<T>) {
        // Squares of pixels by channels; the last one overlaps the one before.
        squared = valid / kLanes<T> * kLanes<T>;
        for (int64_t q = 0; q < columns; q += kLanes<T>) {
          const int64_t at = least(q, columns - kLanes<T>);
          for (int64_t c = 0; c < squared; c += kLanes<T>)
            transpose_square(to + at * width + c, width, from + c * channel_stride + at,
                             channel_stride);
        }
      }
    }
    for (int64_t q0 = 0; q0 < columns && squared < width; q0 += kPixels) {
      const int64_t end = least(q0 + kPixels, columns);
      for (int64_t c = squared; c < valid; ++c)
        for (int64_t q = q0; q < end; ++q)
          to[q * width + c] = widen(from[c * channel_stride + q * pixel_stride]);
      if (valid < width) clear_rows(to + q0 * width + valid, width, end - q0, width - valid);
    }
  }

  // Where a register tile's rows come from: stretches of pixels, all `used` long.
  struct Stretches {
    int64_t used, stride;
    Order order;
    int count = 0;
    const T* rows[kChunkPixels];
    int64_t begins[kChunkPixels];  // the first pixel, in the vectors' panel
  };

  // One register tile's rows against every tile of the chunk's vectors.
  void multiply_rows(const Chunk& chunk, int64_t group, int64_t first, int64_t count,
                     const Cut& tiles, const Scratch& scratch, T* sums) const {
    // Columns and rows of y that at least one of the taps reaches from inside the image.
    Range h = {problem_.out_size[0], 0}, w = {problem_.out_size[1], 0};
    for (int64_t r = 0; r < count; ++r) {
      const Row row = row_at(first + r);
      h = {least(h.begin, p_.valid_h[row.a].begin), most(h.end, p_.valid_h[row.a].end)};
      w = {least(w.begin, p_.valid_w[row.b].begin), most(w.end, p_.valid_w[row.b].end)};
    }
    w = {most(w.begin, chunk.columns.begin), least(w.end, chunk.columns.end)};
    if (w.begin >= w.end) return;

    Stretches stretches;
    find_stretches(chunk, group, first, count, h, w, scratch, stretches);
    if (stretches.count == 0) return;

    Segment<T> segments[kChunkPixels];
    const T* panel = scratch.vectors;
    const int64_t pixels =
        (chunk.rows.end - chunk.rows.begin) * (chunk.columns.end - chunk.columns.begin);
    const int64_t advance =
        stretches.order == Order::kByStep ? stretches.stride * stretches.used : stretches.used;
    for (int64_t t = 0; t < tiles.parts; ++t) {
      const int64_t width = tiles.size(t) * kLanes<T>;
      int merged = 0;
      for (int s = 0; s < stretches.count; ++s) {
        const bool follows = s > 0 &&
                             stretches.begins[s] == stretches.begins[s - 1] + stretches.used &&
                             stretches.rows[s] == stretches.rows[s - 1] + advance;
        if (follows)
          segments[merged - 1].depth += stretches.used;
        else
          segments[merged++] = {stretches.rows[s], panel + stretches.begins[s] * width,
                                stretches.used};
      }
      const Multiply<T> multiply = stretches.order == Order::kByStep
                                       ? tile<T, Order::kByStep>(int(count), int(tiles.size(t)))
                                       : tile<T, Order::kByRow>(int(count), int(tiles.size(t)));
      multiply(segments, merged, stretches.stride,
               sums + first * p_.padded_channels + tiles.begin(t) * kLanes<T>, p_.padded_channels,
               true);
      panel += pixels * width;
    }
  }

  void find_stretches(const Chunk& chunk, int64_t group, int64_t first, int64_t count,
                      const Range& h, const Range& w, const Scratch& scratch,
                      Stretches& stretches) const {
    const int64_t columns = chunk.columns.end - chunk.columns.begin;
    const int64_t pixel_stride = problem_.stride[1] * problem_.x_strides[3];
    const Row head = row_at(first), tail = row_at(first + count - 1);
    // Channels of one kernel element need no packing where steps or rows are dense: they are read
    // in place.
    const bool one_tap = head.a == tail.a && head.b == tail.b && kSame<S, T>;
    const bool dense_rows = problem_.x_strides[1] == 1, dense_steps = pixel_stride == 1;
    const bool in_place = one_tap && (dense_rows || dense_steps);
    stretches.used = w.end - w.begin;
    stretches.order = dense_rows ? Order::kByStep : Order::kByRow;
    stretches.stride = dense_rows ? (in_place ? pixel_stride : count)
                                  : (in_place ? problem_.x_strides[1] : kChunkPitch);
    for (int64_t row = chunk.rows.begin; row < chunk.rows.end; ++row) {
      const int64_t n = row / problem_.out_size[0], i = row % problem_.out_size[0];
      if (i < h.begin || i >= h.end) continue;
      const int at = stretches.count++;
      stretches.begins[at] = (row - chunk.rows.begin) * columns + w.begin - chunk.columns.begin;
      if constexpr (kSame<S, T>) {
        if (in_place) {
          stretches.rows[at] = x_at(head, group, n, i, w.begin);
          continue;
        }
      }
      T* to = scratch.rows + at * stretches.used * (dense_rows ? count : 1);
      stretches.rows[at] = to;
      for (int64_t r = 0; r < count; ++r)
        pack_row(row_at(first + r), group, n, i, w, to + r * (dense_rows ? 1 : kChunkPitch),
                 dense_rows ? count : 1);
    }
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
  void pack_row(const Row& row, int64_t group, int64_t n, int64_t i, const Range& w, T* to,
                int64_t pitch) const {
    const Range& valid_h = p_.valid_h[row.a];
    const Range& valid_w = p_.valid_w[row.b];
    int64_t begin = most(w.begin, valid_w.begin), end = least(w.end, valid_w.end);
    if (i < valid_h.begin || i >= valid_h.end || begin >= end) begin = end = w.end;
    for (int64_t j = w.begin; j < begin; ++j) to[(j - w.begin) * pitch] = T(0);
    for (int64_t j = end; j < w.end; ++j) to[(j - w.begin) * pitch] = T(0);
    if (begin == end) return;

    const S* from = x_at(row, group, n, i, begin);
    const int64_t step = problem_.stride[1] * problem_.x_strides[3];
    to += (begin - w.begin) * pitch;
    if (pitch == 1) return gather(to, from, step, end - begin);
    for (int64_t j = begin; j < end; ++j, to += pitch, from += step) *to = widen(*from);
  }

  void write_row(int64_t index) const {
    const int64_t group = index / p_.rows;
    const Row row = row_at(index % p_.rows);
    T* total = partial_sum(group, 0) + index % p_.rows * p_.padded_channels;
    for (int64_t split = 1; split < p_.splits; ++split) {
      const T* part = partial_sum(group, split) + index % p_.rows * p_.padded_channels;
      for (int64_t c = 0; c < p_.padded_channels; ++c) total[c] += part[c];
    }
    scatter(w_ + group * p_.out_channels * problem_.w_strides[0] +
                row.channel * problem_.w_strides[1] + row.a * problem_.w_strides[2] +
                row.b * problem_.w_strides[3],
            problem_.w_strides[0], total, p_.out_channels);
  }

  const WeightPlan& p_;
  const dilconv_problem& problem_;
  const S* x_;
  const S* y_;
  S* w_;
  Cut channel_tasks_;  // in vectors
  Cut row_tasks_;
  T* sums_;
  char* workers_;
  int64_t worker_bytes_, bytes_;
};

template <class S, class T>
size_t weight_workspace(const WeightPlan& plan, int workers) {
  return WeightGradient<S, T>(plan, workers, nullptr, nullptr, nullptr, nullptr).workspace_bytes();
}

template <class S, class T>
void run_weight(const WeightPlan& plan, const void* x, const void* y, void* w, void* workspace,
                const TaskPool& pool) {
  WeightGradient<S, T>(plan, pool.workers, x, y, w, workspace).run(pool);
}
