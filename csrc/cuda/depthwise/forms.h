// The forms of the depthwise kernel; depthwise.cpp chooses one by the layout. All take any layout.
#pragma once

#include "../../core/kernel.h"

namespace dilconv::cuda::depthwise {

// conv2d and grad_input. Planes: lanes hold neighbouring columns; there must be a tile that fits
// shared memory. Pixels: lanes hold neighbouring channels.
bool planes_fit(const ConvProblem& problem);
void run_planes(const ConvProblem& problem, const Tensors& tensors, void* stream);
void run_pixels(const ConvProblem& problem, const Tensors& tensors, void* stream);

// grad_weight, likewise.
bool planes_weight_fit(const ConvProblem& problem);
size_t planes_weight_workspace(const ConvProblem& problem);
void run_planes_weight(const ConvProblem& problem, const Tensors& tensors, void* stream);
size_t pixels_weight_workspace(const ConvProblem& problem);
void run_pixels_weight(const ConvProblem& problem, const Tensors& tensors, void* stream);

}  // namespace dilconv::cuda::depthwise
