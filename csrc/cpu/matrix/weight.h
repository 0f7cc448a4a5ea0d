// grad_weight: for every kernel element and pair of channels, the products of y with x, summed over
// pairs of output pixels.
//
// y's channels are rows, x's are in vectors. x is packed once for all taps: plan.h says how pairs
// allow that. The summation is cut into chunks, chunks into plan.splits partial sums. A task owns
// some of x's and of y's channels in one partial sum; the partial sums are added in order
// afterwards. Every sum is taken in the same order whoever owns it, so the bits do not depend on
// threads.
//
// Included inside an instruction set's anonymous namespace; see matrix.inc.

class MatrixWeight {
 public:
  MatrixWeight(const MatrixWeightPlan& plan, int workers, const void* x, const void* y, void* w,
               void* workspace)
      : p_(plan),
        problem_(*plan.problem),
        taps_(problem_.kernel[0] * problem_.kernel[1]),
        largest_(largest_layout(plan, kShape)),
        pixels_(plan, x, y),
        w_(static_cast<BFloat16*>(w)),
        in_blocks_(blocks(plan.in_channels, workers)),
        out_blocks_(blocks(plan.out_channels, workers)),
        rows_(out_blocks_.total * kSquareLanes),
        columns_(in_blocks_.total * kSquareLanes) {
    Arena arena(workspace);
    sums_ = arena.take<float>(problem_.groups * plan.splits * taps_ * rows_ * columns_);
    worker_bytes_ = Scratch(nullptr, *this).bytes;
    workers_ = arena.take<char>(workers * worker_bytes_);
    bytes_ = arena.used();
  }

  size_t workspace_bytes() const { return size_t(bytes_); }

  void run(const TaskPool& pool) {
    pool.run(
        pool, problem_.groups * p_.splits * in_blocks_.parts * out_blocks_.parts,
        [](void* self, int64_t index, int worker) {
          static_cast<MatrixWeight*>(self)->task(index, worker);
        },
        this);
    pool.run(
        pool, problem_.groups * out_blocks_.total,
        [](void* self, int64_t index, int) { static_cast<MatrixWeight*>(self)->write(index); },
        this);
  }

 private:
  static constexpr bool kTiles = kShape.row_unit > 1;
  // Units of pairs that are multiplied with every tap before the next: the first-level cache holds
  // them.
  static constexpr int64_t kPartUnits = 12;
  static constexpr int64_t kPosition = PairedPixels::kPosition;
  using Line = PairedPixels::Line;

  // What one worker needs while it runs a task.
  struct Scratch {
    Scratch(char* base, const MatrixWeight& g) {
      const Parts parts(g.largest_);
      Arena arena(base);
      x = arena.take<BFloat16>(g.in_blocks_.largest() * g.largest_.positions * kPosition);
      y = arena.take<BFloat16>(g.out_blocks_.largest() * g.block_elements(g.largest_));
      lines = arena.take<Line>(g.largest_.lines);
      pieces = arena.take<Piece>(g.taps_ * g.largest_.lines * parts.units.parts);
      ends = arena.take<int64_t>(g.taps_ * parts.count());
      bytes = arena.used();
    }
    BFloat16* x;
    BFloat16* y;
    Line* lines;
    Piece* pieces;
    int64_t* ends;  // of each part's and tap's pieces
    int64_t bytes;
  };

  // A chunk's lines cut into parts: some lines, or some of the units of one.
  struct Parts {
    explicit Parts(const WeightLayout& layout)
        : lines(layout.lines, most(1, kPartUnits / layout.line_units)),
          units(layout.line_units, kPartUnits) {}
    int64_t count() const { return lines.parts * units.parts; }
    Cut lines, units;
  };

  // Channels in blocks of 16, cut into tasks: finer than they need be where that keeps workers
  // busy, though more tasks pack more.
  Cut blocks(int64_t channels, int workers) const {
    const int64_t others = most(1, problem_.groups * p_.splits);
    const int64_t total = (channels + kSquareLanes - 1) / kSquareLanes;
    int64_t largest = kTaskChannels / kSquareLanes;
    const int64_t wanted = workers == 1 ? 1 : 2 * workers;
    // Both kinds of channels are cut alike.
    for (int64_t parts = 1; largest > 2 && others * parts * parts < wanted; parts *= 2)
      largest = least(largest, most(2, (total + 2 * parts - 1) / (2 * parts)));
    return Cut(total, largest);
  }

  float* partial_sums(int64_t group, int64_t split, int64_t tap) const {
    return sums_ + ((group * p_.splits + split) * taps_ + tap) * rows_ * columns_;
  }

  void task(int64_t index, int worker) const {
    const Scratch scratch(workers_ + worker * worker_bytes_, *this);
    const int64_t out_task = index % out_blocks_.parts;
    index /= out_blocks_.parts;
    const int64_t in_task = index % in_blocks_.parts;
    index /= in_blocks_.parts;
    const int64_t split = index % p_.splits, group = index / p_.splits;
    const Range in = {in_blocks_.begin(in_task), in_blocks_.begin(in_task + 1)};
    const Range out = {out_blocks_.begin(out_task), out_blocks_.begin(out_task + 1)};
    for (int64_t tap = 0; tap < taps_; ++tap)
      clear_rows(partial_sums(group, split, tap) + (out.begin * columns_ + in.begin) * kSquareLanes,
                 columns_, (out.end - out.begin) * kSquareLanes,
                 (in.end - in.begin) * kSquareLanes);
    const Session session(kShape.row_unit);
    const int64_t chunks = pixels_.chunks();
    for (int64_t c = chunks * split / p_.splits; c < chunks * (split + 1) / p_.splits; ++c) {
      const WeightChunk chunk = pixels_.chunk_at(c);
      const WeightLayout layout = find_layout(p_, chunk, kShape);
      // Channels that do not lie densely are each in another page: few at a time.
      const int64_t y_blocks = problem_.y_strides[1] == 1 ? out.end - out.begin : 1;
      for (int64_t b = out.begin; b < out.end; b += y_blocks)
        pack_y(chunk, layout, group, {b, b + y_blocks},
               scratch.y + (b - out.begin) * block_elements(layout));
      const int64_t x_blocks = problem_.x_strides[1] == 1 ? in.end - in.begin : 1;
      for (int64_t b = in.begin; b < in.end; b += x_blocks)
        pack_x(layout, group, {b, b + x_blocks},
               scratch.x + (b - in.begin) * layout.positions * kPosition);
      list_pieces(chunk, layout, scratch);
      multiply(layout, group, split, in, out, scratch);
    }
  }

  // ---- y

  // Elements of 16 packed channels of y.
  static int64_t block_elements(const WeightLayout& layout) {
    return layout.units * 2 * layout.unit_pairs * kSquareLanes;
  }
  // From a channel to the next: a tile's rows are next to each other, vectors' rows are as long as
  // they can be.
  static int64_t row_distance(const WeightLayout& layout) {
    return 2 * layout.unit_pairs * (kTiles ? 1 : layout.units);
  }
  static int64_t unit_distance(const WeightLayout& layout) {
    return 2 * layout.unit_pairs * (kTiles ? kSquareLanes : 1);
  }

  void pack_y(const WeightChunk& chunk, const WeightLayout& layout, int64_t group, Range out,
              BFloat16* to) const {
    const int64_t block = block_elements(layout), channel = out.begin * kSquareLanes;
    const int64_t lanes = least(out.end * kSquareLanes, p_.out_channels) - channel;
    const int64_t pairs = chunk.places[p_.unit_axis].end - chunk.places[p_.unit_axis].begin;
    if (!pixels_.fills_lines(chunk, layout)) clear_products(to, (out.end - out.begin) * block);
    pixels_.for_y_runs(chunk, layout, [&](int64_t first, const int64_t (&place)[kWeightAxes]) {
      for (int64_t done = 0, count; done < pairs; done += count) {
        const int64_t unit = (first + done) / layout.unit_pairs;
        const int64_t pair = (first + done) % layout.unit_pairs;
        count = least(layout.unit_pairs - pair, pairs - done);
        pack_pair_rows(to + unit * unit_distance(layout) + 2 * pair, row_distance(layout), block,
                       pixels_.y_run(place, done, count, group, channel), problem_.y_strides[1],
                       lanes);
      }
    });
  }

  // ---- x

  void pack_x(const WeightLayout& layout, int64_t group, Range in, BFloat16* to) const {
    const int64_t channel = in.begin * kSquareLanes, block = layout.positions * kPosition;
    const int64_t lanes = least(in.end * kSquareLanes, p_.in_channels) - channel;
    pixels_.for_x_runs(layout, [&](int64_t position, const int64_t (&place)[kWeightAxes]) {
      pack_pair_vectors(to + position * kPosition, layout.distances[kColumn] * kPosition, block,
                        pixels_.x_run(place, 0, layout.reads[kColumn], group, channel),
                        problem_.x_strides[1], lanes);
    });
    const int64_t used = layout.positions - kSquareLanes;
    for (int64_t b = 0; b < in.end - in.begin; ++b)
      clear_products(to + b * block + used * kPosition, kSquareLanes * kPosition);
  }

  // ---- products

  // The pieces of every part and tap.
  void list_pieces(const WeightChunk& chunk, const WeightLayout& layout,
                   const Scratch& scratch) const {
    pixels_.list_lines(chunk, layout, scratch.lines);
    const Parts parts(layout);
    int64_t count = 0;
    for (int64_t part = 0; part < parts.count(); ++part) {
      const int64_t lines = part / parts.units.parts, units = part % parts.units.parts;
      for (int64_t tap = 0; tap < taps_; ++tap) {
        const int64_t first = count;
        for (int64_t l = parts.lines.begin(lines); l < parts.lines.begin(lines + 1); ++l) {
          const Range some = units_of(chunk, layout, scratch.lines[l], tap);
          const int64_t begin = most(some.begin, parts.units.begin(units));
          const int64_t end = least(some.end, parts.units.begin(units + 1));
          if (begin >= end) continue;
          const Piece piece = piece_of(layout, scratch.lines[l], l, tap, begin, end);
          if (count == first || !extend(layout, scratch.pieces[count - 1], piece))
            scratch.pieces[count++] = piece;
        }
        scratch.ends[part * taps_ + tap] = count;
      }
    }
  }

  // The units of a line that have pairs whose tap reads inside the image.
  Range units_of(const WeightChunk& chunk, const WeightLayout& layout, const Line& line,
                 int64_t tap) const {
    const auto clip = [&](const Range& valid, int a) {
      const Range& all = chunk.places[a];
      return Range{most(valid.begin, all.begin) - all.begin, least(valid.end, all.end) - all.begin};
    };
    const auto has = [](const Range& valid, int64_t place) {
      return valid.begin <= place && place < valid.end;
    };
    const Range& valid_rows =
        p_.rows[tap / problem_.kernel[1] * p_.axes[kPhase].count + line.phase];
    const Range& valid_columns = p_.columns[tap % problem_.kernel[1]];
    const Range none = {0, 0};
    if (p_.unit_axis != kRow && !p_.joined && !has(valid_rows, line.row)) return none;
    if (p_.unit_axis != kColumn && !has(valid_columns, line.column)) return none;
    Range pairs = {0, layout.line_units * layout.unit_pairs};
    if (p_.unit_axis == kRow) pairs = clip(valid_rows, kRow);
    if (p_.unit_axis == kColumn) pairs = clip(valid_columns, kColumn);
    if (pairs.begin >= pairs.end) return none;
    if (p_.joined) {
      const Range rows = clip(valid_rows, kRow);
      if (rows.begin >= rows.end) return none;
      pairs = {rows.begin * layout.line_pitch + pairs.begin,
               (rows.end - 1) * layout.line_pitch + pairs.end};
    }
    return {pairs.begin / layout.unit_pairs,
            (pairs.end + layout.unit_pairs - 1) / layout.unit_pairs};
  }

  // Steps of the summation in a unit.
  static int64_t unit_steps(const WeightLayout& layout) {
    return 2 * layout.unit_pairs / kShape.step;
  }

  Piece piece_of(const WeightLayout& layout, const Line& line, int64_t index, int64_t tap,
                 int64_t begin, int64_t end) const {
    const int64_t position = line.position + pixels_.tap_positions(layout, tap) +
                             begin * layout.unit_pairs * pixels_.pair_positions();
    return {(index * layout.line_units + begin) * unit_distance(layout), position,
            (end - begin) * unit_steps(layout)};
  }

  // Makes a piece longer by the one that follows it, if it does.
  bool extend(const WeightLayout& layout, Piece& piece, const Piece& next) const {
    const int64_t units = piece.steps / unit_steps(layout);
    if (piece.row + units * unit_distance(layout) != next.row ||
        piece.vector + units * layout.unit_pairs * pixels_.pair_positions() != next.vector)
      return false;
    piece.steps += next.steps;
    return true;
  }

  void multiply(const WeightLayout& layout, int64_t group, int64_t split, Range in, Range out,
                const Scratch& scratch) const {
    const int64_t block = layout.positions * kPosition, parts = Parts(layout).count();
    const OperandLayout operands = {kShape.row_unit,
                                    row_distance(layout),
                                    kTiles ? unit_distance(layout) : kShape.step,
                                    kPosition,
                                    pixels_.pair_positions() * kPosition,
                                    block};
    // Of vectors' rows only those that are channels.
    const int64_t channels = least(out.end * kSquareLanes, p_.out_channels);
    const int64_t rows = round_up(channels - out.begin * kSquareLanes, kShape.row_unit);
    const Cut row_tiles(rows / kShape.row_unit, kRowUnits);
    const Cut tiles(in.end - in.begin, kTileVectors);
    for (int64_t t = 0; t < row_tiles.parts; ++t) {
      const int64_t first = row_tiles.begin(t) * kShape.row_unit;
      const BFloat16* units[kRowUnits];
      for (int64_t r = 0; r < row_tiles.size(t); ++r) {
        const int64_t row = first + r * kShape.row_unit;
        units[r] = scratch.y + row / kSquareLanes * block_elements(layout) +
                   row % kSquareLanes * row_distance(layout);
      }
      for (int64_t b = 0; b < tiles.parts; ++b) {
        const MultiplyPairs<Sums> multiply_tile =
            pair_tile<Sums>(int(row_tiles.size(t)), int(tiles.size(b)));
        const BFloat16* vectors = scratch.x + tiles.begin(b) * block;
        const int64_t at = (out.begin * kSquareLanes + first) * columns_ +
                           (in.begin + tiles.begin(b)) * kSquareLanes;
        int64_t begin = 0;
        for (int64_t part = 0; part < parts; ++part)
          for (int64_t tap = 0; tap < taps_; ++tap) {
            const int64_t end = scratch.ends[part * taps_ + tap];
            if (begin < end)
              multiply_tile(units, operands, vectors, scratch.pieces + begin, int(end - begin),
                            {partial_sums(group, split, tap) + at, columns_, true});
            begin = end;
          }
      }
    }
  }

  // Adds up the partial sums of 16 of y's channels, and rounds them.
  void write(int64_t index) const {
    const int64_t group = index / out_blocks_.total;
    const int64_t first = index % out_blocks_.total * kSquareLanes;
    const int64_t step = problem_.w_strides[1];
    const bool taps_dense = taps_ > 1 && step != 1 && problem_.w_strides[3] == 1 &&
                            problem_.w_strides[2] == problem_.kernel[1];
    for (int64_t row = first; row < least(p_.out_channels, first + kSquareLanes); ++row) {
      BFloat16* to = w_ + (group * p_.out_channels + row) * problem_.w_strides[0];
      for (int64_t column = 0; column < p_.in_channels;
           column += kSquareLanes, to += kSquareLanes * step) {
        const int64_t at = row * columns_ + column;
        const int64_t lanes = least(kSquareLanes, p_.in_channels - column);
        if (taps_dense) {
          write_taps(to, group, at, lanes);
          continue;
        }
        for (int64_t tap = 0; tap < taps_; ++tap)
          round_vector(to + tap / problem_.kernel[1] * problem_.w_strides[2] +
                           tap % problem_.kernel[1] * problem_.w_strides[3],
                       step, total(group, tap, at), lanes);
      }
    }
  }

  // All taps of up to 16 channels of x, whose taps are next to each other: 16 at a time.
  void write_taps(BFloat16* to, int64_t group, int64_t at, int64_t lanes) const {
    for (int64_t tap = 0; tap < taps_; tap += kSquareLanes) {
      const int64_t count = least(kSquareLanes, taps_ - tap);
      Pairs square[kSquareLanes] = {};
      for (int64_t k = 0; k < count; ++k) square[k] = Pairs(total(group, tap + k, at));
      transpose(square);
      for (int64_t lane = 0; lane < lanes; ++lane)
        round_vector(to + lane * problem_.w_strides[1] + tap, 1, Vector<float>(square[lane]),
                     count);
    }
  }

  // 16 sums of a tap.
  Vector<float> total(int64_t group, int64_t tap, int64_t at) const {
    return add_up(partial_sums(group, 0, tap) + at, taps_ * rows_ * columns_, p_.splits);
  }

  const MatrixWeightPlan& p_;
  const dilconv_problem& problem_;
  const int64_t taps_;
  const WeightLayout largest_;
  const PairedPixels pixels_;
  BFloat16* w_;
  Cut in_blocks_, out_blocks_;    // of 16 channels, cut into tasks
  const int64_t rows_, columns_;  // of the sums
  float* sums_;
  char* workers_;
  int64_t worker_bytes_, bytes_;
};
