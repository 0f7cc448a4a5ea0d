// The depthwise kernel's tasks: channels' planes, or tiles of pixels.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

template <class S, class T>
class Depthwise : private DepthwiseTiles {
 public:
  Depthwise(const DepthwisePlan& plan, const void* read, const void* weight, const void* bias,
            void* written, void* workspace, int workers, bool weight_gradient)
      : DepthwiseTiles(plan),
        read_(static_cast<const S*>(read)),
        weight_(static_cast<const S*>(weight)),
        bias_(static_cast<const S*>(bias)),
        written_(static_cast<S*>(written)),
        taps_(plan.kernel[0] * plan.kernel[1]),
        tables_(plan.depth * plan.group),
        padded_(round_up(plan.channels, kLanes<T>)),
        blocks_(padded_ / kLanes<T>) {
    Arena arena(workspace);
    if (plan.form == DepthwiseForm::kPlanes) {
      worker_bytes_ = round_up(Planes<S, T>(plan, nullptr, weight_gradient).bytes(), 64);
    } else {
      table_ =
          arena.template take<T>((weight_gradient ? plan.splits : 1) * tables_ * taps_ * padded_);
      starts_ = arena.template take<T>(padded_);
      // What a tile of a block reads and writes.
      read_elements_ = plan.tile_reads[0] * plan.tile_reads[1] * kLanes<T>;
      Arena worker(nullptr);
      worker.take<StripTaps>(4 * taps_);
      if (plan.form == DepthwiseForm::kBlocks) {
        worker.take<T>(read_elements_);
        worker.take<T>(plan.tile[0] * plan.tile[1] * kLanes<T>);
      }
      worker_bytes_ = worker.used();
    }
    scratch_ = arena.template take<char>(workers * worker_bytes_);
    bytes_ = arena.used();
  }

  size_t workspace_bytes() const { return size_t(bytes_); }

  void gather(const TaskPool& pool) {
    if (p_.form == DepthwiseForm::kPlanes)
      return pool.run(
          pool, p_.batch * p_.channels,
          [](void* self, int64_t index, int worker) {
            static_cast<Depthwise*>(self)->gather_plane(index, worker);
          },
          this);
    pool.run(
        pool, blocks_,
        [](void* self, int64_t index, int) { static_cast<Depthwise*>(self)->pack_weights(index); },
        this);
    const int64_t groups = p_.form == DepthwiseForm::kBlocks ? blocks_ : p_.channel_parts;
    pool.run(
        pool, p_.batch * groups * tiles_[0] * tiles_[1],
        [](void* self, int64_t index, int worker) {
          static_cast<Depthwise*>(self)->gather_tile(index, worker);
        },
        this);
  }

  // x, y, w in the places of read, weight, written.
  void weight_gradient(const TaskPool& pool) {
    if (p_.form == DepthwiseForm::kPlanes)
      return pool.run(
          pool, p_.channels,
          [](void* self, int64_t index, int worker) {
            static_cast<Depthwise*>(self)->weight_plane(index, worker);
          },
          this);
    const int64_t groups = p_.form == DepthwiseForm::kBlocks ? blocks_ : 1;
    pool.run(
        pool, p_.splits * groups,
        [](void* self, int64_t index, int worker) {
          static_cast<Depthwise*>(self)->weight_split(index, worker);
        },
        this);
    pool.run(
        pool, tables_ * taps_,
        [](void* self, int64_t index, int) { static_cast<Depthwise*>(self)->add_splits(index); },
        this);
  }

 private:
  void gather_plane(int64_t index, int worker) const {
    Planes<S, T> planes(p_, scratch_ + worker * worker_bytes_, false);
    planes.gather_plane(index / p_.channels, index % p_.channels, read_, weight_, bias_, written_);
  }

  void weight_plane(int64_t index, int worker) const {
    Planes<S, T> planes(p_, scratch_ + worker * worker_bytes_, true);
    planes.weight_channel(index, read_, weight_, written_);
  }

  LaneOffsets<T> read_lanes(int64_t block, int64_t depth) const {
    const int64_t first = block * kLanes<T>;
    return {first * p_.depth + depth, p_.depth, p_.divisor, p_.read_strides[1],
            p_.channels - first};
  }

  LaneOffsets<T> written_lanes(int64_t block) const {
    return {block * kLanes<T>, 1, 1, p_.written_strides[1], p_.channels - block * kLanes<T>};
  }

  // table_[read channel][tap][channel], and the bias.
  void pack_weights(int64_t block) const {
    const int64_t first = block * kLanes<T>;
    const auto lanes = LaneOffsets<T>::in_groups(first, p_.group, p_.weight_strides[0],
                                                 p_.lane_stride, p_.channels - first);
    const bool dense = p_.weight_strides[1] == p_.kernel[1] * p_.weight_strides[2];
    const int64_t run = dense ? taps_ : p_.kernel[1];
    for (int64_t d = 0; d < tables_; ++d)
      for (int64_t t = 0; t < taps_; t += run)
        pack_pixels(table_ + (d * taps_ + t) * padded_ + first, padded_,
                    weight_ + d * p_.mix_stride + t / p_.kernel[1] * p_.weight_strides[1], lanes,
                    p_.weight_strides[2], run);
    for (int64_t c = first; c < first + kLanes<T>; ++c)
      starts_[c] = bias_ && c < p_.channels ? T(widen(bias_[c])) : T(0);
  }

  // What the tile reads.
  Box read_box(const Box& tile) const {
    Box box = {{0, 0}, {0, 0}};
    const auto join = [](Part& all, const Part& one) {
      if (one.begin == one.end) return;
      all = all.begin == all.end ? one : Part{least(all.begin, one.begin), most(all.end, one.end)};
    };
    for (int64_t r = 0; r < p_.region_count; ++r) {
      join(box.h, reads_of(p_.regions[r].h, tile.h.begin, tile.h.end, p_.read_size[0]));
      join(box.w, reads_of(p_.regions[r].w, tile.w.begin, tile.w.end, p_.read_size[1]));
    }
    return box;
  }

  // Whole vectors, but for the last part's, which holds one at least.
  int64_t part_begin(int64_t part) const {
    if (part == p_.channel_parts) return p_.channels;
    return p_.channels * part / p_.channel_parts / kLanes<T> * kLanes<T>;
  }

  void gather_tile(int64_t index, int worker) const {
    const int64_t tiles = tiles_[0] * tiles_[1];
    const Box tile = tile_box(index % tiles);
    Arena arena(scratch_ + worker * worker_bytes_);
    StripTaps* lists = arena.template take<StripTaps>(4 * taps_);
    if (p_.form == DepthwiseForm::kInPlace) {
      const int64_t n = index / tiles / p_.channel_parts;
      const int64_t part = index / tiles % p_.channel_parts;
      const int64_t first = part_begin(part), count = part_begin(part + 1) - first;
      const auto read = sample_pixels(read_, p_.read_strides, n, first);
      const auto written = sample_pixels(written_, p_.written_strides, n, first);
      return gather_box(tile, read, written, table_ + first, starts_ + first, count, lists);
    }
    const int64_t n = index / tiles / blocks_, block = index / tiles % blocks_;
    T* packed = arena.template take<T>(read_elements_);
    T* result = arena.template take<T>(p_.tile[0] * p_.tile[1] * kLanes<T>);
    const Box box = read_box(tile);
    const PixelView<T> written = {result, tile.h.begin, tile.w.begin, tile.columns() * kLanes<T>,
                                  kLanes<T>};
    for (int64_t d = 0; d < p_.depth; ++d) {
      const auto read = pack_box(packed, read_ + n * p_.read_strides[0], p_.read_strides,
                                 read_lanes(block, d), box);
      gather_box(tile, read, written, table_ + d * taps_ * padded_ + block * kLanes<T>,
                 d == 0 ? starts_ + block * kLanes<T> : nullptr, kLanes<T>, lists);
    }
    unpack_box(written_ + n * p_.written_strides[0], p_.written_strides, written_lanes(block), tile,
               result);
  }

  // `count` channels; the views, weights and starts hold them from 0 on.
  template <class E>
  void gather_box(const Box& tile, const PixelView<const E>& read, const PixelView<E>& written,
                  const T* weights, const T* starts, int64_t count, StripTaps* lists) const {
    const bool far = p_.form == DepthwiseForm::kInPlace;
    for (const Region* region = p_.regions; region < p_.regions + p_.region_count; ++region) {
      const Part rows = part_of(region->h, tile.h.begin, tile.h.end);
      const Part columns = part_of(region->w, tile.w.begin, tile.w.end);
      if (p_.group > 1)
        GroupGather<E, T>(p_, *region, read, written, weights, taps_ * padded_, padded_, starts,
                          lists)
            .run(rows, columns, count);
      else if (Squares<E, E>::fit(*region))
        gather_squares(Squares<E, E>(p_, *region, read, written), rows, columns, weights, starts,
                       count);
      else
        PixelGather<E, T>(p_, *region, read, written, weights, padded_, starts, far, lists)
            .run(rows, columns, count);
    }
  }

  template <class E>
  void gather_squares(const Squares<E, E>& tiles, Part rows, Part columns, const T* weights,
                      const T* starts, int64_t count) const {
    SquareGather<T> gather = {{}, starts, count};
    for (int a = 0; a < 3; ++a)
      for (int b = 0; b < 3; ++b)
        gather.weights.at[a][b] =
            weights + (tiles.h().kernel[a] * p_.kernel[1] + tiles.w().kernel[b]) * padded_;
    tiles.each(rows, columns, tiles.near(count), gather);
  }

  // The partial sums of a split: of one block, or of all channels.
  void weight_split(int64_t index, int worker) const {
    const bool in_place = p_.form == DepthwiseForm::kInPlace;
    const int64_t split = in_place ? index : index / blocks_,
                  block = in_place ? 0 : index % blocks_;
    T* sums = table_ + split * tables_ * taps_ * padded_ + block * kLanes<T>;
    for (int64_t t = 0; t < tables_ * taps_; ++t)
      clear(sums + t * padded_, in_place ? padded_ : kLanes<T>);
    this->each_of_split(split, [&](int64_t n, const Box& tile) {
      if (in_place)
        weight_in_place(n, tile, sums);
      else
        weight_block(n, block, tile, sums, worker);
    });
  }

  void weight_in_place(int64_t n, const Box& tile, T* sums) const {
    if constexpr (kSame<S, T>) {
      if (p_.group == 1 && Squares<T, const T>::fit(p_.regions[0])) {
        return weight_squares(sample_pixels(read_, p_.read_strides, n, 0),
                              sample_pixels(weight_, p_.written_strides, n, 0), tile, sums,
                              p_.channels);
      }
      for (int64_t at = 0; at < p_.channels; at += kLanes<T>) {
        // The last vector begins at its own sums, but may read channels of the one before.
        const int64_t c = least(at, p_.channels - kLanes<T>);
        weight_pixels(sample_pixels(read_, p_.read_strides, n, c),
                      sample_pixels(weight_, p_.written_strides, n, c), tile, sums + at);
      }
    }
  }

  // Of one vector of channels.
  void weight_pixels(const PixelView<const T>& x, const PixelView<const T>& y, const Box& tile,
                     T* sums) const {
    if (p_.group == 1)
      weight_mixed<1>(x, y, tile, sums);
    else if (p_.group < kMixedChannels)
      weight_mixed<2>(x, y, tile, sums);
    else
      weight_mixed<kMixedChannels>(x, y, tile, sums);
  }

  template <int M>
  void weight_mixed(const PixelView<const T>& x, const PixelView<const T>& y, const Box& tile,
                    T* sums) const {
    const int64_t pitch = taps_ * padded_;
    for (int64_t first = 0; first < p_.group; first += M)
      PixelWeight<T, M>{p_, x, y, sums + first * pitch, padded_, pitch, {p_.group, first}}.run(
          tile.h, tile.w);
  }

  void weight_block(int64_t n, int64_t block, const Box& tile, T* sums, int worker) const {
    Arena arena(scratch_ + worker * worker_bytes_);
    const auto x = pack_box(arena.template take<T>(read_elements_), read_ + n * p_.read_strides[0],
                            p_.read_strides, read_lanes(block, 0), read_box(tile));
    const auto y = pack_box(arena.template take<T>(p_.tile[0] * p_.tile[1] * kLanes<T>),
                            weight_ + n * p_.written_strides[0], p_.written_strides,
                            written_lanes(block), tile);
    if (p_.group == 1 && Squares<T, const T>::fit(p_.regions[0]))
      weight_squares(x, y, tile, sums, kLanes<T>);
    else
      weight_pixels(x, y, tile, sums);
  }

  void weight_squares(const PixelView<const T>& x, const PixelView<const T>& y, const Box& tile,
                      T* sums, int64_t channels) const {
    Squares<T, const T>(p_, p_.regions[0], x, y)
        .each(tile.h, tile.w, true, SquareWeightSums<T>{sums, padded_, channels});
  }

  // Adds the splits' sums of a read channel and a tap, in order.
  void add_splits(int64_t row) const {
    const int64_t tap = row % taps_;
    S* to = written_ + row / taps_ * p_.mix_stride + tap / p_.kernel[1] * p_.weight_strides[1] +
            tap % p_.kernel[1] * p_.weight_strides[2];
    for (int64_t at = 0; at < p_.channels; at += kLanes<T>) {
      Vector<T> total = {};
      for (int64_t s = 0; s < p_.splits; ++s)
        total += load(table_ + (s * tables_ * taps_ + row) * padded_ + at);
      T values[kLanes<T>];
      store(values, total);
      // The in-place form's last vector holds the last channels there are.
      const int64_t c =
          p_.form == DepthwiseForm::kInPlace ? least(at, p_.channels - kLanes<T>) : at;
      scatter(to + at * p_.lane_stride, p_.lane_stride, values + (at - c),
              least(p_.channels, c + kLanes<T>) - at);
    }
  }

  const S* read_;
  const S* weight_;
  const S* bias_;
  S* written_;
  int64_t taps_, tables_, padded_, blocks_;  // tables: of weights, [tap][channel]
  T* table_ = nullptr;                       // the packed weights, or partial sums
  T* starts_ = nullptr;                      // the bias
  char* scratch_;
  int64_t read_elements_ = 0, worker_bytes_ = 0, bytes_ = 0;
};

template <class S, class T>
size_t depthwise_gather_workspace(const DepthwisePlan& plan, int workers) {
  return Depthwise<S, T>(plan, nullptr, nullptr, nullptr, nullptr, nullptr, workers, false)
      .workspace_bytes();
}

template <class S, class T>
size_t depthwise_weight_workspace(const DepthwisePlan& plan, int workers) {
  return Depthwise<S, T>(plan, nullptr, nullptr, nullptr, nullptr, nullptr, workers, true)
      .workspace_bytes();
}

template <class S, class T>
void run_depthwise_gather(const DepthwisePlan& plan, const void* read, const void* weight,
                          const void* bias, void* written, void* workspace, const TaskPool& pool) {
  Depthwise<S, T>(plan, read, weight, bias, written, workspace, pool.workers, false).gather(pool);
}

template <class S, class T>
void run_depthwise_weight(const DepthwisePlan& plan, const void* x, const void* y, void* w,
                          void* workspace, const TaskPool& pool) {
  Depthwise<S, T>(plan, x, y, nullptr, w, workspace, pool.workers, true).weight_gradient(pool);
}
