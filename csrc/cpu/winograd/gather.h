// conv2d and grad_input in Winograd's domain: for each plane one matrix product, of the transformed
// weights with the tiles' transformed pixels, so one product per tile and plane instead of one per
// output and tap.
//
// Some written channels' weights are transformed at a time. Then tasks, each some tiles, transform
// what they read, multiply, and transform back, all in the cache. Channels are in vectors; a tile's
// sums do not depend on the others. They are over the pieces of the kernel and the read channels,
// in this order.
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
        piece_chunks_(plan.pieces, most(1, kWinogradDepth / plan.read_channels)),
        channel_chunks_(plan.read_channels, kWinogradDepth),
        filter_tasks_(plan.read_channels, kFilters),
        tasks_(choose_tasks(workers)),
        tiles_(grid_.largest_block() * tasks_.largest()),
        depth_(plan.pieces * plan.read_channels),
        pitch_(odd_lines<T>(least(depth_, kWinogradDepth) + kLanes<T>)),
        plane_(odd_lines<T>(tiles_ * pitch_)),
        packing_{depth_} {
    Arena arena(workspace);
    packed_ = arena.take<T>(packing_.elements(plan.pass_vectors));
    worker_bytes_ = Scratch(nullptr, *this).bytes;
    workers_ = arena.take<char>(workers * worker_bytes_);
    bytes_ = arena.used();
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
      data = arena.take<T>(Form::planes * gather.plane_);
      products = arena.take<T>(Form::planes * gather.tiles_ * gather.p_.pass_vectors * kLanes<T>);
      bytes = arena.used();
    }
    T* strip;
    T* data;
    T* products;
    int64_t bytes;
  };

  // Enough tiles to use each transformed weight often: all weights pass by for each task. Few tasks
  // are divided evenly among the workers.
  Cut choose_tasks(int workers) const {
    const int64_t block = most(1, grid_.largest_block());
    Cut tasks(grid_.blocks(), most(1, (p_.task_tiles + block / 2) / block));
    if (tasks.parts < 4 * workers)
      tasks.parts = least(grid_.blocks(), round_up(tasks.parts, workers));
    return tasks;
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
            packed_ + packing_.begin(blocks_, block) + channels.begin * width + v * kLanes<T>,
            width, p_.read_channels * width, packing_.plane(blocks_, block));
    }
  }

  void task(int64_t index, int worker) const {
    const Scratch scratch(workers_ + worker * worker_bytes_, *this);
    const Range blocks = {tasks_.begin(index), tasks_.begin(index + 1)};
    if (p_.read_channels < kLanes<T>)
      clear(scratch.strip, Form::H::products * grid_.longest_row() * kLanes<T>);
    for (int64_t p = 0; p < piece_chunks_.parts; ++p)
      for (int64_t c = 0; c < channel_chunks_.parts; ++c) {
        const Range pieces = {piece_chunks_.begin(p), piece_chunks_.begin(p + 1)};
        const Range channels = {channel_chunks_.begin(c), channel_chunks_.begin(c + 1)};
        const int64_t tiles = read(blocks, pieces, channels, scratch);
        // Several pieces only with all channels.
        const int64_t first = pieces.begin * p_.read_channels + channels.begin;
        const int64_t depth = (pieces.end - pieces.begin) * (channels.end - channels.begin);
        for (int64_t block = 0; block < blocks_.parts; ++block)
          multiply(block, {first, first + depth}, tiles, scratch);
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

  // The tiles that the pieces read. The last vector of a piece with fewer channels reaches into the
  // next one, which is written after it.
  int64_t read(const Range& blocks, const Range& pieces, const Range& channels,
               const Scratch& scratch) const {
    const S* plane = read_ + group_ * p_.read_channels * p_.read_strides[1];
    int64_t tiles = 0;
    for (int64_t piece = pieces.begin; piece < pieces.end; ++piece) {
      const TileReader<DataTransform, S, T, Form> reader(p_, read_by_piece(p_, plane, piece),
                                                         scratch.strip, grid_.longest_row());
      T* data = scratch.data + (piece - pieces.begin) * (channels.end - channels.begin);
      tiles = 0;
      for (int64_t b = blocks.begin; b < blocks.end; ++b) {
        const TileBlock block = grid_.block(b);
        reader.run(block, channels, data + tiles * pitch_, plane_, pitch_);
        tiles += block.tiles;
      }
    }
    return tiles;
  }

  T* products_of(int64_t channels, const Scratch& scratch) const {
    return scratch.products + blocks_.begin(channels) * kLanes<T> * Form::planes * tiles_;
  }

  // A chunk's weights stay in the first-level cache while the tiles pass by.
  void multiply(int64_t channels, const Range& depth, int64_t tiles, const Scratch& scratch) const {
    const int64_t vectors = blocks_.size(channels), width = vectors * kLanes<T>;
    const Cut rows(tiles, kMaxRows);
    T* products = products_of(channels, scratch);
    for (int64_t plane = 0; plane < Form::planes; ++plane) {
      const T* weights = packed_ + packing_.begin(blocks_, channels) +
                         plane * packing_.plane(blocks_, channels) + depth.begin * width;
      for (int64_t r = 0; r < rows.parts; ++r) {
        const Segment<T> segment = {scratch.data + plane * plane_ + rows.begin(r) * pitch_, weights,
                                    depth.end - depth.begin};
        tile<T, Order::kByRow>(int(rows.size(r)), int(vectors))(
            &segment, 1, pitch_, products + (plane * tiles_ + rows.begin(r)) * width, width,
            depth.begin > 0);
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
  Cut passes_;                    // written channels of a group, in vectors
  Cut blocks_;                    // the pass's, cut into register tiles
  Cut piece_chunks_;              // several at a time of few channels
  Cut channel_chunks_;            // read channels
  Cut filter_tasks_;              // read channels
  Cut tasks_;                     // blocks of tiles
  int64_t tiles_;                 // of a task, at most
  int64_t depth_;                 // of all sums
  int64_t pitch_;                 // from the transformed pixels of one tile to the next's
  int64_t plane_;                 // and from one plane
  PlaneBlocks<T, Form> packing_;  // of a pass's weights
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
