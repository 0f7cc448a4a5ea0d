// Depthwise, three taps by three that read neighbours: tiles of R x Q sums in registers. Written
// positions of a tile are as far apart as the taps are, so that it reads (R + 2) x (Q + 2) vectors,
// each once, where sums by themselves would read nine each.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

// Rows and columns of a tile at most: its sums stay in registers, with the nine weights.
constexpr int kSumRows = 4, kSumColumns = kMaxRows == 8 ? 4 : 2;
// Of planes, where neighbouring columns share nothing.
constexpr int kPlaneRows = kMaxRows == 8 ? 8 : 4;

// What a tile reads and writes; all advances by vectors. Row u, column v of what it reads is at
// read + u * read_row + column[v], and lies in the padding unless bit u * (Q + 2) + v of `inside`
// is set.
template <class E, class S, int Q>
struct SquareTile {
  const E* read;
  int64_t read_row, column[Q + 2];
  uint64_t inside;
  S* written;
  int64_t written_row, written_column;
};

// The nine weights, in the order of the positions that they read: [row][column].
template <class T>
struct SquareWeights {
  const T* at[3][3];
};

// The sums begin with `starts`, or with what is written already if that is null. Weights and starts
// advance with the vectors (of channels), or are `fixed` (for vectors of pixels). The last vector
// of `count` elements may overlap the one before.
template <int R, bool fixed, bool checked, class T, class E, class S, int Q>
__attribute__((noinline)) void square_tile(const SquareTile<E, S, Q>& tile,
                                           const SquareWeights<T>& weights, const T* starts,
                                           int64_t count) {
  Vector<T> weight[3][3];
  const auto load_weights = [&](int64_t c) {
#pragma GCC unroll 3
    for (int a = 0; a < 3; ++a)
#pragma GCC unroll 3
      for (int b = 0; b < 3; ++b) weight[a][b] = load(weights.at[a][b] + c);
  };
  if constexpr (fixed) load_weights(0);
  for (int64_t at = 0; at < count; at += kLanes<T>) {
    const int64_t c = least(at, count - kLanes<T>);
    if constexpr (!fixed) load_weights(c);
    Vector<T> total[R][Q];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int q = 0; q < Q; ++q)
        total[r][q] = starts ? load(starts + (fixed ? 0 : c))
                             : load_widened<T>(tile.written + r * tile.written_row +
                                               q * tile.written_column + c);
    const E* read = tile.read + c;
#pragma GCC unroll 10
    for (int u = 0; u < R + 2; ++u, read += tile.read_row) {
#pragma GCC unroll 6
      for (int v = 0; v < Q + 2; ++v) {
        if (checked && !(tile.inside >> (u * (Q + 2) + v) & 1)) continue;
        const Vector<T> value = in_register(load_widened<T>(read + tile.column[v]));
#pragma GCC unroll 3
        for (int a = 0; a < 3; ++a)
#pragma GCC unroll 3
          for (int b = 0; b < 3; ++b)
            if (u >= a && u - a < R && v >= b && v - b < Q)
              total[u - a][v - b] += value * weight[a][b];
      }
    }
    S* to = tile.written + c;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r, to += tile.written_row)
#pragma GCC unroll 4
      for (int q = 0; q < Q; ++q) store_narrowed<T>(to + q * tile.written_column, total[r][q]);
  }
}

template <int R, int Q>
constexpr uint64_t all_inside() {
  return (uint64_t(1) << ((R + 2) * (Q + 2))) - 1;
}

// One axis of a region with three taps, where positions i, i + dilation, ... form a phase.
struct SquareAxis {
  int64_t first, dilation;  // position i reads first + i + {0, 1, 2} * dilation
  int64_t kernel[3];        // the kernel elements that do

  explicit SquareAxis(const Span& span) {
    const bool reversed = span.taps[2].origin < span.taps[0].origin;
    for (int a = 0; a < 3; ++a) kernel[a] = span.taps[reversed ? 2 - a : a].kernel;
    first = span.taps[reversed ? 2 : 0].origin;
    dilation = (span.taps[2].origin - span.taps[0].origin) / (reversed ? -2 : 2);
  }

  // Three taps that read neighbours, and phases of at least kSquarePhase positions: tiles of fewer
  // share too little.
  static bool fits(const Span& span) {
    return span.tap_count == 3 && span.read_step == 1 &&
           span.count >= kSquarePhase * SquareAxis(span).dilation;
  }

  // Positions of the phase that begins at `phase` in [part.begin, part.end).
  int64_t count(Part part, int64_t phase) const {
    return (part.end - part.begin - phase + dilation - 1) / dilation;
  }
};

// The tiles of a region, vectors of channels.
template <class E, class S>
class Squares {
 public:
  static bool fit(const Region& region) {
    return SquareAxis::fits(region.h) && SquareAxis::fits(region.w);
  }

  Squares(const DepthwisePlan& plan, const Region& region, const PixelView<const E>& read,
          const PixelView<S>& written)
      : p_(plan), region_(region), h_(region.h), w_(region.w), read_(read), written_(written) {}

  const SquareAxis& h() const { return h_; }
  const SquareAxis& w() const { return w_; }

  // Whether what tiles side by side read and write, of so many channels, stays in the first-level
  // cache.
  bool near(int64_t channels) const {
    constexpr int64_t kCacheBytes = 32768;
    constexpr int64_t pixels = (kSumRows + 2) * (kSumColumns + 2) + kSumRows * kSumColumns;
    return pixels * w_.dilation * channels * int64_t(sizeof(E)) <= kCacheBytes;
  }

  // use.run<R, checked>(tile) for those that cover [rows] x [columns]; checked: some of what it
  // reads is padding. side_by_side: of a few columns all phases, which share cache lines; else of a
  // phase all columns, which share what they read.
  template <class Use>
  void each(Part rows, Part columns, bool side_by_side, const Use& use) const {
    for (int64_t phase = 0; phase < least(h_.dilation, rows.end - rows.begin); ++phase) {
      const Cut down(h_.count(rows, phase), kSumRows);
      for (int64_t r = 0; r < down.parts; ++r)
        of_rows<kSumRows>(rows.begin + phase + down.begin(r) * h_.dilation, down.size(r), columns,
                          side_by_side, use);
    }
  }

 private:
  template <int R, class Use>
  void of_rows(int64_t top, int64_t count, Part columns, bool side_by_side, const Use& use) const {
    if constexpr (R > 1)
      if (count < R) return of_rows<R - 1>(top, count, columns, side_by_side, use);
    const int64_t phases = least(w_.dilation, columns.end - columns.begin);
    const int64_t tiles = Cut(w_.count(columns, 0), kSumColumns).parts;
    const int64_t together = side_by_side ? 1 : tiles;
    for (int64_t first = 0; first < tiles; first += together)
      for (int64_t phase = 0; phase < phases; ++phase) {
        // The last phases may be shorter than the first.
        const Cut across(w_.count(columns, phase), kSumColumns);
        for (int64_t q = first; q < least(first + together, across.parts); ++q)
          of_columns<R, kSumColumns>(top, columns.begin + phase + across.begin(q) * w_.dilation,
                                     across.size(q), use);
      }
  }

  template <int R, int Q, class Use>
  void of_columns(int64_t top, int64_t left, int64_t count, const Use& use) const {
    if constexpr (Q > 1)
      if (count < Q) return of_columns<R, Q - 1>(top, left, count, use);
    const int64_t row = h_.first + top, column = w_.first + left;
    SquareTile<E, S, Q> tile;
    tile.read = read_.at(row, column);
    tile.read_row = h_.dilation * read_.row_pitch;
    tile.inside = 0;
    for (int v = 0; v < Q + 2; ++v) tile.column[v] = v * w_.dilation * read_.column_pitch;
    for (int u = 0; u < R + 2; ++u)
      for (int v = 0; v < Q + 2; ++v)
        if (inside(row + u * h_.dilation, p_.read_size[0]) &&
            inside(column + v * w_.dilation, p_.read_size[1]))
          tile.inside |= uint64_t(1) << (u * (Q + 2) + v);
    const Span &h = region_.h, &w = region_.w;
    tile.written = written_.at(h.begin + top * h.step, w.begin + left * w.step);
    tile.written_row = h_.dilation * h.step * written_.row_pitch;
    tile.written_column = w_.dilation * w.step * written_.column_pitch;
    if (tile.inside == all_inside<R, Q>())
      use.template run<R, false>(tile);
    else
      use.template run<R, true>(tile);
  }

  const DepthwisePlan& p_;
  const Region& region_;
  const SquareAxis h_, w_;
  const PixelView<const E>& read_;
  const PixelView<S>& written_;
};

// conv2d or grad_input of tiles.
template <class T>
struct SquareGather {
  SquareWeights<T> weights;
  const T* starts;
  int64_t channels;

  template <int R, bool checked, class E, class S, int Q>
  void run(const SquareTile<E, S, Q>& tile) const {
    square_tile<R, false, checked>(tile, weights, starts, channels);
  }
};

// grad_weight of tiles, which read x and "write" y: adds to sums, [tap][channel].
template <class T>
struct SquareWeightSums {
  T* sums;
  int64_t tap_pitch, channels;

  template <int R, bool checked, int Q>
  __attribute__((noinline)) void run(const SquareTile<T, const T, Q>& tile) const {
    for (int64_t at = 0; at < channels; at += kLanes<T>) {
      // The last vector begins at its own sums, but may read channels of the one before.
      const int64_t c = least(at, channels - kLanes<T>);
      Vector<T> value[R][Q], total[3][3] = {};
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int q = 0; q < Q; ++q)
          value[r][q] =
              in_register(load(tile.written + r * tile.written_row + q * tile.written_column + c));
      const T* read = tile.read + c;
#pragma GCC unroll 10
      for (int u = 0; u < R + 2; ++u, read += tile.read_row) {
#pragma GCC unroll 6
        for (int v = 0; v < Q + 2; ++v) {
          if (checked && !(tile.inside >> (u * (Q + 2) + v) & 1)) continue;
          const Vector<T> x = in_register(load(read + tile.column[v]));
#pragma GCC unroll 3
          for (int a = 0; a < 3; ++a)
#pragma GCC unroll 3
            for (int b = 0; b < 3; ++b)
              if (u >= a && u - a < R && v >= b && v - b < Q)
                total[a][b] += x * value[u - a][v - b];
        }
      }
#pragma GCC unroll 9
      for (int t = 0; t < 9; ++t) {
        T* sum = sums + t * tap_pitch + at;
        store(sum, load(sum) + total[t / 3][t % 3]);
      }
    }
  }
};
