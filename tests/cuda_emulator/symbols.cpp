#include "symbols.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <elf.h>
#include <link.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <vector>

namespace cuda_emulator {
namespace {

std::string demangled(const char* name) {
  char* text = abi::__cxa_demangle(name, nullptr, nullptr, nullptr);
  const std::string result = text ? text : name;
  std::free(text);
  return result;
}

// dladdr() knows exported functions only; kernels are local. Reads the file's whole symbol table.
std::string local_name(const char* path, uint64_t offset) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  if (bytes.size() < sizeof(ElfW(Ehdr))) return {};
  const auto* header = reinterpret_cast<const ElfW(Ehdr)*>(bytes.data());
  const auto* sections = reinterpret_cast<const ElfW(Shdr)*>(bytes.data() + header->e_shoff);
  for (int i = 0; i < header->e_shnum; ++i) {
    if (sections[i].sh_type != SHT_SYMTAB) continue;
    const auto* symbols = reinterpret_cast<const ElfW(Sym)*>(bytes.data() + sections[i].sh_offset);
    const char* names = bytes.data() + sections[sections[i].sh_link].sh_offset;
    for (size_t k = 0; k < sections[i].sh_size / sizeof(ElfW(Sym)); ++k)
      if (symbols[k].st_value == offset && ELF64_ST_TYPE(symbols[k].st_info) == STT_FUNC)
        return demangled(names + symbols[k].st_name);
  }
  return {};
}

}  // namespace

std::string function_name(const void* address) {
  static std::map<const void*, std::string> known;
  std::string& name = known[address];
  if (!name.empty()) return name;
  Dl_info info;
  link_map* map = nullptr;
  if (dladdr1(address, &info, reinterpret_cast<void**>(&map), RTLD_DL_LINKMAP) && map) {
    const char* path = *map->l_name ? map->l_name : "/proc/self/exe";
    name = local_name(path, reinterpret_cast<uint64_t>(address) - map->l_addr);
  }
  if (name.empty()) name = "of an unknown name";
  return name;
}

}  // namespace cuda_emulator
