// conv2d and grad_input: an implicit product of packed weights with the pixels that each tap reads.
//
// Pixels are rows, written channels are in vectors. Every tap reads them in place, in the tensor or
// in a copy of some of its samples. A task owns a block of written pixels (of one region, across
// samples) and a range of written channels. Every written element is one chain of sums, cut at the
// same places whatever the task and the batch, so its bits depend on its sample alone.
//
// Included inside an instruction set's anonymous namespace; see matrix.inc.

class MatrixGather {
 public:
  MatrixGather(const MatrixGatherPlan& plan, int workers, const void* read, const void* weight,
               const void* bias, void* written, void* workspace)
      : p_(plan.products),
        plan_(plan),
        copy_(plan),
        weights_(plan, static_cast<const BFloat16*>(weight)),
        chunks_(p_.read_channels / kShape.step, plan.chunk_channels / kShape.step),
        read_(static_cast<const BFloat16*>(read)),
        bias_(static_cast<const BFloat16*>(bias)),
        written_(static_cast<BFloat16*>(written)) {
    Arena arena(workspace);
    weights_.packed = arena.take<BFloat16>(plan.products.groups * weights_.group_size());
    lines_ = arena.take<PixelLines>(p_.region_count);
    if (plan.copied) copied_ = arena.take<BFloat16>(p_.samples * p_.read_strides[0]);
    worker_bytes_ = Scratch(nullptr, *this).bytes;
    workers_ = arena.take<char>(workers * worker_bytes_);
    bytes_ = arena.used();
  }

  size_t workspace_bytes() const { return size_t(bytes_); }

  void run(const TaskPool& pool) {
    pool.run(
        pool, weights_.pack_tasks(),
        [](void* self, int64_t index, int) {
          static_cast<MatrixGather*>(self)->weights_.pack(index);
        },
        this);
    for (int64_t left = p_.batch, count; left > 0; left -= count) {
      count = least(left, p_.samples);
      run_samples(pool, count);
      read_ += count * plan_.tensors.read_strides[0];
      written_ += count * p_.written_strides[0];
    }
  }

 private:
  // Register tiles of written channels whose sums a task keeps between two chunks.
  static constexpr int64_t kKeptTiles = 8;
  static constexpr int64_t kTileUnits = kRowUnits * kWrittenTiles;  // written at a time
  static constexpr int64_t kTileWidth = kTileVectors * kSquareLanes;
  static constexpr int64_t kTileSums = (kTileUnits * kShape.row_unit) * kTileWidth;

  // What one worker needs while it runs a task.
  struct Scratch {
    Scratch(char* base, const MatrixGather& g) {
      const int64_t count = g.plan_.block_units;
      const bool kept = g.chunks_.parts > 1;
      const int64_t sets = kept ? Cut(count, kTileUnits).parts * kKeptTiles : 1;
      Arena arena(base);
      // Squares of sums are transposed, the last ones beyond them.
      sums = arena.take<float>(sets * kTileSums + kSquareProducts * kTileWidth);
      pieces = arena.take<Piece>(g.weights_.taps);
      read = arena.take<const BFloat16*>(count);
      written = arena.take<BFloat16*>(count);
      skip = arena.take<int64_t>(count);
      row = arena.take<BFloat16>(g.plan_.copied ? g.copy_.scratch() : 0);
      bytes = arena.used();
    }
    float* sums;
    Piece* pieces;
    // Of units of rows, which are pixels: what the first row reads with the first tap, where its
    // first channel is written, and how many rows the unit before has, too.
    const BFloat16** read;
    BFloat16** written;
    int64_t* skip;
    BFloat16* row;  // of the tensor, while it is copied
    int64_t bytes;
  };

  Scratch scratch(int worker) const { return Scratch(workers_ + worker * worker_bytes_, *this); }

  void run_samples(const TaskPool& pool, int64_t count) {
    if (plan_.copied)
      pool.run(
          pool, count * copy_.tasks(),
          [](void* self, int64_t index, int worker) {
            const MatrixGather& g = *static_cast<MatrixGather*>(self);
            g.copy_.run(g.read_, g.copied_, index, g.scratch(worker).row);
          },
          this);
    int64_t blocks = 0;
    for (int64_t r = 0; r < p_.region_count; ++r) {
      lines_[r] = find_lines(plan_, p_.regions[r], count, kShape);
      blocks += blocks_of(lines_[r]).parts;
    }
    splits_ = pool.workers == 1 ? 1
                                : least(p_.groups * weights_.tiles.parts,
                                        (4 * pool.workers + blocks - 1) / blocks);
    pool.run(
        pool, blocks * splits_,
        [](void* self, int64_t index, int worker) {
          static_cast<MatrixGather*>(self)->task(index, worker);
        },
        this);
  }

  Cut blocks_of(const PixelLines& lines) const { return Cut(lines.units, plan_.block_units); }

  void task(int64_t index, int worker) const {
    const int64_t split = index % splits_;
    int64_t block = index / splits_, r = 0;
    while (block >= blocks_of(lines_[r]).parts) block -= blocks_of(lines_[r++]).parts;
    const Scratch scratch = this->scratch(worker);
    const Cut cut = blocks_of(lines_[r]);
    place_units(p_.regions[r], lines_[r], cut.begin(block), cut.size(block), scratch);
    const Session session(lines_[r].rows);
    const int64_t tiles = p_.groups * weights_.tiles.parts;
    const int64_t last = tiles * (split + 1) / splits_;
    for (int64_t begin = tiles * split / splits_, end; begin < last; begin = end) {
      const int64_t group = begin / weights_.tiles.parts, first = group * weights_.tiles.parts;
      end = least(last, least(first + weights_.tiles.parts, begin + kKeptTiles));
      compute(p_.regions[r], lines_[r], cut.size(block), group, {begin - first, end - first},
              scratch);
    }
  }

  void place_units(const Region& region, const PixelLines& lines, int64_t first, int64_t count,
                   const Scratch& scratch) const {
    const BFloat16* read = plan_.copied ? copied_ : read_;
    if (region.h.tap_count * region.w.tap_count > 0)
      read += (region.h.taps->origin + plan_.before[0]) * p_.read_strides[2] +
              (region.w.taps->origin + plan_.before[1]) * p_.read_strides[3];
    BFloat16* written =
        written_ + region.h.begin * p_.written_strides[2] + region.w.begin * p_.written_strides[3];
    const PixelAxis(&axes)[3] = lines.axes;
    int64_t k = first % lines.line_units, line = first / lines.line_units;
    int64_t j = line % axes[1].count, i = line / axes[1].count;
    for (int64_t u = 0; u < count; ++u) {
      const int64_t begin = least(k * lines.rows, axes[2].count - lines.rows);
      scratch.read[u] = read + i * axes[0].read + j * axes[1].read + begin * axes[2].read;
      scratch.written[u] =
          written + i * axes[0].written + j * axes[1].written + begin * axes[2].written;
      scratch.skip[u] = k * lines.rows - begin;
      if (++k < lines.line_units) continue;
      k = 0;
      if (++j == axes[1].count) j = 0, ++i;
    }
  }

  // What the region's taps read of a chunk of channels; returns how many pieces it is.
  int list_pieces(const Region& region, int64_t group, int64_t chunk, Piece* pieces) const {
    const int64_t channel = chunks_.parts > 0 ? chunks_.begin(chunk) : 0;
    const int64_t steps = chunks_.parts > 0 ? chunks_.size(chunk) : 0;
    int count = 0;
    for (int64_t i = 0; i < region.h.tap_count; ++i)
      for (int64_t j = 0; j < region.w.tap_count; ++j) {
        const Tap& h = region.h.taps[i];
        const Tap& w = region.w.taps[j];
        const int64_t from = (h.origin - region.h.taps->origin) * p_.read_strides[2] +
                             (w.origin - region.w.taps->origin) * p_.read_strides[3] +
                             group * p_.read_channels + channel * kShape.step;
        const int64_t vector =
            (h.kernel * p_.kernel[1] + w.kernel) * p_.read_channels + channel * kShape.step;
        Piece* last = count > 0 ? &pieces[count - 1] : nullptr;
        const int64_t products = last ? last->steps * kShape.step : 0;
        if (last && last->row + products == from && last->vector + products == vector)
          last->steps += steps;
        else
          pieces[count++] = {from, vector, steps};
      }
    return count;
  }

  void compute(const Region& region, const PixelLines& lines, int64_t units, int64_t group,
               Range tiles, const Scratch& scratch) const {
    const Cut sets(units, kTileUnits);
    const int64_t chunks = most(1, chunks_.parts);
    for (int64_t c = 0; c < chunks; ++c) {
      const int count = list_pieces(region, group, c, scratch.pieces);
      for (int64_t b = tiles.begin; b < tiles.end; ++b)
        for (int64_t s = 0; s < sets.parts; ++s) {
          const int64_t kept = chunks > 1 ? (b - tiles.begin) * sets.parts + s : 0;
          const Sums sums = {scratch.sums + kept * kTileSums, weights_.tiles.size(b) * kSquareLanes,
                             c > 0};
          const Set set = {sets.begin(s), sets.size(s), group, b};
          if (c + 1 == chunks)
            finish(lines, set, count, sums, scratch);
          else
            multiply(lines, set, count, sums, scratch);
        }
    }
  }

  // Units of a block that are multiplied with a register tile of a group's written channels.
  struct Set {
    int64_t first, units;
    int64_t group, tile;
  };

  template <class To>
  void multiply(const PixelLines& lines, const Set& set, int count, const To& to,
                const Scratch& scratch) const {
    const int vectors = int(weights_.tiles.size(set.tile));
    const int64_t pitch = vectors * kSquareLanes;
    const OperandLayout layout = {lines.rows, lines.axes[2].read, kShape.step,
                                  pitch,      2 * pitch,          2 * kSquareLanes};
    const Cut tiles(set.units, kRowUnits);
    const BFloat16* weights = weights_.at(set.group, set.tile);
    for (int64_t t = 0, first = 0, next; t < tiles.parts; ++t, first = next) {
      next = tiles.begin(t + 1);
      if (p_.groups > 1 && p_.read_strides[3] >= 2 * kLine && count > 0 && t + 1 < tiles.parts)
        fetch({set.first + next, set.first + tiles.begin(t + 2)}, scratch.pieces[count - 1],
              scratch);
      pair_tile<To>(int(next - first), vectors)(scratch.read + set.first + first, layout, weights,
                                                scratch.pieces, count,
                                                to.after(first * lines.rows));
    }
  }

  static constexpr int64_t kLine = 64 / int64_t(sizeof(BFloat16));  // of the cache

  // What units of single rows read of a piece: a group's channels are a part of what lies there,
  // and, with some lines to a pixel, not what the hardware would fetch. GCC drops calls of what
  // does nothing but fetch, so it must be inlined.
  __attribute__((always_inline)) static void fetch(Range units, const Piece& piece,
                                                   const Scratch& scratch) {
    if (kShape.row_unit > 1) return;
    for (int64_t u = units.begin; u < units.end; ++u)
      for (int64_t at = 0; at < piece.steps * kShape.step; at += kLine)
        __builtin_prefetch(scratch.read[u] + piece.row + at);
  }

  // The last chunk's, which make the sums complete. Rows that are one pixel each are written as
  // they are multiplied, if their channels lie densely.
  void finish(const PixelLines& lines, const Set& set, int count, const Sums& sums,
              const Scratch& scratch) const {
    const int64_t channel = weights_.channels(set.tile);
    const int64_t channels = least(sums.pitch, p_.written_channels - channel);
    const int64_t at = set.group * p_.written_channels + channel;
    float bias[kTileWidth] = {};
    load_biases(bias, bias_ ? bias_ + at : nullptr, channels);
#if defined(DILCONV_SINGLE_ROWS)
    if (p_.written_strides[1] == 1) {
      const WrittenRows rows = {scratch.written + set.first, at, channels, bias, sums};
      return multiply(lines, set, count, rows, scratch);
    }
#endif
    multiply(lines, set, count, sums, scratch);
    write(lines, set, sums, at, channels, bias, scratch);
  }

  // Sums, rounded, become the result.
  void write(const PixelLines& lines, const Set& set, const Sums& sums, int64_t at,
             int64_t channels, const float* bias, const Scratch& scratch) const {
    const int64_t stride = p_.written_strides[1], step = lines.axes[2].written;
    BFloat16* const* written = scratch.written + set.first;
    const int64_t* skip = scratch.skip + set.first;
    for (int64_t u = 0, run; u < set.units; u += run) {
      // Units that follow each other are one run of pixels.
      for (run = 1; u + run < set.units && skip[u + run] == 0 &&
                    written[u + run] == written[u] + run * lines.rows * step;)
        ++run;
      const int64_t count = run * lines.rows - skip[u];
      const Sums from = sums.after(u * lines.rows + skip[u]);
      BFloat16* to = written[u] + skip[u] * step + at * stride;
      if (stride != 1) {
        transpose_sums(to, stride, step, from, bias, count, channels);
        continue;
      }
      for (int64_t q = 0; q < count; ++q)
        round_sums(to + q * step, from.after(q).first, bias, channels);
    }
  }

  // Squares of sums; the last ones overlap those before, if there are any.
  static void transpose_sums(BFloat16* to, int64_t stride, int64_t step, const Sums& sums,
                             const float* bias, int64_t count, int64_t channels) {
    for (int64_t q = 0; q < count; q += kSquareProducts) {
      const int64_t at = least(q, most(0, count - kSquareProducts));
      for (int64_t c = 0; c < channels; c += kSquareLanes)
        turn_sums(to + c * stride + at * step, stride, step, sums.first + at * sums.pitch + c,
                  sums.pitch, bias + c, least(kSquareLanes, channels - c),
                  least(kSquareProducts, count - at));
    }
  }

  const GatherPlan& p_;
  const MatrixGatherPlan& plan_;
  PixelCopy copy_;
  PackedWeights weights_;
  Cut chunks_;  // of the summation, in steps of each tap
  const BFloat16* read_;
  const BFloat16* bias_;
  BFloat16* written_;
  BFloat16* copied_ = nullptr;
  PixelLines* lines_;  // of each region
  char* workers_;
  int64_t worker_bytes_, bytes_, splits_ = 1;
};
