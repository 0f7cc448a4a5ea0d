// conv2d and grad_input in Winograd's domain: for each plane one matrix product, of the transformed
// weights with the tiles' transformed pixels, so one product per tile and plane instead of one per
// output and tap.
//
// Some written channels' weights are transformed at a time. Then tasks, each some tiles, transform
// what they read, multiply, and transform back, all in the cache. Channels are in vectors; a tile's
// sums do not depend on the others.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

template <class S, class T, class Form>
class WinogradGather {
 public:
  WinogradGather(const WinogradPlan& plan, int workers, const void* read, const void* weight,
                 const void* bias, void* written, void* workspace)
      : p_(plan),
        read_(static_cast<const S*>(read)),
        weight_(static_cast<const S*>(weight)),
        bias_(static_cast<const S*>(bias)),
        written_(static_cast<S*>(written)),
        grid_(plan),
        passes_((plan.written_channels + kLanes<T> - 1) / kLanes<T>, plan.pass_vectors),
        blocks_(0, kMaxVectors),
        depth_chunks_(plan.read_channels, kWinogradDepth),
        filter_tasks_(plan.read_channels, kFilters),
        tasks_(grid_.blocks(), choose_task_blocks(workers)),
        tiles_(grid_.largest_block() * ((tasks_.total + tasks_.parts - 1) / tasks_.parts)),
        pitch_(round_up(least(plan.read_channels, kWinogradDepth), kLanes<T>) + 16) {
    Arena arena(workspace);
    packed_ = arena.take<T>(Form::planes * plan.read_channels * plan.pass_vectors * kLanes<T>);
    worker_bytes_ = Scratch(nullptr, *this).bytes;
    workers_ = workspace ? static_cast<char*>(workspace) + arena.used() : nullptr;
    bytes_ = arena.used() + workers * worker_bytes_;
  }

  size_t workspace_bytes() const { return size_t(bytes_); }

  void run(const TaskPool& pool) {
    for (group_ = 0; group_ < p_.groups; ++group_)
      for (int64_t pass = 0; pass < passes_.parts; ++pass) {
        first_ = passes_.begin(pass);
        blocks_ = Cut(passes_.size(pass), kMaxVectors);
        pool.run(
            pool, filter_tasks_.parts,
            [](void* self, int64_t index, int) {
              static_cast<WinogradGather*>(self)->transform_weights(index);
            },
            this);
        pool.run(
            pool, tasks_.parts,
            [](void* self, int64_t index, int worker) {
              static_cast<WinogradGather*>(self)->task(index, worker);
            },
            this);
      }
  }

 private:
  struct Scratch {
    Scratch(char* base, const WinogradGather& gather) {
      Arena arena(base);
      strip = arena.take<T>(Form::H::products * gather.grid_.longest_row() * kLanes<T>);
      data = arena.take<T>(Form::planes * gather.tiles_ * gather.pitch_);
      products = arena.take<T>(Form::planes * gather.tiles_ * gather.p_.pass_vectors * kLanes<T>);
      bytes = arena.used();
    }
    T* strip;
    T* data;
    T* products;
    int64_t bytes;
  };

  // Enough tiles to use each transformed weight often, but several tasks per worker.
  int64_t choose_task_blocks(int workers) const {
    const int64_t wanted = most(1, p_.task_tiles / most(1, grid_.largest_block()));
    return workers == 1 ? wanted : least(wanted, most(1, grid_.blocks() / (4 * workers)));
  }

  T* packed_block(int64_t block) const {
    return packed_ + blocks_.begin(block) * kLanes<T> * Form::planes * p_.read_channels;
  }

  // Some read channels' filters, for all written channels at hand.
  void transform_weights(int64_t index) const {
    const Range channels = {filter_tasks_.begin(index), filter_tasks_.begin(index + 1)};
    for (int64_t block = 0; block < blocks_.parts; ++block) {
      const int64_t width = blocks_.size(block) * kLanes<T>;
      for (int64_t v = 0; v < blocks_.size(block); ++v)
        transform_filters<S, T, Form>(
            p_, weight_ + group_ * p_.weight_group_stride, channels,
            vector_channel<T>(first_ + blocks_.begin(block) + v, p_.written_channels),
            packed_block(block) + channels.begin * width + v * kLanes<T>, width,
            p_.read_channels * width);
    }
  }

  void task(int64_t index, int worker) const {
    const Scratch scratch(workers_ + worker * worker_bytes_, *this);
    const Range blocks = {tasks_.begin(index), tasks_.begin(index + 1)};
    if (p_.read_channels < kLanes<T>)
      clear(scratch.strip, Form::H::products * grid_.longest_row() * kLanes<T>);
    const TilePlane<S> plane = {read_ + group_ * p_.read_channels * p_.read_strides[1],
                                p_.read_strides,
                                {p_.h.read_size, p_.w.read_size},
                                {p_.h.origin, p_.w.origin}};
    const TileReader<DataTransform, S, T, Form> reader(p_, plane, scratch.strip,
                                                       grid_.longest_row());
    for (int64_t chunk = 0; chunk < depth_chunks_.parts; ++chunk) {
      int64_t tiles = 0;
      for (int64_t b = blocks.begin; b < blocks.end; ++b) {
        const TileBlock block = grid_.block(b);
        reader.run(block, {depth_chunks_.begin(chunk), depth_chunks_.begin(chunk + 1)},
                   scratch.data + tiles * pitch_, tiles_ * pitch_, pitch_);
        tiles += block.tiles;
      }
      for (int64_t channels = 0; channels < blocks_.parts; ++channels)
        multiply(channels, chunk, tiles, scratch);
    }
    for (int64_t channels = 0; channels < blocks_.parts; ++channels) {
      int64_t tiles = 0;
      for (int64_t b = blocks.begin; b < blocks.end; ++b) {
        const TileBlock block = grid_.block(b);
        write_block(block, channels, scratch, tiles);
        tiles += block.tiles;
      }
    }
  }

  T* products_of(int64_t channels, const Scratch& scratch) const {
    return scratch.products + blocks_.begin(channels) * kLanes<T> * Form::planes * tiles_;
  }

  // A chunk's weights stay in the first-level cache while the tiles pass by.
  void multiply(int64_t channels, int64_t chunk, int64_t tiles, const Scratch& scratch) const {
    const int64_t vectors = blocks_.size(channels), width = vectors * kLanes<T>;
    const Cut rows(tiles, kMaxRows);
    T* products = products_of(channels, scratch);
    for (int64_t plane = 0; plane < Form::planes; ++plane) {
      const T* weights =
          packed_block(channels) + (plane * p_.read_channels + depth_chunks_.begin(chunk)) * width;
      for (int64_t r = 0; r < rows.parts; ++r) {
        const int64_t row = plane * tiles_ + rows.begin(r);
        const Segment<T> segment = {scratch.data + row * pitch_, weights,
                                    depth_chunks_.size(chunk)};
        tile<T, Order::kByRow>(int(rows.size(r)), int(vectors))(
            &segment, 1, pitch_, products + row * width, width, chunk > 0);
      }
    }
  }

  void write_block(const TileBlock& block, int64_t channels, const Scratch& scratch,
                   int64_t first_tile) const {
    const int64_t width = blocks_.size(channels) * kLanes<T>;
    const int64_t pitch = grid_.longest_row();
    for (int64_t v = 0; v < blocks_.size(channels); ++v) {
      const int64_t channel =
          vector_channel<T>(first_ + blocks_.begin(channels) + v, p_.written_channels);
      const int64_t valid = least(kLanes<T>, p_.written_channels - channel);
      const int64_t of_all = group_ * p_.written_channels + channel;
      T bias[kLanes<T>] = {};
      if (bias_)
        for (int64_t c = 0; c < valid; ++c) bias[c] = widen(bias_[of_all + c]);
      transform_result<T, Form>(block,
                                products_of(channels, scratch) + first_tile * width + v * kLanes<T>,
                                tiles_ * width, width, load(bias), scratch.strip, pitch);
      write_strip<T, Form>(p_, block, written_ + of_all * p_.written_strides[1], valid,
                           scratch.strip, pitch);
    }
  }

  const WinogradPlan& p_;
  const S* read_;
  const S* weight_;
  const S* bias_;
  S* written_;
  TileGrid grid_;
  Cut passes_;        // written channels of a group, in vectors
  Cut blocks_;        // the pass's, cut into register tiles
  Cut depth_chunks_;  // read channels
  Cut filter_tasks_;  // read channels
  Cut tasks_;         // blocks of tiles
  int64_t tiles_;     // of a task, at most
  int64_t pitch_;     // between the transformed pixels of two tiles
  T* packed_;
  char* workers_;
  int64_t worker_bytes_, bytes_;
  int64_t group_ = 0, first_ = 0;  // of the pass; the latter in vectors
};

template <class S, class T, class Form>
size_t winograd_gather_workspace(const WinogradPlan& plan, int workers) {
  return WinogradGather<S, T, Form>(plan, workers, nullptr, nullptr, nullptr, nullptr, nullptr)
      .workspace_bytes();
}

template <class S, class T, class Form>
void run_winograd_gather(const WinogradPlan& plan, const void* read, const void* weight,
                         const void* bias, void* written, void* workspace, const TaskPool& pool) {
  WinogradGather<S, T, Form>(plan, pool.workers, read, weight, bias, written, workspace).run(pool);
}
