// conv2d and grad_input of few written channels, which would leave most of a vector of them empty:
// every read pixel is multiplied with the weights of all taps and written channels at once, as in a
// 1x1 convolution, and each tap's products are added to the written pixels that it reaches.
// Vasudevan, Anderson and Gregg, "Parallel multi channel convolution using general matrix
// multiplication" (2017), call it kn2row.
//
// A task owns the sums of a box of written pixels; its rows are of one phase, row_step apart. It
// takes the read rows one after the other, in segments of columns. A written pixel adds up its taps
// in the order of the rows and columns that they read, whatever the task.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc and matrix.inc.

// Products are those of S, summed in T: see products.h and pairs.h. They come in blocks of lanes,
// each of which is a tap of a written channel.
template <class S, class T, class Products>
class Kn2row {
 public:
  Kn2row(const Kn2rowPlan& plan, int workers, const void* read, const void* weight,
         const void* bias, void* written, void* workspace)
      : p_(plan.tensors),
        plan_(plan),
        taps_(p_.kernel[0] * p_.kernel[1]),
        lanes_(taps_ * p_.written_channels),
        size_{largest(&Region::h), largest(&Region::w)},
        phases_(least(plan.row_step, size_[0])),
        origins_{origins(&Region::h), origins(&Region::w)},
        products_(plan, read, weight),
        bias_(static_cast<const S*>(bias)),
        written_(static_cast<S*>(written)),
        rows_(cut_rows(workers)),
        columns_(cut_columns(workers)) {
    Arena arena(workspace);
    products_.packed = arena.take<typename Products::Operand>(products_.packed_size());
    worker_bytes_ = Scratch(nullptr, *this).bytes;
    workers_ = arena.take<char>(workers * worker_bytes_);
    bytes_ = arena.used();
  }

  size_t workspace_bytes() const { return size_t(bytes_); }

  void run(const TaskPool& pool) {
    pool.run(
        pool, products_.pack_tasks(),
        [](void* self, int64_t index, int) { static_cast<Kn2row*>(self)->products_.pack(index); },
        this);
    pool.run(
        pool, p_.batch * p_.groups * phases_ * rows_.parts * columns_.parts,
        [](void* self, int64_t index, int worker) {
          static_cast<Kn2row*>(self)->task(index, worker);
        },
        this);
  }

 private:
  // Read columns at a time: what they are multiplied into stays in the first-level cache.
  static constexpr int64_t kSegment = Products::kSegment;
  static constexpr int64_t kPitch = kSegment + kLanes<T>;
  static constexpr int64_t kSumBytes = 262144;  // of a task: they stay in the second-level cache

  // Written positions of every region, as far as it has them.
  struct Box {
    int64_t sample, group;
    int64_t phase;  // row t is phase + t * row_step
    Range rows, columns;
  };

  // Where a tap of a written channel adds to.
  struct Lane {
    T* row;          // of sums; null if the read row does not reach one
    int64_t origin;  // the column that the first of them reads
    int64_t count;   // of sums
  };

  // What one worker needs while it runs a task.
  struct Scratch {
    Scratch(char* base, const Kn2row& k) {
      Arena arena(base);
      sums = arena.take<T>(k.sums(k.rows_.largest(), k.columns_.largest()));
      lanes = arena.take<Lane>(k.lanes_);
      planes = arena.take<T>(Products::kBlockLanes * kPitch);
      products = arena.take<char>(k.products_.scratch_bytes());
      bytes = arena.used();
    }
    T* sums;  // [region][row][written channel][column]
    Lane* lanes;
    T* planes;  // of a block's lanes: the products of a segment's pixels
    char* products;
    int64_t bytes;
  };

  int64_t largest(Span Region::* axis) const {
    int64_t count = 0;
    for (int64_t r = 0; r < p_.region_count; ++r) count = most(count, (p_.regions[r].*axis).count);
    return count;
  }

  // What written position 0 reads, from the first to the last: end < begin if it is nothing.
  Range origins(Span Region::* axis) const {
    Range all = {INT64_MAX, INT64_MIN};
    for (int64_t r = 0; r < p_.region_count; ++r)
      for (int64_t t = 0; t < (p_.regions[r].*axis).tap_count; ++t) {
        const int64_t origin = (p_.regions[r].*axis).taps[t].origin;
        all = {least(all.begin, origin), most(all.end, origin)};
      }
    return all;
  }

  int64_t reach(int axis) const {
    const Range& all = origins_[axis];
    return all.end < all.begin ? 0 : all.end - all.begin;
  }

  // Sums are added to in whole vectors, some of them beyond the last.
  static int64_t pitch(int64_t columns) { return round_up(columns + kLanes<T> - 1, kLanes<T>); }

  int64_t sums(int64_t rows, int64_t columns) const {
    return p_.region_count * rows * p_.written_channels * pitch(columns);
  }

  // What lies beside a cut is multiplied twice, so parts are at least this many times as large.
  static constexpr int64_t kLeastPart = 4;

  // A phase's rows: in parts whose sums fit, and further where that keeps workers busy.
  Cut cut_rows(int workers) const {
    const int64_t rows = (size_[0] + plan_.row_step - 1) / plan_.row_step;
    const int64_t fewest = most(1, kLeastPart * (reach(0) / plan_.row_step));
    const int64_t fit = kSumBytes / int64_t(sizeof(T)) / most(1, sums(1, size_[1]));
    return Cut(rows,
               busy(rows, most(fewest, fit), fewest, p_.batch * p_.groups * phases_, workers));
  }

  // Then columns, for the same ends.
  Cut cut_columns(int workers) const {
    const int64_t fewest = most(kLeastPart * kSegment, kLeastPart * reach(1));
    const int64_t fit =
        kSumBytes / int64_t(sizeof(T)) / most(1, sums(rows_.largest(), 1)) * pitch(1);
    return Cut(size_[1], busy(size_[1], most(fewest, fit), fewest,
                              p_.batch * p_.groups * phases_ * rows_.parts, workers));
  }

  static int64_t busy(int64_t total, int64_t largest, int64_t fewest, int64_t others, int workers) {
    if (workers == 1 || others >= 2 * workers) return largest;
    return least(largest, most(fewest, total * others / (2 * workers)));
  }

  void task(int64_t index, int worker) const {
    const Scratch scratch(workers_ + worker * worker_bytes_, *this);
    Box box;
    box.columns = part(columns_, index);
    box.rows = part(rows_, index);
    box.phase = index % phases_;
    index /= phases_;
    box.group = index % p_.groups;
    box.sample = index / p_.groups;
    clear(scratch.sums, sums(box.rows.end - box.rows.begin, box.columns.end - box.columns.begin));
    for (int64_t l = 0; l < lanes_; ++l) scratch.lanes[l] = {};
    const Range read = reads(0, box.phase + box.rows.begin * plan_.row_step,
                             box.phase + (box.rows.end - 1) * plan_.row_step, plan_.row_step);
    for (int64_t row = read.begin; row < read.end; row += plan_.row_step)
      if (reach_rows(row, box, scratch))
        multiply_row(box, row, row + plan_.row_step < read.end ? plan_.row_step : 0, scratch);
    write(box, scratch);
  }

  // The part that an index over parts and others is of; the index becomes the others'.
  static Range part(const Cut& cut, int64_t& index) {
    const int64_t at = index % cut.parts;
    index /= cut.parts;
    return {cut.begin(at), cut.begin(at + 1)};
  }

  // What the written positions from `first` to `last` read inside the image, `step` apart.
  Range reads(int axis, int64_t first, int64_t last, int64_t step) const {
    if (origins_[axis].end < origins_[axis].begin) return {0, 0};
    int64_t begin = first + origins_[axis].begin;
    if (begin < 0) begin += (step - 1 - begin) / step * step;
    return {begin, least(last + origins_[axis].end + 1, p_.read_size[axis])};
  }

  // Finds the rows of sums that the read row reaches; whether there are any.
  bool reach_rows(int64_t read, const Box& box, const Scratch& scratch) const {
    bool any = false;
    T* sums = scratch.sums;
    const int64_t length = pitch(box.columns.end - box.columns.begin);
    const int64_t row = p_.written_channels * length;
    for (int64_t r = 0; r < p_.region_count; ++r) {
      const Span &h = p_.regions[r].h, &w = p_.regions[r].w;
      for (int64_t a = 0; a < h.tap_count; ++a) {
        const int64_t i = read - h.taps[a].origin;  // a row of the phase
        const int64_t first = box.phase + box.rows.begin * plan_.row_step;
        const bool reached =
            i >= first && i < h.count && i < box.phase + box.rows.end * plan_.row_step;
        T* to = reached ? sums + (i - first) / plan_.row_step * row : nullptr;
        any = any || reached;
        for (int64_t b = 0; b < w.tap_count; ++b)
          for (int64_t o = 0; o < p_.written_channels; ++o)
            scratch.lanes[first_lane(h.taps[a].kernel, w.taps[b].kernel) + o] = {
                reached ? to + o * length : nullptr, w.taps[b].origin + box.columns.begin,
                least(w.count, box.columns.end) - box.columns.begin};
      }
      sums += (box.rows.end - box.rows.begin) * row;
    }
    return any;
  }

  // Of a tap; see lane_tap.
  int64_t first_lane(int64_t row, int64_t column) const {
    const int64_t tap = row * p_.kernel[1] + column;
    return (plan_.reversed ? taps_ - 1 - tap : tap) * p_.written_channels;
  }

  void multiply_row(const Box& box, int64_t row, int64_t next, const Scratch& scratch) const {
    const Range read = reads(1, box.columns.begin, box.columns.end - 1, 1);
    if (read.begin >= read.end) return;
    const Cut segments((read.end - read.begin + kLanes<T> - 1) / kLanes<T>, kSegment / kLanes<T>);
    for (int64_t s = 0; s < segments.parts; ++s) {
      const int64_t column = read.begin + segments.begin(s) * kLanes<T>;
      const int64_t count =
          least(read.end, read.begin + segments.begin(s + 1) * kLanes<T>) - column;
      const auto pixels =
          products_.pixels(box.sample, box.group, row, column, count, next, scratch.products);
      for (int64_t b = 0; b < products_.blocks.parts; ++b)
        add_block(pixels, box.group, b, column, count, scratch);
    }
  }

  template <class Pixels>
  void add_block(const Pixels& pixels, int64_t group, int64_t block, int64_t column, int64_t count,
                 const Scratch& scratch) const {
    const Lane* lanes = scratch.lanes + products_.first_lane(block);
    const int64_t in_block = least(lanes_ - products_.first_lane(block), products_.lanes(block));
    bool any = false;
    for (int64_t l = 0; l < in_block; ++l) any = any || lanes[l].row;
    if (!any) return;
    products_.multiply(pixels, group, block, count, scratch.planes, kPitch);
    for (int64_t l = 0; l < in_block; ++l) {
      T* plane = scratch.planes + l * kPitch;
      store(plane + count, Vector<T>{});
      if (lanes[l].row) add_shifted(lanes[l], plane, column, count);
    }
  }

  static void add_shifted(const Lane& lane, const T* plane, int64_t column, int64_t count) {
    const int64_t shift = column - lane.origin;  // the sum that the plane's first column adds to
    const int64_t begin = most(0, -shift), end = least(count, lane.count - shift);
    for (int64_t c = begin; c < end; c += kLanes<T>)
      store(lane.row + shift + c, load(lane.row + shift + c) + load(plane + c));
  }

  void write(const Box& box, const Scratch& scratch) const {
    T* sums = scratch.sums;
    const int64_t length = pitch(box.columns.end - box.columns.begin);
    for (int64_t r = 0; r < p_.region_count; ++r) {
      const Span &h = p_.regions[r].h, &w = p_.regions[r].w;
      const int64_t count = least(w.count, box.columns.end) - box.columns.begin;
      for (int64_t t = box.rows.begin; t < box.rows.end; ++t)
        for (int64_t o = 0; o < p_.written_channels; ++o, sums += length) {
          const int64_t i = box.phase + t * plan_.row_step;
          if (i >= h.count || count <= 0) continue;
          const int64_t channel = box.group * p_.written_channels + o;
          if (bias_) {
            const Vector<T> bias = T(widen(bias_[channel])) - Vector<T>{};
            for (int64_t j = 0; j < count; j += kLanes<T>) store(sums + j, load(sums + j) + bias);
          }
          scatter(written_ + box.sample * p_.written_strides[0] + channel * p_.written_strides[1] +
                      (h.begin + i * h.step) * p_.written_strides[2] +
                      (w.begin + box.columns.begin * w.step) * p_.written_strides[3],
                  w.step * p_.written_strides[3], sums, count);
        }
    }
  }

  const GatherPlan& p_;
  const Kn2rowPlan& plan_;
  const int64_t taps_, lanes_;
  const int64_t size_[2];  // of the largest region
  const int64_t phases_;
  const Range origins_[2];
  Products products_;
  const S* bias_;
  S* written_;
  const Cut rows_, columns_;  // of a phase: parts are tasks
  char* workers_;
  int64_t worker_bytes_, bytes_;
};

// What products share: the operands' places, and weights that are packed as elements E, in blocks
// of lanes.
template <class S, class E>
class Kn2rowOperands {
 public:
  using Operand = E;

  int64_t first_lane(int64_t block) const { return blocks.begin(block) * unit_; }
  int64_t lanes(int64_t block) const { return blocks.size(block) * unit_; }
  int64_t packed_size() const { return p_.groups * group_size(); }
  int64_t pack_tasks() const { return p_.groups * blocks.parts; }

  const Cut blocks;  // of units
  E* packed = nullptr;

 protected:
  // A block has at most `largest` units of `unit` lanes each, and a lane `depth` weights.
  Kn2rowOperands(const Kn2rowPlan& plan, const void* read, const void* weight, int64_t depth,
                 int64_t unit, int64_t largest)
      : blocks((lanes_of(plan.tensors) + unit - 1) / unit, largest),
        p_(plan.tensors),
        total_(lanes_of(p_)),
        depth_(depth),
        reversed_(plan.reversed),
        unit_(unit),
        read_(static_cast<const S*>(read)),
        weight_(static_cast<const S*>(weight)) {}

  E* weights(int64_t group, int64_t block) const {
    return packed + group * group_size() + first_lane(block) * depth_;
  }

  const S* pixel(int64_t sample, int64_t group, int64_t row, int64_t column) const {
    return read_ + sample * p_.read_strides[0] + group * p_.read_channels * p_.read_strides[1] +
           row * p_.read_strides[2] + column * p_.read_strides[3];
  }

  // A lane's weights, as far apart as weight_strides[1] says: lanes are taps, in the order of the
  // columns that they read, and written channels within them.
  const S* weights_of(int64_t group, int64_t lane) const {
    const int64_t (&strides)[4] = p_.weight_strides;
    const int64_t place = lane / p_.written_channels;
    const int64_t tap = reversed_ ? p_.kernel[0] * p_.kernel[1] - 1 - place : place;
    return weight_ + group * p_.weight_group_stride + lane % p_.written_channels * strides[0] +
           tap / p_.kernel[1] * strides[2] + tap % p_.kernel[1] * strides[3];
  }

  const GatherPlan& p_;
  const int64_t total_;  // lanes
  const int64_t depth_;

 private:
  static int64_t lanes_of(const GatherPlan& p) {
    return p.kernel[0] * p.kernel[1] * p.written_channels;
  }
  int64_t group_size() const { return blocks.total * unit_ * depth_; }

  const bool reversed_;
  const int64_t unit_;
  const S* read_;
  const S* weight_;
};

// planes[lane][pixel] = products[pixel][lane], in squares; rows are so far apart.
template <class T>
inline void turn_products(T* planes, int64_t plane_pitch, const T* products, int64_t pitch,
                          int64_t lanes, int64_t pixels) {
  for (int64_t v = 0; v < lanes; v += kLanes<T>)
    for (int64_t q = 0; q < pixels; q += kLanes<T>)
      transpose<T>(planes + v * plane_pitch + q, plane_pitch, products + q * pitch + v, pitch,
                   kLanes<T>, kLanes<T>, kLanes<T>);
}

// Calls use(kernel) with the one that the plan is for.
template <class S, class T, class Pixels, class Lanes, class Use>
auto with_kn2row(const Kn2rowPlan& plan, int workers, const void* read, const void* weight,
                 const void* bias, void* written, void* workspace, const Use& use) {
  if (plan.pixels_in_vectors)
    return use(Kn2row<S, T, Pixels>(plan, workers, read, weight, bias, written, workspace));
  return use(Kn2row<S, T, Lanes>(plan, workers, read, weight, bias, written, workspace));
}

template <class S, class T, class Pixels, class Lanes>
size_t kn2row_workspace(const Kn2rowPlan& plan, int workers) {
  return with_kn2row<S, T, Pixels, Lanes>(
      plan, workers, nullptr, nullptr, nullptr, nullptr, nullptr,
      [](const auto& kernel) { return kernel.workspace_bytes(); });
}

template <class S, class T, class Pixels, class Lanes>
void run_kn2row(const Kn2rowPlan& plan, const void* read, const void* weight, const void* bias,
                void* written, void* workspace, const TaskPool& pool) {
  with_kn2row<S, T, Pixels, Lanes>(plan, pool.workers, read, weight, bias, written, workspace,
                                   [&](auto&& kernel) { kernel.run(pool); });
}
