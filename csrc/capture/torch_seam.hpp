#pragma once

// The seam to torch: the only place that knows the DLPack exchange API and what it leaves out. Links no libtorch.

#include <cstdint>
#include <memory>

#include "copy/record.hpp"
#include "copy/tensor_view.hpp"
#include "python/python.hpp"

namespace nntap::torch_seam {

/// Learns torch's types and functions. Where `torch.Tensor` has no exchange API, no tensor takes the fast path. Raises
/// RuntimeError when it has one, but not of this version.
void connect(PyObject* torch_module);
bool connected();

/// Whether it is a torch.Tensor, or of a subclass.
bool is_tensor(PyObject* object);

/// Why a tensor cannot take the fast path; null means that `out` was filled. The texts are the keys of
/// `stats.slow`. Never leaves a Python error set.
const char* view(PyObject* tensor, TensorView& out);

/// How often torch has seen the tensor change in place, or -1 where it does not count (inference tensors).
std::int64_t version(PyObject* tensor);

/// A new torch tensor that views the record and keeps it alive. Its storage is exactly the record. Throws.
Ref to_tensor(const std::shared_ptr<Record>& record);

/// The same of any memory. torch owns it from then on; when it refuses, and this throws, it is still the caller's.
Ref to_tensor(DLManagedTensorVersioned* memory);

}  // namespace nntap::torch_seam
