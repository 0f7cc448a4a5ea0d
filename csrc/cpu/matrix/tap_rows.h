// grad_weight where y's channels fill vectors better than x's, which are few mostly: they would
// leave much of weight.h's vectors empty. So y's are in vectors here, and the rows of a register
// tile are x's channels as any taps read them, from one packed line of pairs per channel. What is
// outside the image is zero.
//
// The summation is cut into chunks and partial sums as in weight.h; a task owns some of y's
// channels in one partial sum.
//
// Included inside an instruction set's anonymous namespace; see matrix.inc.

class TapRowsWeight {
 public:
  TapRowsWeight(const MatrixWeightPlan& plan, int workers, const void* x, const void* y, void* w,
                void* workspace)
      : p_(plan),
        problem_(*plan.problem),
        rows_(problem_.kernel[0] * problem_.kernel[1] * plan.in_channels),
        largest_(largest_layout(plan, kShape)),
        pixels_(plan, x, y),
        w_(static_cast<BFloat16*>(w)),
        blocks_(blocks(plan, workers)) {
    Arena arena(workspace);
    sums_ = arena.take<float>(problem_.groups * plan.splits * rows_ * columns());
    worker_bytes_ = Scratch(nullptr, *this).bytes;
    workers_ = arena.take<char>(workers * worker_bytes_);
    bytes_ = arena.used();
  }

  size_t workspace_bytes() const { return size_t(bytes_); }

  void run(const TaskPool& pool) {
    pool.run(
        pool, problem_.groups * p_.splits * blocks_.parts,
        [](void* self, int64_t index, int worker) {
          static_cast<TapRowsWeight*>(self)->task(index, worker);
        },
        this);
    pool.run(
        pool, problem_.groups * blocks_.total,
        [](void* self, int64_t index, int) { static_cast<TapRowsWeight*>(self)->write(index); },
        this);
  }

 private:
  // Pairs that are multiplied with every row before the next: the first-level cache holds them.
  static constexpr int64_t kPartPairs = 160;
  static constexpr int64_t kPosition = PairedPixels::kPosition;

  // What one worker needs while it runs a task.
  struct Scratch {
    Scratch(char* base, const TapRowsWeight& g) {
      const int64_t parts = g.pairs(g.largest_) / kPartPairs + 1;
      Arena arena(base);
      x = arena.take<BFloat16>(g.p_.in_channels * 2 * g.largest_.positions);
      y = arena.take<BFloat16>(g.blocks_.largest() * g.pairs(g.largest_) * kPosition);
      lines = arena.take<PairedPixels::Line>(g.largest_.lines);
      pieces = arena.take<Piece>(g.largest_.lines + parts);
      ends = arena.take<int64_t>(parts);
      rows = arena.take<const BFloat16*>(g.rows_);
      bytes = arena.used();
    }
    BFloat16* x;
    BFloat16* y;
    PairedPixels::Line* lines;
    Piece* pieces;
    int64_t* ends;          // of each part's pieces
    const BFloat16** rows;  // what each of them reads first
    int64_t bytes;
  };

  // y's channels in blocks of 16, cut into tasks: finer than they need be where that keeps workers
  // busy.
  static Cut blocks(const MatrixWeightPlan& plan, int workers) {
    const int64_t total = (plan.out_channels + kSquareLanes - 1) / kSquareLanes;
    const int64_t others = plan.problem->groups * plan.splits;
    const int64_t wanted = workers == 1 ? 1 : 2 * workers;
    int64_t largest = kTaskChannels / kSquareLanes;
    while (largest > 1 && others * Cut(total, largest).parts < wanted) largest = (largest + 1) / 2;
    return Cut(total, largest);
  }

  int64_t columns() const { return blocks_.total * kSquareLanes; }
  static int64_t pairs(const WeightLayout& layout) { return layout.units * layout.unit_pairs; }

  float* partial_sums(int64_t group, int64_t split) const {
    return sums_ + (group * p_.splits + split) * rows_ * columns();
  }

  void task(int64_t index, int worker) const {
    const Scratch scratch(workers_ + worker * worker_bytes_, *this);
    const int64_t part = index % blocks_.parts;
    index /= blocks_.parts;
    const int64_t split = index % p_.splits, group = index / p_.splits;
    const Range blocks = {blocks_.begin(part), blocks_.begin(part + 1)};
    clear_rows(partial_sums(group, split) + blocks.begin * kSquareLanes, columns(), rows_,
               (blocks.end - blocks.begin) * kSquareLanes);
    const Session session(kShape.row_unit);
    const int64_t chunks = pixels_.chunks();
    for (int64_t c = chunks * split / p_.splits; c < chunks * (split + 1) / p_.splits; ++c) {
      const WeightChunk chunk = pixels_.chunk_at(c);
      const WeightLayout layout = find_layout(p_, chunk, kShape);
      pack_y(chunk, layout, group, blocks, scratch.y);
      pack_x(layout, group, scratch.x);
      pixels_.list_lines(chunk, layout, scratch.lines);
      for (int64_t row = 0; row < rows_; ++row)
        scratch.rows[row] = scratch.x + row % p_.in_channels * 2 * layout.positions +
                            2 * pixels_.tap_positions(layout, row / p_.in_channels);
      multiply(layout, list_pieces(layout, scratch), group, split, blocks, scratch);
    }
  }

  void pack_y(const WeightChunk& chunk, const WeightLayout& layout, int64_t group, Range blocks,
              BFloat16* to) const {
    const int64_t block = pairs(layout) * kPosition, channel = blocks.begin * kSquareLanes;
    const int64_t lanes = least(blocks.end * kSquareLanes, p_.out_channels) - channel;
    const int64_t count = chunk.places[p_.unit_axis].end - chunk.places[p_.unit_axis].begin;
    if (!pixels_.fills_lines(chunk, layout))
      clear_products(to, (blocks.end - blocks.begin) * block);
    // Channels that do not lie densely are each in another page: few at a time.
    const int64_t at_once = problem_.y_strides[1] == 1 ? lanes : kSquareLanes;
    for (int64_t lane = 0; lane < lanes; lane += at_once)
      pixels_.for_y_runs(chunk, layout, [&](int64_t first, const int64_t (&place)[kWeightAxes]) {
        pack_pair_vectors(to + lane / kSquareLanes * block + first * kPosition, kPosition, block,
                          pixels_.y_run(place, 0, count, group, channel + lane),
                          problem_.y_strides[1], least(at_once, lanes - lane));
      });
  }

  void pack_x(const WeightLayout& layout, int64_t group, BFloat16* to) const {
    const int64_t line = 2 * layout.positions, used = layout.positions - kSquareLanes;
    for (int64_t c = 0; c < p_.in_channels; ++c)
      clear_products(to + c * line + 2 * used, 2 * kSquareLanes);
    const int64_t at_once = problem_.x_strides[1] == 1 ? p_.in_channels : kSquareLanes;
    for (int64_t c = 0; c < p_.in_channels; c += at_once)
      pixels_.for_x_runs(layout, [&](int64_t position, const int64_t (&place)[kWeightAxes]) {
        for (int64_t done = 0; done < layout.reads[kColumn]; done += kSquareLanes)
          pack_pair_rows(to + c * line + 2 * (position + done), line, kSquareLanes * line,
                         pixels_.x_run(place, done,
                                       least(kSquareLanes, layout.reads[kColumn] - done), group, c),
                         problem_.x_strides[1], least(at_once, p_.in_channels - c));
      });
  }

  // The pieces of every part; returns how many parts there are.
  int64_t list_pieces(const WeightLayout& layout, const Scratch& scratch) const {
    const int64_t line_pairs = layout.line_units * layout.unit_pairs;
    int64_t pieces = 0, parts = 0, left = kPartPairs;
    for (int64_t l = 0; l < layout.lines; ++l)
      for (int64_t begin = 0, count; begin < line_pairs; begin += count) {
        count = least(line_pairs - begin, left);
        scratch.pieces[pieces++] = {
            2 * (scratch.lines[l].position + begin * pixels_.pair_positions()),
            l * line_pairs + begin, count};
        left -= count;
        if (left > 0) continue;
        scratch.ends[parts++] = pieces;
        left = kPartPairs;
      }
    if (left < kPartPairs) scratch.ends[parts++] = pieces;
    return parts;
  }

  void multiply(const WeightLayout& layout, int64_t parts, int64_t group, int64_t split,
                Range blocks, const Scratch& scratch) const {
    const int64_t block = pairs(layout) * kPosition;
    const OperandLayout operands = {1,         0,         2 * pixels_.pair_positions(),
                                    kPosition, kPosition, block};
    const Cut tiles(blocks.end - blocks.begin, kTileVectors), row_tiles(rows_, kRowUnits);
    for (int64_t b = 0; b < tiles.parts; ++b) {
      const Sums sums = {
          partial_sums(group, split) + (blocks.begin + tiles.begin(b)) * kSquareLanes, columns(),
          true};
      for (int64_t part = 0; part < parts; ++part) {
        const int64_t first = part > 0 ? scratch.ends[part - 1] : 0;
        for (int64_t t = 0, row = 0, next; t < row_tiles.parts; ++t, row = next) {
          next = row_tiles.begin(t + 1);
          pair_tile<Sums>(int(next - row), int(tiles.size(b)))(
              scratch.rows + row, operands, scratch.y + tiles.begin(b) * block,
              scratch.pieces + first, int(scratch.ends[part] - first), sums.after(row));
        }
      }
    }
  }

  // Adds up the partial sums of 16 of y's channels, and rounds them.
  void write(int64_t index) const {
    const int64_t group = index / blocks_.total, block = index % blocks_.total;
    const int64_t channel = block * kSquareLanes;
    const int64_t (&strides)[4] = problem_.w_strides;
    for (int64_t row = 0; row < rows_; ++row) {
      const int64_t at = row * columns() + channel, tap = row / p_.in_channels;
      const Vector<float> total = add_up(partial_sums(group, 0) + at, rows_ * columns(), p_.splits);
      round_vector(w_ + (group * p_.out_channels + channel) * strides[0] +
                       row % p_.in_channels * strides[1] + tap / problem_.kernel[1] * strides[2] +
                       tap % problem_.kernel[1] * strides[3],
                   strides[0], total, least(kSquareLanes, p_.out_channels - channel));
    }
  }

  const MatrixWeightPlan& p_;
  const dilconv_problem& problem_;
  const int64_t rows_;  // of the sums: taps, and x's channels within them
  const WeightLayout largest_;
  const PairedPixels pixels_;
  BFloat16* w_;
  Cut blocks_;  // of 16 of y's channels, cut into tasks
  float* sums_;
  char* workers_;
  int64_t worker_bytes_, bytes_;
};
