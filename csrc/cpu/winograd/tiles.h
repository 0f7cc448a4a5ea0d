// The tiles of a plane: which they are, and how they become channel vectors in Winograd's domain.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

// Tiles of one sample that share their rows: `tiles` of the columns' phases [phase, phase +
// phases), starting with the tile `first` of each; a tile follows its neighbour in the phase after
// `phases` others. The last ones may not exist in every phase.
struct TileBlock {
  int64_t n, row_phase, row_tile;
  int64_t first, phase, phases;
  int64_t tiles;
};

class TileGrid {
 public:
  TileGrid(const WinogradPlan& plan)
      : h_(plan.h),
        w_(plan.w),
        phase_blocks_(w_.dilation, w_.phase_block),
        tile_blocks_(w_.tiles, w_.tile_block) {
    const int64_t whole = (h_.tiles - 1) * h_.dilation;
    strips_ = whole + least(h_.dilation, h_.written_size - h_.tile * whole);
    blocks_ = plan.batch * strips_ * phase_blocks_.parts * tile_blocks_.parts;
  }

  int64_t blocks() const { return blocks_; }
  int64_t largest_block() const { return phase_blocks_.largest() * tile_blocks_.largest(); }
  // Pixels that a block reads from one row, at most.
  int64_t longest_row() const {
    return phase_blocks_.largest() * (w_.tile * tile_blocks_.largest() + w_.taps - 1);
  }

  TileBlock block(int64_t index) const {
    TileBlock b;
    const int64_t phases = index % phase_blocks_.parts;
    index /= phase_blocks_.parts;
    const int64_t tiles = index % tile_blocks_.parts;
    index /= tile_blocks_.parts;
    b.row_phase = index % strips_ % h_.dilation;
    b.row_tile = index % strips_ / h_.dilation;
    b.n = index / strips_;
    b.first = tile_blocks_.begin(tiles);
    b.phase = phase_blocks_.begin(phases);
    b.phases = phase_blocks_.size(phases);
    const int64_t last = b.first + tile_blocks_.size(tiles) - 1;
    const int64_t reached = w_.written_size - w_.dilation * w_.tile * last - b.phase;
    b.tiles = (last - b.first) * b.phases + most(0, least(b.phases, reached));
    return b;
  }

 private:
  const WinogradAxis& h_;
  const WinogradAxis& w_;
  Cut phase_blocks_, tile_blocks_;
  int64_t strips_, blocks_;
};

// At least `elements`, an odd number of cache lines, and less than kOddGap more. What many such
// strides part, as the planes of a tile are, does not meet in a few sets of the cache.
template <class T>
constexpr int64_t kOddGap = 128 / int64_t(sizeof(T));
template <class T>
inline int64_t odd_lines(int64_t elements) {
  constexpr int64_t line = 64 / int64_t(sizeof(T));
  return ((elements + line - 1) / line | 1) * line;
}

// A matrix for each plane, of some rows by some vectors. The vectors are cut into blocks for
// register tiles; a block lies plane by plane.
template <class T, class Form>
struct PlaneBlocks {
  int64_t rows;

  int64_t elements(int64_t vectors, int64_t blocks) const {
    return Form::planes * (vectors * kLanes<T> * rows + blocks * kOddGap<T>);
  }
  int64_t elements(int64_t vectors) const {
    return elements(vectors, Cut(vectors, kMaxVectors).parts);
  }
  int64_t begin(const Cut& cut, int64_t block) const { return elements(cut.begin(block), block); }
  int64_t plane(const Cut& cut, int64_t block) const {
    return odd_lines<T>(cut.size(block) * kLanes<T> * rows);
  }
};

// A vector's first channel: the last vector overlaps the one before, so that all are full, unless
// there are too few channels for one.
template <class T>
inline int64_t vector_channel(int64_t vector, int64_t channels) {
  return most(0, least(vector * kLanes<T>, channels - kLanes<T>));
}

// Calls run(at, column, count) for the runs of adjacent pixels among `steps` positions of every
// phase of the block, `at` being a run's place in a strip. Columns are of the written plane.
template <class Run>
inline void for_runs(const WinogradPlan& plan, const TileBlock& block, int64_t steps,
                     const Run& run) {
  const int64_t first = block.phase + plan.w.dilation * plan.w.tile * block.first;
  if (block.phases == plan.w.dilation) return run(0, first, steps * block.phases);
  for (int64_t t = 0; t < steps; ++t)
    run(t * block.phases, first + t * plan.w.dilation, block.phases);
}

inline int64_t columns_of(const TileBlock& block) {
  return (block.tiles + block.phases - 1) / block.phases;
}

// Where a strip's rows lie: one vector of channels after another, `step` elements apart.
template <class T>
struct StripRow {
  const T* at;
  int64_t step;
};

// Columns [begin, end) of a run of `count` that lie inside the image when the first is column j.
struct Inside {
  int64_t begin, end;
  Inside(int64_t j, int64_t count, int64_t size)
      : begin(least(count, most(0, -j))), end(most(begin, least(count, size - j))) {}
};

// The plane that tiles are read from: element 0 of tile 0 of phase 0 is at `origin`.
template <class S>
struct TilePlane {
  const S* at;
  const int64_t* strides;  // sample, channel, row, column
  int64_t size[2], origin[2];
};

// What a piece of the kernel reads.
template <class S>
TilePlane<S> read_by_piece(const WinogradPlan& plan, const S* at, int64_t piece) {
  return {at,
          plan.read_strides,
          {plan.h.read_size, plan.w.read_size},
          {plan.h.origin + piece / plan.w.pieces * plan.h.piece_step,
           plan.w.origin + piece % plan.w.pieces * plan.w.piece_step}};
}

// Tiles enter Winograd's domain, one vector of channels at a time: down the columns into the rows
// of a strip, `pitch` vectors apart; then along these rows. Zeros lie outside the plane.
template <template <class, class> class Transform, class S, class T, class Form>
class TileReader {
 public:
  TileReader(const WinogradPlan& plan, const TilePlane<S>& plane, T* strip, int64_t pitch)
      : p_(plan), plane_(plane), strip_(strip), pitch_(pitch) {}

  // Plane p of a tile, channel c, goes to p * to_plane + tile * to_pitch + c.
  void run(const TileBlock& block, const Range& channels, T* to, int64_t to_plane,
           int64_t to_pitch) const {
    const int64_t count = channels.end - channels.begin;
    for (int64_t done = 0; done < count && block.tiles > 0; done += lanes) {
      const int64_t channel = vector_channel<T>(done / lanes, count);
      read_columns(block, plane_.at + (channels.begin + channel) * plane_.strides[1],
                   least(lanes, count));
      transform_rows(block, to + channel, to_plane, to_pitch);
    }
  }

 private:
  static constexpr int64_t lanes = kLanes<T>;
  using H = typename Form::H;
  using W = typename Form::W;
  using Down = Transform<T, H>;
  using Along = Transform<T, W>;

  void read_columns(const TileBlock& block, const S* from, int64_t channels) const {
    const S* rows[Down::in];
    for (int r = 0; r < Down::in; ++r) {
      const int64_t i =
          plane_.origin[0] + block.row_phase + p_.h.dilation * (H::outputs * block.row_tile + r);
      rows[r] = i < 0 || i >= plane_.size[0]
                    ? nullptr
                    : from + block.n * plane_.strides[0] + i * plane_.strides[2];
    }
    for_runs(p_, block, W::outputs * (columns_of(block) - 1) + Along::in,
             [&](int64_t at, int64_t column, int64_t count) {
               const int64_t j = plane_.origin[1] + column;
               const Inside inside(j, count, plane_.size[1]);
               T* to = strip_ + at * lanes;
               for (int r = 0; r < H::products; ++r) {
                 clear(to + r * pitch_ * lanes, inside.begin * lanes);
                 clear(to + (r * pitch_ + inside.end) * lanes, (count - inside.end) * lanes);
               }
               transform_columns(rows, j + inside.begin, to + inside.begin * lanes,
                                 inside.end - inside.begin, channels);
             });
  }

  void transform_columns(const S* const* rows, int64_t column, T* to, int64_t count,
                         int64_t channels) const {
    const T zeros[lanes] = {};
    StripRow<T> from[Down::in];
    for (int r = 0; r < Down::in; ++r) {
      if (!rows[r]) {
        from[r] = {zeros, 0};
        continue;
      }
      const S* row = rows[r] + column * plane_.strides[3];
      if constexpr (kSame<S, T>) {
        if (channels == lanes && plane_.strides[1] == 1) {
          from[r] = {row, plane_.strides[3]};
          continue;
        }
      }
      T* staged = to + r * pitch_ * lanes;
      load_channels(staged, row, count, channels, plane_.strides[3], plane_.strides[1]);
      from[r] = {staged, lanes};
    }
    for (int64_t q = 0; q < count; ++q, to += lanes) {
      Vector<T> x[Down::in], v[H::products];
#pragma GCC unroll 6
      for (int r = 0; r < Down::in; ++r) x[r] = load(from[r].at + q * from[r].step);
      Down::apply(x, v);
#pragma GCC unroll 6
      for (int r = 0; r < H::products; ++r) store(to + r * pitch_ * lanes, v[r]);
    }
  }

  void transform_rows(const TileBlock& block, T* to, int64_t to_plane, int64_t to_pitch) const {
    for (int64_t tile = 0; tile < block.tiles; ++tile, to += to_pitch) {
      const int64_t u = tile / block.phases, phase = tile % block.phases;
      const T* from = strip_ + (W::outputs * u * block.phases + phase) * lanes;
      for (int r = 0; r < H::products; ++r, from += pitch_ * lanes) {
        Vector<T> x[Along::in], v[W::products];
#pragma GCC unroll 6
        for (int s = 0; s < Along::in; ++s) x[s] = load(from + s * block.phases * lanes);
        Along::apply(x, v);
#pragma GCC unroll 6
        for (int s = 0; s < W::products; ++s) store(to + (r * W::products + s) * to_plane, v[s]);
      }
    }
  }

  const WinogradPlan& p_;
  const TilePlane<S> plane_;
  T* strip_;
  int64_t pitch_;
};

// Rows of results, `pitch` vectors apart, become written pixels.
template <class T, class Form, class S>
void write_strip(const WinogradPlan& plan, const TileBlock& block, S* written, int64_t channels,
                 const T* strip, int64_t pitch) {
  constexpr int height = Form::H::outputs;
  const int64_t steps = Form::W::outputs * columns_of(block);
  for (int64_t r = 0; r < height; ++r, strip += pitch * kLanes<T>) {
    const int64_t i = block.row_phase + plan.h.dilation * (height * block.row_tile + r);
    if (i >= plan.h.written_size) return;
    S* row = written + block.n * plan.written_strides[0] + i * plan.written_strides[2];
    for_runs(plan, block, steps, [&](int64_t at, int64_t column, int64_t count) {
      store_channels(row + column * plan.written_strides[3], plan.written_strides[3],
                     plan.written_strides[1], strip + at * kLanes<T>,
                     most(0, least(count, plan.w.written_size - column)), channels);
    });
  }
}

// The result transform of a block's products, with the bias added, into a strip.
template <class T, class Form>
void transform_result(const TileBlock& block, const T* from, int64_t plane, int64_t pitch,
                      Vector<T> bias, T* strip, int64_t strip_pitch) {
  using H = typename Form::H;
  using W = typename Form::W;
  constexpr int64_t lanes = kLanes<T>;
  for (int64_t tile = 0; tile < block.tiles; ++tile, from += pitch) {
    const int64_t u = tile / block.phases, phase = tile % block.phases;
    Vector<T> half[H::outputs][W::products];
    for (int s = 0; s < W::products; ++s) {
      Vector<T> x[H::products], y[H::outputs];
#pragma GCC unroll 6
      for (int r = 0; r < H::products; ++r) x[r] = load(from + (r * W::products + s) * plane);
      H::template result<T>(x, y);
#pragma GCC unroll 4
      for (int r = 0; r < H::outputs; ++r) half[r][s] = y[r];
    }
    T* to = strip + (W::outputs * u * block.phases + phase) * lanes;
    for (int r = 0; r < H::outputs; ++r, to += strip_pitch * lanes) {
      Vector<T> y[W::outputs];
      W::template result<T>(half[r], y);
#pragma GCC unroll 4
      for (int s = 0; s < W::outputs; ++s) store(to + s * block.phases * lanes, y[s] + bias);
    }
  }
}
