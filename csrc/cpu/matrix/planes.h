// conv2d and grad_input on planes of dense pixels, where the channels of a group are few: written
// pixels are in vectors, written channels are the rows of a register tile, whose operand is the
// weights'.
//
// The planes that are read are copied, two channels' pixels side by side, with zeros around them;
// pixels that a stride parts are neighbours there. A line is a written row, or all rows of the copy
// behind each other, with their margins. Every written element is one chain of sums, cut into tiles
// in the same way for every sample, so its bits depend on its sample alone.
//
// Included inside an instruction set's anonymous namespace; see matrix.inc.

class MatrixPlanes {
 public:
  MatrixPlanes(const MatrixPlanesPlan& plan, int workers, const void* read, const void* weight,
               const void* bias, void* written, void* workspace)
      : p_(plan.tensors),
        plan_(plan),
        taps_(p_.kernel[0] * p_.kernel[1]),
        row_length_(2 * taps_ * plan.pairs),
        row_tiles_(p_.written_channels, kRowUnits),
        line_tiles_((plan.line + kSquareLanes - 1) / kSquareLanes, kTileVectors),
        blocks_(plan.lines * line_tiles_.parts, kBlockTiles),
        read_(static_cast<const BFloat16*>(read)),
        weight_(static_cast<const BFloat16*>(weight)),
        bias_(static_cast<const BFloat16*>(bias)),
        written_(static_cast<BFloat16*>(written)) {
    Arena arena(workspace);
    rows_ = arena.take<BFloat16>(p_.groups * p_.written_channels * row_length_);
    // The last line's vectors are read beyond it.
    copied_ = arena.take<BFloat16>(p_.samples * sample_length() + 2 * kTileWidth);
    worker_bytes_ = Scratch(nullptr, *this).bytes;
    workers_ = arena.take<char>(workers * worker_bytes_);
    bytes_ = arena.used();
  }

  size_t workspace_bytes() const { return size_t(bytes_); }

  void run(const TaskPool& pool) {
    pool.run(
        pool, p_.groups * p_.written_channels,
        [](void* self, int64_t index, int) {
          static_cast<const MatrixPlanes*>(self)->pack_row(index);
        },
        this);
    for (int64_t left = p_.batch, count; left > 0; left -= count) {
      count = least(left, p_.samples);
      pool.run(
          pool, count * p_.groups * plan_.pairs,
          [](void* self, int64_t index, int) {
            static_cast<const MatrixPlanes*>(self)->copy_planes(index);
          },
          this);
      const int64_t tasks = count * p_.groups * blocks_.parts;
      splits_ =
          pool.workers == 1 ? 1 : least(row_tiles_.parts, (4 * pool.workers + tasks - 1) / tasks);
      pool.run(
          pool, tasks * splits_,
          [](void* self, int64_t index, int worker) {
            static_cast<const MatrixPlanes*>(self)->task(index, worker);
          },
          this);
      read_ += count * p_.read_strides[0];
      written_ += count * p_.written_strides[0];
    }
  }

 private:
  static constexpr int64_t kTileWidth = kTileVectors * kSquareLanes;  // pixels of a register tile
  static constexpr int64_t kBlockTiles = 8;  // of a task: they share weights

  // Some vectors of a line: `count` positions of the copy from one on, of which some are written
  // pixels: those from a row's column on. And the rows of taps that read inside the image for them.
  struct Tile {
    int64_t first, count;
    int vectors;
    int64_t row, column;
    Range taps;
  };

  // What one worker needs while it runs a task.
  struct Scratch {
    Scratch(char* base, const MatrixPlanes& g) {
      Arena arena(base);
      tiles = arena.take<Tile>(kBlockTiles);
      pieces = arena.take<Piece>(g.taps_);
      written = arena.take<BFloat16>(kRowUnits * kTileWidth);
      bytes = arena.used();
    }
    Tile* tiles;
    Piece* pieces;
    BFloat16* written;  // of one tile, where rows' ends part it
    int64_t bytes;
  };

  int64_t sample_length() const { return p_.groups * plan_.pairs * 2 * plan_.plane; }

  // A written channel's weights: pairs of read channels, for one tap after the other.
  void pack_row(int64_t index) const {
    const int64_t group = index / p_.written_channels, channel = index % p_.written_channels;
    const BFloat16* from =
        weight_ + group * p_.weight_group_stride + channel * p_.weight_strides[0];
    BFloat16* to = rows_ + index * row_length_;
    for (int64_t tap = 0; tap < taps_; ++tap, to += 2 * plan_.pairs) {
      const BFloat16* tap_from = from + tap / p_.kernel[1] * p_.weight_strides[2] +
                                 tap % p_.kernel[1] * p_.weight_strides[3];
      for (int64_t c = 0; c < p_.read_channels; ++c) to[c] = tap_from[c * p_.weight_strides[1]];
      clear_products(to + p_.read_channels, 2 * plan_.pairs - p_.read_channels);
    }
  }

  // A pair of channels of a sample.
  void copy_planes(int64_t index) const {
    const int64_t pair = index % plan_.pairs, group = index / plan_.pairs % p_.groups;
    const int64_t sample = index / plan_.pairs / p_.groups;
    const int64_t channel = group * p_.read_channels + 2 * pair;
    const BFloat16* from = read_ + sample * p_.read_strides[0] + channel * p_.read_strides[1];
    BFloat16* to = copied_ + index * 2 * plan_.plane;
    for (int64_t h = 0; h < plan_.phases[0]; ++h)
      for (int64_t w = 0; w < plan_.phases[1]; ++w)
        for (int64_t row = 0; row < plan_.size[0]; ++row, to += 2 * plan_.size[1])
          copy_row(to, from, row * plan_.step[0] + h * plan_.unit[0] - plan_.before[0],
                   w * plan_.unit[1] - plan_.before[1], 2 * pair + 1 < p_.read_channels);
  }

  // Pixels of row h from column w on, a phase apart, of one or two channels.
  void copy_row(BFloat16* to, const BFloat16* from, int64_t h, int64_t w, bool two) const {
    const int64_t count = plan_.size[1], step = plan_.step[1], width = p_.read_size[1];
    if (h < 0 || h >= p_.read_size[0]) return clear_products(to, 2 * count);
    PairRun run = {};
    run.stride = step;
    run.count = count;
    for (int m = 0; m < 1 + two; ++m) {
      run.from[m] = from + m * p_.read_strides[1] + h * p_.read_strides[2] + w;
      run.begin[m] = w >= 0 ? 0 : (step - 1 - w) / step;
      run.end[m] = w >= width ? 0 : least(count, (width - w + step - 1) / step);
    }
    if (!two) run.from[1] = run.from[0];
    for (int64_t i = 0; i < count; i += kSquareLanes)
      store_products(to + 2 * i, run.pairs(run.sixteen(i), 0), 2 * least(kSquareLanes, count - i));
  }

  void task(int64_t index, int worker) const {
    const Scratch scratch(workers_ + worker * worker_bytes_, *this);
    const int64_t split = index % splits_;
    index /= splits_;
    const int64_t block = index % blocks_.parts, group = index / blocks_.parts % p_.groups;
    const int64_t sample = index / blocks_.parts / p_.groups;
    const Session session(1);
    const int64_t tiles = place_tiles(block, scratch.tiles);
    const BFloat16* planes =
        copied_ + sample * sample_length() + group * plan_.pairs * plan_.plane * 2;
    Range listed = {-1, -1};
    int count = 0;
    const int64_t last = row_tiles_.parts * (split + 1) / splits_;
    for (int64_t b = row_tiles_.parts * split / splits_; b < last; ++b) {
      const Rows rows(*this, sample, group, b);
      for (int64_t t = 0; t < tiles; ++t) {
        const Tile& tile = scratch.tiles[t];
        if (tile.taps.begin != listed.begin || tile.taps.end != listed.end)
          count = list_pieces(tile.taps, scratch.pieces);
        listed = tile.taps;
        multiply(tile, planes + 2 * tile.first, rows, count, scratch);
      }
    }
  }

  // Returns how many tiles a block has.
  int64_t place_tiles(int64_t block, Tile* tiles) const {
    const int64_t first = blocks_.begin(block), count = blocks_.size(block), width = plan_.size[1];
    int64_t line = first / line_tiles_.parts, t = first % line_tiles_.parts;
    for (int64_t k = 0; k < count; ++k) {
      const int64_t begin = line_tiles_.begin(t), end = line_tiles_.begin(t + 1);
      const int64_t from = begin * kSquareLanes, to = least(end * kSquareLanes, plan_.line);
      Tile& tile = tiles[k];
      tile = {line * width + from, to - from, int(end - begin), line + from / width, from % width};
      tile.taps = taps_inside(tile.row, line + (to - 1) / width);
      if (++t == line_tiles_.parts) t = 0, ++line;
    }
    return count;
  }

  // The rows of taps that read inside the image for one of the written rows.
  Range taps_inside(int64_t first, int64_t last) const {
    const Span& h = p_.regions->h;
    const auto outside = [&](int64_t tap) {
      const int64_t origin = h.taps[tap].origin;
      return last * h.read_step + origin < 0 || first * h.read_step + origin >= p_.read_size[0];
    };
    Range taps = {0, h.tap_count};
    while (taps.begin < taps.end && outside(taps.begin)) ++taps.begin;
    while (taps.begin < taps.end && outside(taps.end - 1)) --taps.end;
    return taps;
  }

  int list_pieces(const Range& rows, Piece* pieces) const {
    const Span &h = p_.regions->h, &w = p_.regions->w;
    int count = 0;
    for (int64_t i = rows.begin; i < rows.end; ++i)
      for (int64_t j = 0; j < w.tap_count; ++j) {
        const int64_t row = h.taps[i].origin + plan_.before[0];
        const int64_t column = w.taps[j].origin + plan_.before[1];
        const int64_t phase = row % plan_.step[0] / plan_.unit[0] * plan_.phases[1] +
                              column % plan_.step[1] / plan_.unit[1];
        pieces[count++] = {
            (h.taps[i].kernel * p_.kernel[1] + w.taps[j].kernel) * 2 * plan_.pairs,
            (phase * plan_.size[0] + row / plan_.step[0]) * plan_.size[1] + column / plan_.step[1],
            plan_.pairs};
      }
    return count;
  }

  // A register tile's rows: some written channels.
  struct Rows {
    Rows(const MatrixPlanes& g, int64_t sample, int64_t group, int64_t index)
        : count(g.row_tiles_.size(index)) {
      const int64_t first = group * g.p_.written_channels + g.row_tiles_.begin(index);
      written = g.written_ + sample * g.p_.written_strides[0] + first * g.p_.written_strides[1];
      for (int64_t r = 0; r < count; ++r) weights[r] = g.rows_ + (first + r) * g.row_length_;
      load_biases(bias, g.bias_ ? g.bias_ + first : nullptr, count);
    }
    int64_t count;
    BFloat16* written;  // the first one's plane
    const BFloat16* weights[kRowUnits];
    float bias[kRowUnits];
  };

  void multiply(const Tile& tile, const BFloat16* vectors, const Rows& rows, int pieces,
                const Scratch& scratch) const {
    const OperandLayout operands = {1, 0, 2, 2, 2 * plan_.plane, 2 * kSquareLanes};
    const bool whole = plan_.lines_dense || tile.count <= p_.regions->w.count - tile.column;
    BFloat16* to = rows.written + tile.row * p_.written_strides[2] + tile.column;
    const WrittenPlanes target = {whole ? to : scratch.written,
                                  whole ? p_.written_strides[1] : kTileWidth, tile.count,
                                  rows.bias};
    pair_tile<WrittenPlanes>(int(rows.count), tile.vectors)(rows.weights, operands, vectors,
                                                            scratch.pieces, pieces, target);
    if (!whole) write(tile, rows, scratch.written);
  }

  // The tile's pixels that are written ones: some of one row after the other.
  void write(const Tile& tile, const Rows& rows, const BFloat16* from) const {
    int64_t column = tile.column;
    BFloat16* to = rows.written + tile.row * p_.written_strides[2];
    for (int64_t done = 0; done < tile.count; to += p_.written_strides[2]) {
      const int64_t count = least(tile.count - done, p_.regions->w.count - column);
      for (int64_t r = 0; r < rows.count && count > 0; ++r)
        copy_products(to + r * p_.written_strides[1] + column, from + r * kTileWidth + done, count);
      done += plan_.size[1] - column;
      column = 0;
    }
  }

  const GatherPlan& p_;
  const MatrixPlanesPlan& plan_;
  const int64_t taps_, row_length_;
  const Cut row_tiles_;   // of written channels
  const Cut line_tiles_;  // of a line's vectors
  const Cut blocks_;      // of all lines' tiles
  const BFloat16* read_;
  const BFloat16* weight_;
  const BFloat16* bias_;
  BFloat16* written_;
  BFloat16* rows_;
  BFloat16* copied_;
  char* workers_;
  int64_t worker_bytes_, bytes_;
  int64_t splits_ = 1;  // of the written channels, in tasks
};
