// grad_weight: for every kernel element and pair of channels, the products of x with y, summed over
// output pixels.
//
// x, shifted by each tap, is one operand, y the other; x is the rows' where its pixels are dense,
// the vectors' where its channels are. Summations are cut into chunks, chunks into plan.splits
// partial sums. A task owns some taps and input channels, and some output channels, of one partial
// sum; the partial sums are added in order afterwards. All of it is fixed by the problem, so the
// bits do not depend on threads.
//
// Included inside an instruction set's anonymous namespace; see matrix.inc.

class MatrixWeight {
 public:
  MatrixWeight(const MatrixWeightPlan& plan, int workers, const void* x, const void* y, void* w,
               void* workspace)
      : p_(plan),
        problem_(*plan.problem),
        taps_(problem_.kernel[0] * problem_.kernel[1]),
        x_unit_(plan.x_in_rows ? kShape.row_unit : kLanes<float>),
        y_unit_(plan.x_in_rows ? kLanes<float> : kShape.row_unit),
        x_(static_cast<const BFloat16*>(x)),
        y_(static_cast<const BFloat16*>(y)),
        w_(static_cast<BFloat16*>(w)),
        x_blocks_((plan.in_channels + x_unit_ - 1) / x_unit_, kXChannels / x_unit_),
        y_tasks_((plan.out_channels + y_unit_ - 1) / y_unit_, plan.task_channels / y_unit_),
        x_tasks_(choose_x_tasks(workers)) {
    const int64_t in = x_blocks_.total * x_unit_, out = y_tasks_.total * y_unit_;
    rows_ = plan.x_in_rows ? in : out;
    columns_ = plan.x_in_rows ? out : in;
    Arena arena(workspace);
    sums_ = arena.take<float>(problem_.groups * plan.splits * taps_ * rows_ * columns_);
    worker_bytes_ = Scratch(nullptr, plan.task_channels).bytes;
    workers_ = workspace ? static_cast<char*>(workspace) + arena.used() : nullptr;
    bytes_ = arena.used() + workers * worker_bytes_;
  }

  size_t workspace_bytes() const { return size_t(bytes_); }

  void run(const TaskPool& pool) {
    pool.run(
        pool, problem_.groups * p_.splits * x_tasks_.parts * y_tasks_.parts,
        [](void* self, int64_t index, int worker) {
          static_cast<MatrixWeight*>(self)->task(index, worker);
        },
        this);
    pool.run(
        pool, problem_.groups * Cut(rows_, kWriteRows).parts,
        [](void* self, int64_t index, int) { static_cast<MatrixWeight*>(self)->write(index); },
        this);
  }

 private:
  static constexpr int64_t kXChannels = kTileVectors * kLanes<float>;   // of x, packed at a time
  static constexpr int64_t kProducts = kShape.depth + kSquareProducts;  // per packed channel
  static constexpr int64_t kMostRows = kShape.depth / 2;                // of pixels, in a chunk
  static constexpr int64_t kWriteRows = 16;

  // What one worker needs while it runs a task.
  struct Scratch {
    Scratch(char* base, int64_t task_channels) {
      Arena arena(base);
      x = arena.take<BFloat16>(kXChannels * kProducts);
      y = arena.take<BFloat16>(task_channels * kProducts);
      bytes = arena.used();
    }
    BFloat16* x;
    BFloat16* y;
    int64_t bytes;
  };

  // As few as keep the workers busy, for each packs y anew.
  Cut choose_x_tasks(int workers) const {
    const int64_t items = taps_ * x_blocks_.parts;
    const int64_t others = most(1, problem_.groups * p_.splits * y_tasks_.parts);
    const int64_t wanted = workers == 1 ? 1 : (2 * workers + others - 1) / others;
    const int64_t tasks = least(p_.x_tasks, wanted);
    return Cut(items, (items + tasks - 1) / tasks);
  }

  // Output rows, counted through the batch, by columns.
  struct Chunk {
    Range rows, columns;
  };

  // A row of a chunk as a tap reads it: `count` pixels that lie inside the image.
  struct TapRow {
    int64_t n, i, j;  // of y's first pixel
    int64_t count;
    int64_t k;  // its product among those packed of x
  };

  // What a tap reads from a chunk.
  struct TapChunk {
    TapRow rows[kMostRows];
    int row_count = 0;
    Piece pieces[kMostRows];
    int piece_count = 0;
    int64_t products = 0;
    bool zeros;  // some of the products are with padding
  };

  Chunk chunk_at(int64_t index) const {
    const int64_t row = index / p_.column_chunks * p_.chunk_rows;
    const int64_t column = index % p_.column_chunks * p_.chunk_columns;
    return {{row, least(row + p_.chunk_rows, problem_.batch * problem_.out_size[0])},
            {column, least(column + p_.chunk_columns, problem_.out_size[1])}};
  }

  float* partial_sums(int64_t group, int64_t split, int64_t tap) const {
    return sums_ + ((group * p_.splits + split) * taps_ + tap) * rows_ * columns_;
  }

  void task(int64_t index, int worker) const {
    const Scratch scratch(workers_ + worker * worker_bytes_, p_.task_channels);
    const int64_t y_task = index % y_tasks_.parts;
    index /= y_tasks_.parts;
    const int64_t x_task = index % x_tasks_.parts;
    index /= x_tasks_.parts;
    const int64_t split = index % p_.splits, group = index / p_.splits;
    const Range y = {y_tasks_.begin(y_task), y_tasks_.begin(y_task + 1)};
    const Range items = {x_tasks_.begin(x_task), x_tasks_.begin(x_task + 1)};
    for (int64_t item = items.begin; item < items.end; ++item) clear_sums(group, split, item, y);

    const Session session(kShape.row_unit);
    const int64_t chunks = p_.row_chunks * p_.column_chunks;
    for (int64_t c = chunks * split / p_.splits; c < chunks * (split + 1) / p_.splits; ++c) {
      const Chunk chunk = chunk_at(c);
      pack_y(chunk, group, y, scratch.y);
      TapChunk taps;
      for (int64_t item = items.begin; item < items.end; ++item) {
        list_pieces(chunk, item % taps_, taps);
        if (taps.piece_count == 0) continue;
        pack_x(taps, item % taps_, group, item / taps_, scratch.x);
        multiply(taps, group, split, item, y, scratch);
      }
    }
  }

  // The sums of an item (a block of x's channels and a tap) with units `y`: the first one.
  float* item_sums(int64_t group, int64_t split, int64_t item, Range y) const {
    const int64_t x = x_blocks_.begin(item / taps_) * x_unit_, at = y.begin * y_unit_;
    return partial_sums(group, split, item % taps_) +
           (p_.x_in_rows ? x * columns_ + at : at * columns_ + x);
  }

  void clear_sums(int64_t group, int64_t split, int64_t item, Range y) const {
    const int64_t x = x_blocks_.size(item / taps_) * x_unit_;
    const int64_t out = (y.end - y.begin) * y_unit_;
    clear_rows(item_sums(group, split, item, y), columns_, p_.x_in_rows ? x : out,
               p_.x_in_rows ? out : x);
  }

  // Row by row if that leaves out much padding at the sides, else in one piece.
  void list_pieces(const Chunk& chunk, int64_t tap, TapChunk& taps) const {
    constexpr int64_t kPieceOverhead = 8;
    const int64_t height = problem_.out_size[0];
    const Range& valid_h = p_.valid_h[tap / problem_.kernel[1]];
    const Range& valid_w = p_.valid_w[tap % problem_.kernel[1]];
    const Range w = {most(valid_w.begin, chunk.columns.begin),
                     least(valid_w.end, chunk.columns.end)};
    taps.row_count = taps.piece_count = 0;
    int64_t places[kMostRows];  // of rows among the chunk's products
    for (int64_t row = chunk.rows.begin; row < chunk.rows.end && w.begin < w.end; ++row) {
      const int64_t n = row / height, i = row % height;
      if (i < valid_h.begin || i >= valid_h.end) continue;
      places[taps.row_count] = (row - chunk.rows.begin) * p_.pitch;
      taps.rows[taps.row_count++] = {n, i, w.begin, w.end - w.begin, 0};
    }
    if (taps.row_count == 0) return;
    const int64_t first = (w.begin - chunk.columns.begin) / 2 * 2;
    const int64_t used = round_up(w.end - chunk.columns.begin - first, kShape.step);
    const int64_t all = round_up(places[taps.row_count - 1] - places[0] + p_.pitch, kShape.step);
    const bool by_rows = taps.row_count * (used + kPieceOverhead) < all;
    for (int r = 0; r < taps.row_count; ++r) {
      const int64_t begin = by_rows ? r * used - first : places[r] - places[0];
      taps.rows[r].k = begin + w.begin - chunk.columns.begin;
      if (by_rows) add_piece(taps, r * used, places[r] + first, used);
    }
    if (!by_rows) add_piece(taps, 0, places[0], all);
    taps.products = by_rows ? taps.row_count * used : all;
    taps.zeros = taps.row_count * (w.end - w.begin) < taps.products;
  }

  void add_piece(TapChunk& taps, int64_t x, int64_t y, int64_t products) const {
    taps.pieces[taps.piece_count++] = {p_.x_in_rows ? x : y, p_.x_in_rows ? y : x,
                                       products / kShape.step};
  }

  void pack_x(const TapChunk& taps, int64_t tap, int64_t group, int64_t block, BFloat16* to) const {
    const int64_t width = x_blocks_.size(block) * x_unit_;
    const int64_t channel = x_blocks_.begin(block) * x_unit_;
    const int64_t lanes = least(width, p_.in_channels - channel);
    if (p_.x_in_rows && (taps.zeros || lanes < width))
      for (int64_t lane = 0; lane < width; ++lane)
        clear_products(to + lane * kProducts, taps.products);
    else if (taps.zeros)
      clear_products(to, taps.products * width);
    const int64_t step = problem_.stride[1] * problem_.x_strides[3];
    for (int r = 0; r < taps.row_count; ++r) {
      const TapRow& row = taps.rows[r];
      SquareSource source = {
          x_at(tap, group, channel, row), problem_.x_strides[1], step, lanes, 0, row.count};
      if (p_.x_in_rows) {
        pack_rows(to + row.k, kProducts, source, round_up(row.count, 2));
        continue;
      }
      // A pair may begin in the padding.
      source.first = row.k % 2;
      source.from -= source.first * step;
      source.products += source.first;
      pack_vectors(to + (row.k - source.first) * width, width, source,
                   round_up(source.products, 2));
    }
  }

  const BFloat16* x_at(int64_t tap, int64_t group, int64_t channel, const TapRow& row) const {
    const int64_t h = row.i * problem_.stride[0] + tap / problem_.kernel[1] * problem_.dilation[0] -
                      problem_.pad_before[0];
    const int64_t w = row.j * problem_.stride[1] + tap % problem_.kernel[1] * problem_.dilation[1] -
                      problem_.pad_before[1];
    return x_ + row.n * problem_.x_strides[0] +
           (group * p_.in_channels + channel) * problem_.x_strides[1] + h * problem_.x_strides[2] +
           w * problem_.x_strides[3];
  }

  // Vectors: one panel per register tile of units `y`.
  void pack_y(const Chunk& chunk, int64_t group, Range y, BFloat16* to) const {
    const Cut tiles(y.end - y.begin, p_.x_in_rows ? kTileVectors : y.end - y.begin);
    for (int64_t t = 0; t < tiles.parts; ++t) {
      const int64_t channel = (y.begin + tiles.begin(t)) * y_unit_;
      const int64_t width = tiles.size(t) * y_unit_;
      pack_y_tile(chunk, group, channel, width, to + tiles.begin(t) * y_unit_ * kProducts);
    }
  }

  void pack_y_tile(const Chunk& chunk, int64_t group, int64_t channel, int64_t width,
                   BFloat16* to) const {
    const int64_t columns = chunk.columns.end - chunk.columns.begin, height = problem_.out_size[0];
    const int64_t lanes = least(width, p_.out_channels - channel);
    // Dense planes are one long row within a sample.
    const bool dense =
        problem_.y_strides[2] == columns * problem_.y_strides[3] && columns == p_.pitch;
    int64_t k = 0;
    for (int64_t row = chunk.rows.begin, rows; row < chunk.rows.end; row += rows) {
      rows = dense ? least(chunk.rows.end, (row / height + 1) * height) - row : 1;
      const BFloat16* from = y_ + row / height * problem_.y_strides[0] +
                             (group * p_.out_channels + channel) * problem_.y_strides[1] +
                             row % height * problem_.y_strides[2] +
                             chunk.columns.begin * problem_.y_strides[3];
      pack_y_products(
          to, width, k, rows * p_.pitch,
          {from, problem_.y_strides[1], problem_.y_strides[3], lanes, 0, rows * columns});
      k += rows * p_.pitch;
    }
    // The last step of a piece of x may reach beyond.
    if constexpr (kShape.step > 2)
      pack_y_products(to, width, k, kShape.step, {to, 0, 0, lanes, 0, 0});
  }

  void pack_y_products(BFloat16* to, int64_t width, int64_t k, int64_t rounded,
                       const SquareSource& source) const {
    if (p_.x_in_rows) return pack_vectors(to + k * width, width, source, rounded);
    pack_rows(to + k, kProducts, source, rounded);
    for (int64_t lane = source.lanes; lane < width; ++lane)
      clear_products(to + lane * kProducts + k, rounded);
  }

  void multiply(const TapChunk& taps, int64_t group, int64_t split, int64_t item, Range y,
                const Scratch& scratch) const {
    const int64_t x = x_blocks_.size(item / taps_);
    float* sums = item_sums(group, split, item, y);
    const BFloat16* first_row = p_.x_in_rows ? scratch.x : scratch.y;
    const Cut row_tiles(p_.x_in_rows ? x : y.end - y.begin, kRowUnits);
    const Cut tiles(p_.x_in_rows ? y.end - y.begin : x, kTileVectors);
    for (int64_t b = 0; b < tiles.parts; ++b)
      for (int64_t t = 0; t < row_tiles.parts; ++t) {
        const int64_t begin = row_tiles.begin(t) * kShape.row_unit;
        const int64_t column = tiles.begin(b) * kLanes<float>;
        const BFloat16* units[kRowUnits];
        for (int64_t r = 0; r < row_tiles.size(t); ++r)
          units[r] = first_row + (begin + r * kShape.row_unit) * kProducts;
        pair_tile(int(row_tiles.size(t)), int(tiles.size(b)))(
            units, {kShape.row_unit, kProducts},
            (p_.x_in_rows ? scratch.y : scratch.x) + column * kProducts, taps.pieces,
            taps.piece_count, sums + begin * columns_ + column, columns_, true);
      }
  }

  // Adds up the partial sums of some rows, and rounds them.
  void write(int64_t index) const {
    const Cut blocks(rows_, kWriteRows);
    const int64_t group = index / blocks.parts, block = index % blocks.parts;
    const int64_t rows = p_.x_in_rows ? p_.in_channels : p_.out_channels;
    const int64_t columns = p_.x_in_rows ? p_.out_channels : p_.in_channels;
    const int64_t row_stride = problem_.w_strides[p_.x_in_rows ? 1 : 0];
    const int64_t column_stride = problem_.w_strides[p_.x_in_rows ? 0 : 1];
    for (int64_t column = 0; column < columns; column += kLanes<float>)
      for (int64_t tap = 0; tap < taps_; ++tap)
        for (int64_t row = blocks.begin(block); row < least(rows, blocks.begin(block + 1)); ++row) {
          const int64_t at = row * columns_ + column;
          Vector<float> total = load(partial_sums(group, 0, tap) + at);
          for (int64_t split = 1; split < p_.splits; ++split)
            total += load(partial_sums(group, split, tap) + at);
          round_vector(w_ + group * p_.out_channels * problem_.w_strides[0] + row * row_stride +
                           column * column_stride +
                           tap / problem_.kernel[1] * problem_.w_strides[2] +
                           tap % problem_.kernel[1] * problem_.w_strides[3],
                       column_stride, total, least(kLanes<float>, columns - column));
        }
  }

  const MatrixWeightPlan& p_;
  const dilconv_problem& problem_;
  int64_t taps_;
  int64_t x_unit_, y_unit_;  // channels of x and of y come in multiples of these
  const BFloat16* x_;
  const BFloat16* y_;
  BFloat16* w_;
  Cut x_blocks_;            // units of x's channels, cut into what is packed at a time
  Cut y_tasks_, x_tasks_;   // units of y, blocks of x times taps
  int64_t rows_, columns_;  // of the sums of a tap
  float* sums_;
  char* workers_;
  int64_t worker_bytes_, bytes_;
};

inline size_t matrix_weight_workspace(const MatrixWeightPlan& plan, int workers) {
  return MatrixWeight(plan, workers, nullptr, nullptr, nullptr, nullptr).workspace_bytes();
}

inline void run_matrix_weight(const MatrixWeightPlan& plan, const void* x, const void* y, void* w,
                              void* workspace, const TaskPool& pool) {
  MatrixWeight(plan, pool.workers, x, y, w, workspace).run(pool);
}
