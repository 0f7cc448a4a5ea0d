// Depthwise grad_weight, vectors of channels; and that of groups of a few channels.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

// grad_weight of one vector of channels: adds to sums, [channel of the group that is read][tap]
// [channel]. M channels of each group are read together; 1: those that are written.
template <class T, int M = 1>
struct PixelWeight {
  const DepthwisePlan& p;
  PixelView<const T> x, y;  // from the vector's first channel on
  T* sums;
  int64_t tap_pitch, mix_pitch;
  GroupLanes<T, M> lanes;

  // Positions [rows] x [columns] of y, in chunks: each is summed in registers.
  void run(Part rows, Part columns) const {
    constexpr int64_t kChunk = 128;
    const Cut across(columns.end - columns.begin, kChunk);
    for (int64_t c = 0; c < across.parts; ++c) {
      const int64_t first = columns.begin + across.begin(c), width = across.size(c);
      const Cut down(rows.end - rows.begin, most(1, kChunk / width));
      for (int64_t r = 0; r < down.parts; ++r) {
        const int64_t top = rows.begin + down.begin(r);
        chunk({top, top + down.size(r)}, {first, first + width});
      }
    }
  }

 private:
  static constexpr int kTaps = M == 1 ? 8 : 3, kThree = 3, kTapsOfThree = 4;

  void chunk(Part rows, Part columns) const {
    const Cut taps(p.kernel[1], kTaps);
    for (int64_t t = 0; t < taps.parts; ++t) {
      const int64_t b = taps.begin(t), count = taps.size(t);
      int64_t a = 0;
      if (M == 1 && count <= kTapsOfThree)
        for (; a + kThree <= p.kernel[0]; a += kThree) three_rows(a, b, count, rows, columns);
      for (; a < p.kernel[0]; ++a) run_taps<1, kTaps>(a, b, count, valid_rows(a, rows), columns);
    }
  }

  // The positions whose kernel row a reads inside the image.
  Part valid_rows(int64_t a, Part rows) const { return valid(p.regions[0].h, a, 0, rows); }

  Part valid(const Span& span, int64_t tap, int axis, Part part) const {
    const int64_t origin = span.taps[tap].origin, step = span.read_step;
    const int64_t first = origin >= 0 ? 0 : (step - 1 - origin) / step;
    const int64_t last =
        origin >= p.read_size[axis] ? 0 : (p.read_size[axis] - 1 - origin) / step + 1;
    const int64_t begin = least(part.end, most(part.begin, first));
    return {begin, most(begin, least(part.end, last))};
  }

  // Kernel rows a ... a + 2 together where all three read inside the image, singly elsewhere.
  void three_rows(int64_t a, int64_t b, int64_t count, Part rows, Part columns) const {
    const Part first = valid_rows(a, rows), last = valid_rows(a + kThree - 1, rows);
    const int64_t begin = first.begin, end = most(begin, last.end);
    const auto one_row = [&](int64_t row, Part part) {
      run_taps<1, kTapsOfThree>(row, b, count, part, columns);
    };
    if (begin == end) {
      for (int64_t t = 0; t < kThree; ++t) one_row(a + t, valid_rows(a + t, rows));
      return;
    }
    run_taps<kThree, kTapsOfThree>(a, b, count, {begin, end}, columns);
    for (int64_t t = 0; t < kThree; ++t) {
      const Part one = valid_rows(a + t, rows);
      one_row(a + t, {one.begin, least(begin, one.end)});
      one_row(a + t, {most(end, one.begin), one.end});
    }
  }

  template <int A, int B>
  void run_taps(int64_t a, int64_t b, int64_t count, Part rows, Part columns) const {
    if constexpr (B > 1)
      if (count < B) return run_taps<A, B - 1>(a, b, count, rows, columns);
    if (rows.begin < rows.end) taps<A, B>(a, b, rows, columns);
  }

  template <int A, int B>
  void taps(int64_t a, int64_t b, Part rows, Part columns) const {
    const Span &h = p.regions[0].h, &w = p.regions[0].w;
    // Where all the taps read inside the row, and where one does.
    const Part low = valid(w, b + B - 1, 1, columns), high = valid(w, b, 1, columns);
    const Part any = {low.begin, most(low.begin, high.end)};
    const int64_t begin = most(any.begin, least(any.end, high.begin));
    const Part full = {begin, most(begin, least(any.end, low.end))};
    const int64_t dilation = p.kernel[1] > 1 ? w.taps[1].origin - w.taps[0].origin : 0;
    const int64_t row_distance =
        p.kernel[0] > 1 ? (h.taps[1].origin - h.taps[0].origin) * x.row_pitch : 0;
    Vector<T> total[A][B][M] = {};
    for (int64_t i = rows.begin; i < rows.end; ++i) {
      const T* line = x.at(h.taps[a].origin + i * h.read_step, w.taps[b].origin);
      add_checked<A, B>({any.begin, full.begin}, w.taps[b].origin, dilation, line, row_distance, i,
                        total);
      const T* from = line + full.begin * w.read_step * x.column_pitch;
      const T* written = y.at(i, full.begin);
      for (int64_t j = full.begin; j < full.end; ++j) {
        const Vector<T> value = load(written);
#pragma GCC unroll 4
        for (int r = 0; r < A; ++r)
#pragma GCC unroll 8
          for (int t = 0; t < B; ++t)
            add(load(from + r * row_distance + t * dilation * x.column_pitch), value, total[r][t]);
        from += w.read_step * x.column_pitch;
        written += y.column_pitch;
      }
      add_checked<A, B>({full.end, any.end}, w.taps[b].origin, dilation, line, row_distance, i,
                        total);
    }
#pragma GCC unroll 4
    for (int r = 0; r < A; ++r)
#pragma GCC unroll 8
      for (int t = 0; t < B; ++t)
#pragma GCC unroll 4
        for (int m = 0; m < M; ++m) {
          T* sum = sums + m * mix_pitch + ((a + r) * p.kernel[1] + b + t) * tap_pitch;
          store(sum, load(sum) + total[r][t][m]);
        }
  }

  __attribute__((always_inline)) void add(Vector<T> read, Vector<T> value,
                                          Vector<T> (&total)[M]) const {
    if constexpr (M == 1) {
      total[0] += read * value;
    } else {
      read = in_register(read);
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) total[m] += permute_lanes(read, lanes.picked[m]) * value;
    }
  }

  template <int A, int B>
  void add_checked(Part part, int64_t origin, int64_t dilation, const T* line, int64_t row_distance,
                   int64_t i, Vector<T> (&total)[A][B][M]) const {
    const int64_t step = p.regions[0].w.read_step;
    for (int64_t j = part.begin; j < part.end; ++j) {
      const Vector<T> value = load(y.at(i, j));
#pragma GCC unroll 8
      for (int t = 0; t < B; ++t) {
        if (!inside(origin + j * step + t * dilation, p.read_size[1])) continue;
#pragma GCC unroll 4
        for (int r = 0; r < A; ++r)
          add(load(line + r * row_distance + (j * step + t * dilation) * x.column_pitch), value,
              total[r][t]);
      }
    }
  }
};
