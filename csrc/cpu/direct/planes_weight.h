// grad_weight of few channels, with pixels in vectors: planes of a chunk of x, with zeros around,
// and of y are copied, and every tap finds its vectors of x there. All lanes are used, whatever the
// number of channels; each sum is a vector until the end.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

// The output rows of a chunk that some taps reach: where their vectors of x and y begin.
struct ReachedRows {
  int64_t x[kChunkPixels], y[kChunkPixels];
  int count = 0;
};

// sums[r * pitch + v] += x[offsets[r]] * y[v * plane], over the rows' `whole` vectors, and one more
// of `last` pixels: x may be anything beyond these.
template <class T, int R, int V>
void multiply_planes(const T* x, const int64_t* offsets, const T* y, int64_t plane,
                     const ReachedRows& rows, int64_t whole, int64_t last, T* sums, int64_t pitch) {
  using Bits = decltype(Vector<T>{} == Vector<T>{});
  Bits used = {};
  for (int lane = 0; lane < kLanes<T>; ++lane) used[lane] = lane < last ? -1 : 0;
  const T* read[R];
  Vector<T> total[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    read[r] = x + offsets[r];
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) total[r][v] = Vector<T>{};
  }
  for (int k = 0; k < rows.count; ++k) {
    const T* values = y + rows.y[k];
    int64_t at = rows.x[k];
    for (int64_t vector = whole; vector > 0; --vector) {
      Vector<T> value[V];
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v) value[v] = load(values + v * plane);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const Vector<T> pixels = in_register(load(read[r] + at));
#pragma GCC unroll 3
        for (int v = 0; v < V; ++v) total[r][v] += pixels * value[v];
      }
      at += kLanes<T>;
      values += kLanes<T>;
    }
    if (last == 0) continue;
    Vector<T> value[V];
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) value[v] = load(values + v * plane);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Vector<T> pixels = Vector<T>(Bits(load(read[r] + at)) & used);
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v) total[r][v] += pixels * value[v];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) {
      T* sum = sums + r * pitch + v * kLanes<T>;
      store(sum, load(sum) + total[r][v]);
    }
}

template <class T>
using MultiplyPlanes = void (*)(const T* x, const int64_t* offsets, const T* y, int64_t plane,
                                const ReachedRows& rows, int64_t whole, int64_t last, T* sums,
                                int64_t pitch);

template <class T, int R = kMaxRows>
MultiplyPlanes<T> planes_tile(int rows, int vectors) {
  if constexpr (R > 1) {
    if (rows < R) return planes_tile<T, R - 1>(rows, vectors);
  }
  return vectors == 1   ? multiply_planes<T, R, 1>
         : vectors == 2 ? multiply_planes<T, R, 2>
                        : multiply_planes<T, R, 3>;
}

template <class S, class T>
class PlanesWeight {
 public:
  PlanesWeight(const WeightPlan& plan, int workers, const void* x, const void* y, void* w,
               void* workspace)
      : p_(plan),
        problem_(*plan.problem),
        x_(static_cast<const S*>(x)),
        y_(static_cast<const S*>(y)),
        sums_(plan, w),
        pitch_(padded_columns(plan) + tap_column(plan.problem->kernel[1] - 1)),
        phase_(plan.window_rows * pitch_),
        x_plane_(problem_.stride[1] * phase_),
        y_plane_(plan.chunk_rows * padded_columns(plan)) {
    for (int64_t b = 0; b < problem_.kernel[1]; ++b) phase_read_[tap_phase(b)] = true;
    Arena arena(workspace);
    sums_.place(arena);
    worker_bytes_ = scratch_at(nullptr).bytes;
    workers_ = arena.take<char>(workers * worker_bytes_);
    bytes_ = arena.used();
  }

  size_t workspace_bytes() const { return size_t(bytes_); }

  void run(const TaskPool& pool) {
    pool.run(
        pool, problem_.groups * p_.splits,
        [](void* self, int64_t index, int worker) {
          static_cast<PlanesWeight*>(self)->task(index, worker);
        },
        this);
    sums_.write(pool);
  }

 private:
  static int64_t padded_columns(const WeightPlan& plan) {
    return round_up(plan.chunk_columns, kLanes<T>);
  }

  struct Scratch {
    T* x;
    T* y;
    T* sums;           // [row][output channel][lane]
    int64_t* offsets;  // of rows, in x
    int64_t bytes;
  };

  Scratch scratch_at(char* base) const {
    Arena arena(base);
    T* x = arena.take<T>(p_.in_channels * x_plane_);
    T* y = arena.take<T>(p_.out_channels * y_plane_);
    T* sums = arena.take<T>(p_.rows * p_.out_channels * kLanes<T>);
    int64_t* offsets = arena.take<int64_t>(p_.rows);
    return {x, y, sums, offsets, arena.used()};
  }

  // Columns a stride apart lie beside each other: where a tap's first one is among its phase's.
  int64_t tap_column(int64_t b) const { return b * problem_.dilation[1] / problem_.stride[1]; }
  int64_t tap_phase(int64_t b) const { return b * problem_.dilation[1] % problem_.stride[1]; }

  // How many rows of x's copy are from what one kernel row reads to what the next one reads.
  int64_t tap_rows() const { return p_.taps_share_rows ? problem_.dilation[0] : p_.chunk_rows; }

  void task(int64_t index, int worker) const {
    const int64_t group = index / p_.splits, split = index % p_.splits;
    const Scratch scratch = scratch_at(workers_ + worker * worker_bytes_);
    for (int64_t row = 0; row < p_.rows; ++row) {
      const typename WeightSums<S, T>::Row tap = sums_.row_at(row);
      scratch.offsets[row] = tap.channel * x_plane_ + tap_phase(tap.b) * phase_ +
                             tap.a * tap_rows() * pitch_ + tap_column(tap.b);
    }
    clear(scratch.sums, p_.rows * p_.out_channels * kLanes<T>);
    const Range chunks = sums_.chunks_of(split);
    for (int64_t c = chunks.begin; c < chunks.end; ++c) {
      const Chunk chunk = sums_.chunk_at(c);
      int64_t tops[kChunkPixels];
      copy_x(chunk, group, scratch.x, tops);
      copy_y(chunk, group, scratch.y);
      multiply(chunk, tops, scratch);
    }
    add_up(scratch.sums, sums_.partial_sum(group, split));
  }

  // tops: per row of the chunk, the copied row that its first tap reads.
  void copy_x(const Chunk& chunk, int64_t group, T* to, int64_t* tops) const {
    int64_t top = 0;
    for (int64_t row = chunk.rows.begin, rows; row < chunk.rows.end; row += rows) {
      const int64_t n = row / problem_.out_size[0], i = row % problem_.out_size[0];
      rows = least(chunk.rows.end - row, problem_.out_size[0] - i);
      const S* sample =
          x_ + n * problem_.x_strides[0] + group * p_.in_channels * problem_.x_strides[1];
      const int64_t h = i * problem_.stride[0] - problem_.pad_before[0];
      if (p_.taps_share_rows) {
        for (int64_t r = 0; r < rows; ++r)
          tops[row - chunk.rows.begin + r] = top + r * problem_.stride[0];
        const int64_t read =
            (rows - 1) * problem_.stride[0] + (problem_.kernel[0] - 1) * problem_.dilation[0] + 1;
        for (int64_t r = 0; r < read; ++r) copy_row(chunk, sample, h + r, to + (top + r) * pitch_);
        top += read;
        continue;
      }
      for (int64_t r = 0; r < rows; ++r, ++top) {
        tops[top] = top;
        for (int64_t a = 0; a < problem_.kernel[0]; ++a)
          copy_row(chunk, sample, h + r * problem_.stride[0] + a * problem_.dilation[0],
                   to + (a * tap_rows() + top) * pitch_);
      }
    }
  }

  // A row of x, of all channels. Those outside the image are not read.
  void copy_row(const Chunk& chunk, const S* sample, int64_t h, T* to) const {
    if (h < 0 || h >= problem_.in_size[0]) return;
    const int64_t step = problem_.stride[1];
    const int64_t left = chunk.columns.begin * step - problem_.pad_before[1];
    for (int64_t phase = 0; phase < step; ++phase, to += phase_) {
      if (!phase_read_[phase]) continue;
      const int64_t first = left + phase;
      const int64_t begin = least(pitch_, first < 0 ? (step - 1 - first) / step : 0);
      const int64_t inside = (problem_.in_size[1] - first + step - 1) / step;
      const int64_t end = most(begin, least(pitch_, inside));
      for (int64_t c = 0; c < p_.in_channels; ++c) {
        clear(to + c * x_plane_, begin);
        clear(to + c * x_plane_ + end, pitch_ - end);
      }
      copy_to_planes(
          to + begin, x_plane_,
          sample + h * problem_.x_strides[2] + (first + begin * step) * problem_.x_strides[3],
          step * problem_.x_strides[3], problem_.x_strides[1], end - begin, p_.in_channels);
    }
  }

  void copy_y(const Chunk& chunk, int64_t group, T* to) const {
    const int64_t columns = chunk.columns.end - chunk.columns.begin;
    const int64_t padded = round_up(columns, kLanes<T>);
    for (int64_t row = chunk.rows.begin; row < chunk.rows.end; ++row, to += padded_columns(p_)) {
      for (int64_t o = 0; o < p_.out_channels; ++o)
        clear(to + o * y_plane_ + columns, padded - columns);
      copy_to_planes(to, y_plane_,
                     y_ + row / problem_.out_size[0] * problem_.y_strides[0] +
                         row % problem_.out_size[0] * problem_.y_strides[2] +
                         chunk.columns.begin * problem_.y_strides[3] +
                         group * p_.out_channels * problem_.y_strides[1],
                     problem_.y_strides[3], problem_.y_strides[1], columns, p_.out_channels);
    }
  }

  void multiply(const Chunk& chunk, const int64_t* tops, const Scratch& scratch) const {
    const int64_t tap_row = problem_.kernel[1] * p_.in_channels;  // rows of a kernel row
    for (int64_t a = 0, next; a < problem_.kernel[0]; a = next) {
      const Range valid = reached(chunk, a);
      for (next = a + 1; next < problem_.kernel[0]; ++next) {
        const Range others = reached(chunk, next);
        if (others.begin != valid.begin || others.end != valid.end) break;
      }
      ReachedRows rows;
      for (int64_t row = chunk.rows.begin; row < chunk.rows.end; ++row) {
        const int64_t i = row % problem_.out_size[0], k = row - chunk.rows.begin;
        if (i < valid.begin || i >= valid.end) continue;
        rows.x[rows.count] = tops[k] * pitch_;
        rows.y[rows.count++] = k * padded_columns(p_);
      }
      if (rows.count > 0) multiply_rows(chunk, {a * tap_row, next * tap_row}, rows, scratch);
    }
  }

  // Rows of a sample whose tap reads inside the image: of the chunk, if it is in one.
  Range reached(const Chunk& chunk, int64_t a) const {
    const int64_t height = problem_.out_size[0], first = chunk.rows.begin % height;
    const int64_t count = chunk.rows.end - chunk.rows.begin;
    const Range all = first + count <= height ? Range{first, first + count} : Range{0, height};
    const Range rows = {most(all.begin, p_.valid_h[a].begin), least(all.end, p_.valid_h[a].end)};
    return rows.begin < rows.end ? rows : Range{0, 0};
  }

  void multiply_rows(const Chunk& chunk, const Range& sums, const ReachedRows& rows,
                     const Scratch& scratch) const {
    const int64_t columns = chunk.columns.end - chunk.columns.begin;
    const int64_t pitch = p_.out_channels * kLanes<T>;
    const Cut channels(p_.out_channels, kMaxVectors), tiles(sums.end - sums.begin, kMaxRows);
    for (int64_t c = 0; c < channels.parts; ++c)
      for (int64_t t = 0; t < tiles.parts; ++t) {
        const int64_t first = sums.begin + tiles.begin(t);
        planes_tile<T>(int(tiles.size(t)), int(channels.size(c)))(
            scratch.x, scratch.offsets + first, scratch.y + channels.begin(c) * y_plane_, y_plane_,
            rows, columns / kLanes<T>, columns % kLanes<T>,
            scratch.sums + first * pitch + channels.begin(c) * kLanes<T>, pitch);
      }
  }

  // Each vector's lanes.
  void add_up(const T* sums, T* totals) const {
    constexpr int64_t lanes = kLanes<T>;
    for (int64_t row = 0; row < p_.rows; ++row, totals += p_.padded_channels)
      for (int64_t o = 0; o < p_.out_channels; o += lanes) {
        const int64_t channels = least(lanes, p_.out_channels - o);
        store(totals + o, add_lanes(sums, channels));
        sums += channels * lanes;
      }
  }

  const WeightPlan& p_;
  const dilconv_problem& problem_;
  const S* x_;
  const S* y_;
  WeightSums<S, T> sums_;
  int64_t pitch_, phase_, x_plane_, y_plane_;  // elements of a row of x, a phase, planes
  bool phase_read_[kMostPhases] = {};
  char* workers_;
  int64_t worker_bytes_, bytes_;
};
