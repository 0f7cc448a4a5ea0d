# The GPU's kernels on the host: csrc/core and csrc/cuda compiled by $(CXX) against the emulator's
# own <cuda_runtime.h>. Needs Boost.Context; Debian and Ubuntu: apt install libboost-context-dev.

EMULATOR_DIR ?= build/emulator
EMULATOR_OPTIMISE ?= -O2
EMULATOR_FLAGS := $(EMULATOR_OPTIMISE) -g1 -Wall -Wno-unknown-pragmas -Wno-sign-compare \
  -ffp-contract=off -fno-ipa-icf -fvisibility=hidden -fPIC -std=c++17 \
  -Itests/cuda_emulator/include
# For everything, and for the kernels and the linker alone.
SANITIZE ?=
SANITIZE_KERNELS ?=
HAS_BOOST := $(shell echo '\#include <boost/context/fiber.hpp>' | \
  $(CXX) -E -x c++ - > /dev/null 2>&1 && echo yes)

EMULATED := $(patsubst csrc/%,$(EMULATOR_DIR)/csrc/%.o,$(basename $(CUDA_SOURCES)))
EMULATOR := $(patsubst %,$(EMULATOR_DIR)/%.o,block counters memory oracle runtime symbols)
EMULATOR_LIBRARY := $(EMULATOR_DIR)/libdilconv_cuda_host.so
# What the emulator counts, for make cuda-figures.
CUDA_TRAFFIC := $(if $(HAS_BOOST),$(EMULATOR_DIR)/traffic.json)

# Small problems are cut into tiles, and their sums split, as large ones are for a GPU.
$(EMULATOR_DIR)/csrc/cuda/gemm/planner.o: EMULATOR_FLAGS += -DDILCONV_BUSY_BLOCKS=4 \
  -DDILCONV_FEWEST_PRODUCTS=128

$(EMULATOR_DIR)/csrc/%.o: csrc/%.cu
	@mkdir -p $(@D)
	$(CXX) $(EMULATOR_FLAGS) $(SANITIZE) $(SANITIZE_KERNELS) -MMD -MP -x c++ -c -o $@ $<

$(EMULATOR_DIR)/csrc/%.o: csrc/%.cpp
	@mkdir -p $(@D)
	$(CXX) $(EMULATOR_FLAGS) $(SANITIZE) -MMD -MP -c -o $@ $<

$(EMULATOR_DIR)/selftest%o: tests/cuda_emulator/selftest%cpp
	@mkdir -p $(@D)
	$(CXX) $(EMULATOR_FLAGS) $(SANITIZE) $(SANITIZE_KERNELS) -MMD -MP -c -o $@ $<

$(EMULATOR_DIR)/%.o: tests/cuda_emulator/%.cpp
	@mkdir -p $(@D)
	$(CXX) $(EMULATOR_FLAGS) $(SANITIZE) -MMD -MP -c -o $@ $<

$(EMULATOR_DIR)/check.o: tests/kernels/check.cpp
	@mkdir -p $(@D)
	$(CXX) $(EMULATOR_FLAGS) $(SANITIZE) -MMD -MP -c -o $@ $<

$(EMULATOR_LIBRARY): $(EMULATED) $(EMULATOR)
	$(CXX) -shared $(SANITIZE) $(SANITIZE_KERNELS) -Wl,-soname,$(@F) -o $@ $^ -lboost_context -ldl

$(EMULATOR_DIR)/check: $(EMULATOR_DIR)/check.o $(EMULATOR_DIR)/machine_cuda.o $(EMULATOR_LIBRARY)
	$(CXX) $(SANITIZE) $(SANITIZE_KERNELS) -o $@ $^ -Wl,--enable-new-dtags,-rpath,'$$ORIGIN'

$(EMULATOR_DIR)/figures: $(EMULATOR_DIR)/figures.o $(EMULATOR_LIBRARY)
	$(CXX) $(SANITIZE) $(SANITIZE_KERNELS) -o $@ $^ -Wl,--enable-new-dtags,-rpath,'$$ORIGIN'

$(EMULATOR_DIR)/traffic.json: $(EMULATOR_DIR)/figures
	$< > $@

$(EMULATOR_DIR)/selftest: $(EMULATOR_DIR)/selftest.o $(EMULATOR_DIR)/selftest_matrices.o \
  $(filter-out %/oracle.o,$(EMULATOR))
	$(CXX) $(SANITIZE) $(SANITIZE_KERNELS) -o $@ $^ -lboost_context -ldl

-include $(wildcard $(EMULATOR_DIR)/*.d) $(EMULATED:.o=.d)

.PHONY: emulator check-cuda check-cuda-sanitized check-cuda-races
ifeq ($(HAS_BOOST),yes)
emulator: ## build the GPU's kernels for the host, and the GPU that is emulated there
	@$(MAKE) --no-print-directory -j$(JOBS) $(EMULATOR_LIBRARY) $(EMULATOR_DIR)/check

test: emulator

# CHECK goes to the check: --every n takes one case in n.
check-cuda: emulator ## run the GPU's kernels on the host, under the emulator and its checks
	@$(MAKE) --no-print-directory -j$(JOBS) $(EMULATOR_DIR)/selftest
	$(EMULATOR_DIR)/selftest
	$(EMULATOR_DIR)/check --jobs $(JOBS) $(CHECK)

# AddressSanitizer and UndefinedBehaviorSanitizer look at what the emulator cannot: the kernels' own
# variables and arithmetic. ThreadSanitizer takes each fiber for a thread and each barrier for what
# orders them. So far it is held to a planted race alone: on the kernels it also reports the emulator's
# warp-wide functions, whose last lane computes for all from their variables.
check-cuda-sanitized: ## the same, built with sanitizers
	@$(MAKE) --no-print-directory EMULATOR_DIR=build/emulator-asan EMULATOR_OPTIMISE=-O1 check-cuda \
	  SANITIZE='-fsanitize=address,undefined -fno-sanitize-recover=undefined'
	@$(MAKE) --no-print-directory EMULATOR_DIR=build/emulator-tsan EMULATOR_OPTIMISE=-O1 check-cuda-races \
	  SANITIZE_KERNELS=-fsanitize=thread SANITIZE=-DCUDA_EMULATOR_TSAN

# In this build the emulator does not look for races itself. The run must find one.
check-cuda-races: emulator
	@$(MAKE) --no-print-directory -j$(JOBS) $(EMULATOR_DIR)/selftest
	! $(EMULATOR_DIR)/selftest race > $(EMULATOR_DIR)/race.log 2>&1
	grep -q exchange_without_barrier $(EMULATOR_DIR)/race.log

else
emulator check-cuda check-cuda-sanitized:
	@echo 'SKIPPED $@: it needs Boost.Context (apt install libboost-context-dev)' >&2
	@test -z "$$CI"
endif
