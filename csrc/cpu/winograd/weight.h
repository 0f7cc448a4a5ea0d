// grad_weight in Winograd's domain: for each plane one matrix product, of the tiles of x with those
// of y, summed over all tiles, then transformed into the gradient of the kernel.
//
// A task owns some input and some output channels, and adds up all tiles in the same order whatever
// the task.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

template <class S, class T, class Form>
class WinogradWeight {
 public:
  WinogradWeight(const WinogradPlan& plan, int workers, const void* x, const void* y, void* w,
                 void* workspace)
      : p_(plan),
        x_(static_cast<const S*>(x)),
        y_(static_cast<const S*>(y)),
        w_(static_cast<S*>(w)),
        grid_(plan),
        chunk_blocks_(most(1, plan.chunk_tiles / most(1, grid_.largest_block()))),
        chunks_((grid_.blocks() + chunk_blocks_ - 1) / chunk_blocks_),
        tiles_(grid_.largest_block() * chunk_blocks_),
        panels_{tiles_},
        in_vectors_((plan.read_channels + kLanes<T> - 1) / kLanes<T>),
        out_vectors_((plan.written_channels + kLanes<T> - 1) / kLanes<T>),
        in_tasks_(in_vectors_, in_vectors_),
        out_tasks_(out_vectors_, out_vectors_) {
    cut_tasks(workers);
    in_width_ = in_tasks_.largest() * kLanes<T>;
    rows_ = plan.pieces * in_width_;
    x_pitch_ = odd_lines<T>(rows_);
    x_plane_ = odd_lines<T>(tiles_ * x_pitch_);
    out_width_ = out_tasks_.largest() * kLanes<T>;
    sums_ = Form::planes * rows_ * out_width_;
    worker_bytes_ = Scratch(nullptr, *this).bytes;
    workers_ = static_cast<char*>(workspace);
    bytes_ = workers * worker_bytes_;
  }

  size_t workspace_bytes() const { return size_t(bytes_); }

  void run(const TaskPool& pool) {
    pool.run(
        pool, p_.groups * in_tasks_.parts * out_tasks_.parts,
        [](void* self, int64_t index, int worker) {
          static_cast<WinogradWeight*>(self)->task(index, worker);
        },
        this);
  }

 private:
  struct Scratch {
    Scratch(char* base, const WinogradWeight& gradient) {
      Arena arena(base);
      strip = arena.take<T>(Form::H::products * gradient.grid_.longest_row() * kLanes<T>);
      x = arena.take<T>(Form::planes * gradient.x_plane_);
      y = arena.take<T>(gradient.panels_.elements(gradient.out_width_ / kLanes<T>));
      sums = arena.take<T>(gradient.sums_);
      totals = gradient.chunks_ > kWinogradChunks ? arena.take<T>(gradient.sums_) : sums;
      bytes = arena.used();
    }
    T* strip;
    T* x;
    T* y;
    T* sums;
    T* totals;  // the same as sums where these need not be cut
    int64_t bytes;
  };

  // Halves the longer side until the sums are small enough, and every worker has a task.
  void cut_tasks(int workers) {
    int64_t in = in_vectors_, out = out_vectors_;
    const auto too_large = [&] {
      const int64_t bytes =
          Form::planes * p_.pieces * in * out * kLanes<T> * kLanes<T> * int64_t(sizeof(T));
      return bytes > kWinogradSumBytes || bytes * workers > p_.sums_bytes;
    };
    const auto too_few = [&] {
      return p_.groups * Cut(in_vectors_, in).parts * Cut(out_vectors_, out).parts < workers;
    };
    while ((too_large() || too_few()) && (in > 1 || out > 1)) {
      int64_t& longer = in > out ? in : out;
      longer = (longer + 1) / 2;
    }
    in_tasks_ = Cut(in_vectors_, in);
    out_tasks_ = Cut(out_vectors_, out);
  }

  static Range channels(const Cut& tasks, int64_t task, int64_t count) {
    return {tasks.begin(task) * kLanes<T>, least(count, tasks.begin(task + 1) * kLanes<T>)};
  }

  void task(int64_t index, int worker) const {
    const Scratch scratch(workers_ + worker * worker_bytes_, *this);
    const int64_t out_task = index % out_tasks_.parts;
    index /= out_tasks_.parts;
    const int64_t in_task = index % in_tasks_.parts, group = index / in_tasks_.parts;
    const Range in = channels(in_tasks_, in_task, p_.read_channels);
    const Range out = channels(out_tasks_, out_task, p_.written_channels);
    const S* x = x_ + group * p_.read_channels * p_.read_strides[1];
    const TilePlane<S> y = {y_ + group * p_.written_channels * p_.written_strides[1],
                            p_.written_strides,
                            {p_.h.written_size, p_.w.written_size},
                            {0, 0}};
    const int64_t pitch = grid_.longest_row();
    const TileReader<SpreadTransform, S, T, Form> y_reader(p_, y, scratch.strip, pitch);
    // Lanes without a channel are computed, too.
    clear(scratch.strip, Form::H::products * pitch * kLanes<T>);
    clear(scratch.y, panels_.elements(out_width_ / kLanes<T>));
    clear(scratch.sums, sums_);
    clear(scratch.totals, sums_);
    const Cut columns((out.end - out.begin + kLanes<T> - 1) / kLanes<T>, kMaxVectors);
    for (int64_t chunk = 0; chunk < chunks_; ++chunk) {
      const int64_t begin = chunk * chunk_blocks_;
      int64_t tiles = 0;
      for (int64_t b = begin; b < least(begin + chunk_blocks_, grid_.blocks()); ++b) {
        const TileBlock block = grid_.block(b);
        for (int64_t piece = 0; piece < p_.pieces; ++piece)
          TileReader<DataTransform, S, T, Form>(p_, read_by_piece(p_, x, piece), scratch.strip,
                                                pitch)
              .run(block, in, scratch.x + tiles * x_pitch_ + piece * in_width_, x_plane_, x_pitch_);
        for (int64_t c = 0; c < columns.parts; ++c) {
          const int64_t width = columns.size(c) * kLanes<T>, first = columns.begin(c) * kLanes<T>;
          y_reader.run(block, {out.begin + first, least(out.begin + first + width, out.end)},
                       scratch.y + panels_.begin(columns, c) + tiles * width,
                       panels_.plane(columns, c), width);
        }
        tiles += block.tiles;
      }
      for (int64_t piece = 0; piece < p_.pieces; ++piece)
        multiply(tiles, piece * in_width_, Cut(in.end - in.begin, kMaxRows), columns, scratch);
      const bool full = (chunk + 1) % kWinogradChunks == 0 || chunk + 1 == chunks_;
      if (full && scratch.totals != scratch.sums) add_to_totals(scratch);
    }
    write(group, in, out, scratch);
  }

  void add_to_totals(const Scratch& scratch) const {
    for (int64_t i = 0; i < sums_; ++i) scratch.totals[i] += scratch.sums[i];
    clear(scratch.sums, sums_);
  }

  void multiply(int64_t tiles, int64_t first, const Cut& rows, const Cut& columns,
                const Scratch& scratch) const {
    for (int64_t plane = 0; plane < Form::planes; ++plane)
      for (int64_t c = 0; c < columns.parts; ++c) {
        const T* vectors =
            scratch.y + panels_.begin(columns, c) + plane * panels_.plane(columns, c);
        for (int64_t r = 0; r < rows.parts; ++r) {
          const int64_t row = first + rows.begin(r);
          const Segment<T> segment = {scratch.x + plane * x_plane_ + row, vectors, tiles};
          tile<T, Order::kByStep>(int(rows.size(r)), int(columns.size(c)))(
              &segment, 1, x_pitch_,
              scratch.sums + (plane * rows_ + row) * out_width_ + columns.begin(c) * kLanes<T>,
              out_width_, true);
        }
      }
  }

  void write(int64_t group, const Range& in, const Range& out, const Scratch& scratch) const {
    for (int64_t i = in.begin; i < in.end; i += kFilters)
      for (int64_t o = out.begin; o < out.end; o += kLanes<T>)
        collect_filters<S, T, Form>(p_,
                                    scratch.totals + (i - in.begin) * out_width_ + o - out.begin,
                                    out_width_, in_width_ * out_width_, rows_ * out_width_,
                                    w_ + group * p_.weight_group_stride + o * p_.weight_strides[0] +
                                        i * p_.weight_strides[1],
                                    least(kFilters, in.end - i), least(kLanes<T>, out.end - o));
  }

  const WinogradPlan& p_;
  const S* x_;
  const S* y_;
  S* w_;
  TileGrid grid_;
  int64_t chunk_blocks_;  // of a chunk: the summation is cut here
  int64_t chunks_;
  int64_t tiles_;                // of a chunk, at most
  PlaneBlocks<T, Form> panels_;  // of y's channels
  int64_t in_vectors_, out_vectors_;
  Cut in_tasks_, out_tasks_;
  int64_t in_width_, out_width_;  // channels of a task, at most, in whole vectors
  int64_t rows_;                  // in_width_ for each piece of the kernel
  int64_t x_pitch_, x_plane_;     // from one tile to the next, and from one plane to the next
  int64_t sums_;
  char* workers_;
  int64_t worker_bytes_, bytes_;
};

template <class S, class T, class Form>
size_t winograd_weight_workspace(const WinogradPlan& plan, int workers) {
  return WinogradWeight<S, T, Form>(plan, workers, nullptr, nullptr, nullptr, nullptr)
      .workspace_bytes();
}

template <class S, class T, class Form>
void run_winograd_weight(const WinogradPlan& plan, const void* x, const void* y, void* w,
                         void* workspace, const TaskPool& pool) {
  WinogradWeight<S, T, Form>(plan, pool.workers, x, y, w, workspace).run(pool);
}
