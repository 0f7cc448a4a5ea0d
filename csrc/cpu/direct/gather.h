// conv2d and grad_input: an implicit product of packed weights with the pixels that each tap reads.
//
// A task owns a block of written pixels (of one region, across the batch) and a range of written
// channels; the orientation says what its vectors hold. Every written element is one chain of sums,
// cut at the same places whatever the task, the batch and the orientation, so its bits depend on
// its sample alone.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

template <class S, class T, template <class, class> class Orientation>
class Gather {
 public:
  using Scratch = typename Orientation<S, T>::Scratch;

  Gather(const GatherPlan& plan, int64_t unit, int64_t tile_units, int workers, const void* read,
         const void* weight, const void* bias, void* written, void* workspace)
      : p_(plan),
        samples_(plan.batch, plan.samples),
        tile_channels_(unit * tile_units),
        o_{plan,
           static_cast<const S*>(read),
           static_cast<const S*>(weight),
           static_cast<const S*>(bias),
           static_cast<S*>(written),
           plan.kernel[0] * plan.kernel[1] * plan.read_channels,
           unit,
           Cut((plan.written_channels + unit - 1) / unit, tile_units),
           nullptr,
           kSame<S, T> && plan.vectors == VectorsHold::kWrittenChannels &&
               plan.written_strides[1] == 1 && plan.written_channels > unit &&
               plan.written_channels % unit != 0},
        parts_(o_.blocks.parts, choose_blocks_per_part(workers)) {
    Arena arena(workspace);
    o_.packed = arena.take<T>(plan.groups * o_.blocks.total * unit * o_.depth);
    worker_bytes_ = Scratch(nullptr, plan, part_channels()).bytes;
    workers_ = arena.take<char>(workers * worker_bytes_);
    bytes_ = arena.used();
  }

  size_t workspace_bytes() const { return size_t(bytes_); }

  void run(const TaskPool& pool) {
    pool.run(
        pool, p_.groups * o_.blocks.parts,
        [](void* self, int64_t index, int) { static_cast<Gather*>(self)->pack_weights(index); },
        this);
    const int64_t units = p_.groups * parts_.parts;
    splits_ = least(units, (4 * pool.workers + pixel_blocks() - 1) / pixel_blocks());
    if (pool.workers == 1) splits_ = 1;
    pool.run(
        pool, pixel_blocks() * splits_,
        [](void* self, int64_t index, int worker) {
          static_cast<Gather*>(self)->task(index, worker);
        },
        this);
  }

 private:
  int64_t choose_blocks_per_part(int workers) const {
    const int64_t largest = most(1, p_.split_channels / tile_channels_);
    const int64_t wanted = 2 * workers / (pixel_blocks() * p_.groups);
    return workers == 1 || wanted <= 1 ? largest
                                       : least(largest, most(1, o_.blocks.parts / wanted));
  }

  // Written channels, in whole units, of the largest part.
  int64_t part_channels() const {
    int64_t largest = 0;
    for (int64_t part = 0; part < parts_.parts; ++part)
      largest = most(largest, o_.channels(parts_.begin(part), parts_.begin(part + 1)));
    return largest;
  }

  // The pixel vectors of a region, cut into blocks.
  Cut region_blocks(const Region& region) const {
    const int64_t pixels = p_.samples * region.h.count * region.w.count;
    return Cut((pixels + kLanes<T> - 1) / kLanes<T>, most(1, p_.block_pixels / kLanes<T>));
  }

  int64_t sample_blocks() const {
    int64_t count = 0;
    for (int64_t r = 0; r < p_.region_count; ++r) count += region_blocks(p_.regions[r]).parts;
    return count;
  }

  int64_t pixel_blocks() const { return samples_.parts * sample_blocks(); }

  void pack_weights(int64_t index) const {
    WeightPacker<S, T>(o_, index / o_.blocks.parts, index % o_.blocks.parts).run();
  }

  void task(int64_t index, int worker) const {
    const int64_t split = index % splits_, blocks = sample_blocks();
    const int64_t samples = index / splits_ / blocks;
    int64_t block_index = index / splits_ % blocks;
    const Region* region = p_.regions;
    while (block_index >= region_blocks(*region).parts)
      block_index -= region_blocks(*region++).parts;

    const Cut cut = region_blocks(*region);
    const int64_t pixels = samples_.size(samples) * region->h.count * region->w.count;
    const int64_t begin = cut.begin(block_index) * kLanes<T>;
    const int64_t end = least(cut.begin(block_index + 1) * kLanes<T>, pixels);
    if (begin >= end) return;
    const Block block = {region, samples_.begin(samples), begin, end};
    Scratch scratch(workers_ + worker * worker_bytes_, p_, part_channels());
    const Orientation<S, T> orientation(o_);
    orientation.begin(block, scratch);
    const int64_t units = p_.groups * parts_.parts;
    for (int64_t unit = units * split / splits_; unit < units * (split + 1) / splits_; ++unit) {
      const int64_t part = unit % parts_.parts;
      orientation.compute(block, unit / parts_.parts, {parts_.begin(part), parts_.begin(part + 1)},
                          scratch);
    }
  }

  const GatherPlan& p_;
  Cut samples_;
  int64_t tile_channels_;  // written channels of a register tile
  GatherOperands<S, T> o_;
  Cut parts_;  // blocks, cut into what one task takes at a time
  char* workers_;
  int64_t worker_bytes_, bytes_, splits_ = 1;
};

// Calls use(gather) with what the plan chose.
template <class S, class T, class Use>
auto with_gather(const GatherPlan& plan, int workers, const void* read, const void* weight,
                 const void* bias, void* written, void* workspace, const Use& use) {
  if (plan.vectors == VectorsHold::kPaddedPixels) {
    PaddedPlanes<S, T> gather(plan, workers, read, weight, bias, written, workspace);
    return use(gather);
  }
  if (plan.vectors == VectorsHold::kWrittenChannels) {
    Gather<S, T, ChannelVectors> gather(plan, kLanes<T>, kMaxVectors, workers, read, weight, bias,
                                        written, workspace);
    return use(gather);
  }
  if constexpr (kSame<S, T>) {
    if (plan.vectors == VectorsHold::kReadChannels) {
      Gather<S, T, DotProducts> gather(plan, 1, 1, workers, read, weight, bias, written, workspace);
      return use(gather);
    }
  }
  Gather<S, T, PixelVectors> gather(plan, 1, kMaxRows, workers, read, weight, bias, written,
                                    workspace);
  return use(gather);
}

template <class S, class T>
size_t gather_workspace(const GatherPlan& plan, int workers) {
  return with_gather<S, T>(plan, workers, nullptr, nullptr, nullptr, nullptr, nullptr,
                           [](const auto& gather) { return gather.workspace_bytes(); });
}

template <class S, class T>
void run_gather(const GatherPlan& plan, const void* read, const void* weight, const void* bias,
                void* written, void* workspace, const TaskPool& pool) {
  with_gather<S, T>(plan, pool.workers, read, weight, bias, written, workspace,
                    [&](auto& gather) { gather.run(pool); });
}
