// Runs a network that deploy.py packaged, without Python:
//
//   main OPS_LIBRARY PACKAGE INPUT OUTPUT
//
// INPUT holds a batch of images, (N, 4, H, W) float32, as three int64 (N, H, W) and the pixels;
// OUTPUT gets the pixels of the result.
#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/torch.h>

#include <cstdint>
#include <fstream>
#include <iostream>

namespace {

constexpr int64_t kChannels = 4;

torch::Tensor read(const char* path) {
  std::ifstream file(path, std::ios::binary);
  int64_t sizes[3];
  file.read(reinterpret_cast<char*>(sizes), sizeof sizes);
  torch::Tensor images = torch::empty({sizes[0], kChannels, sizes[1], sizes[2]});
  file.read(static_cast<char*>(images.data_ptr()), images.nbytes());
  TORCH_CHECK(file, "cannot read ", path);
  return images;
}

}  // namespace

int main(int argc, char** argv) {
  TORCH_CHECK(argc == 5, "expected OPS_LIBRARY PACKAGE INPUT OUTPUT");
  // The library registers the ops with torch as it is loaded; it needs no Python.
  TORCH_CHECK(dlopen(argv[1], RTLD_NOW), dlerror());
  const torch::Tensor images = read(argv[3]);
  torch::inductor::AOTIModelPackageLoader network(argv[2]);
  const torch::Tensor result = network.run({images})[0].contiguous();
  std::ofstream(argv[4], std::ios::binary)
      .write(static_cast<const char*>(result.const_data_ptr()), result.nbytes());
  std::cout << "output " << result.sizes() << "\n";
}
