#include "capture/torch_seam.hpp"

#include <algorithm>

#include "copy/dtype.hpp"
#include "device/torch_services.hpp"
#include "python/python_error.hpp"
#include "support/error.hpp"

namespace nntap::torch_seam {
namespace {

// Owned for the life of the process; torch cannot be unloaded either.
struct Torch {
  const DLPackExchangeAPI* api = nullptr;  // null where this torch has none
  PyObject* tensor = nullptr;
  PyObject* parameter = nullptr;
  PyObject* is_conj = nullptr;
  PyObject* is_neg = nullptr;
  PyObject* dtype = nullptr;    // the name "dtype"
  PyObject* version = nullptr;  // the name "_version"
  PyObject* inference_mode = nullptr;
  PyObject* is_inference_mode = nullptr;
  PyObject* no_dispatch = nullptr;  // torch._C._DisableTorchDispatch, or null
  PyObject* int8 = nullptr;
  PyObject* uint8 = nullptr;
} torch;

// What a torch tensor that views a record owns; torch calls the deleter on any thread, with or without the GIL.
struct Export {
  DLManagedTensorVersioned managed{};
  std::shared_ptr<Record> record;
};

void delete_export(DLManagedTensorVersioned* managed) { delete static_cast<Export*>(managed->manager_ctx); }

PyObject* keep(PyObject* owner, const char* name) { return checked(PyObject_GetAttrString(owner, name)).release(); }

// The newest API in torch's chain whose structures this build knows; null where torch has no chain.
const DLPackExchangeAPI* find_api(PyObject* tensor_type) {
  const char* const name = "__dlpack_c_exchange_api__";
  if (PyObject_HasAttrString(tensor_type, name) == 0) return nullptr;
  const Ref capsule = checked(PyObject_GetAttrString(tensor_type, name));
  auto* header = static_cast<DLPackExchangeAPIHeader*>(PyCapsule_GetPointer(capsule.get(), "dlpack_exchange_api"));
  if (header == nullptr) throw PythonErrorSet{};
  while (header != nullptr && header->version.major != DLPACK_MAJOR_VERSION) header = header->prev_api;
  const auto* api = reinterpret_cast<const DLPackExchangeAPI*>(header);
  const bool usable = api != nullptr && api->dltensor_from_py_object_no_sync != nullptr;
  NNTAP_CHECK(usable, std::runtime_error, "torch offers no DLPack exchange API of version ", DLPACK_MAJOR_VERSION,
              " that reads tensors in place");
  return api;
}

// A bit of the tensor that DLPack does not carry. An error counts as set, so that torch decides.
bool bit_is_set(PyObject* question, PyObject* tensor) {
  const Ref answer = Ref::steal(PyObject_CallOneArg(question, tensor));
  if (!answer) PyErr_Clear();
  return answer.get() != Py_False;
}

// Sub-byte integers are reported as 8-bit ones.
bool is_plain_byte(PyObject* tensor) {
  const Ref dtype = Ref::steal(PyObject_GetAttr(tensor, torch.dtype));
  if (!dtype) PyErr_Clear();
  return dtype.get() == torch.int8 || dtype.get() == torch.uint8;
}

int current_stream(DLDeviceType type, int device, void** stream) {
  if (torch.api == nullptr) return -1;
  const int result = torch.api->current_work_stream(type, device, stream);
  if (result != 0) PyErr_Clear();
  return result;
}

// For as long as it lives this thread's dispatch modes see nothing: they are Python, and whoever allocates holds locks.
Ref without_dispatch_modes() noexcept {
  if (torch.no_dispatch == nullptr) return {};
  Ref guard = Ref::steal(PyObject_CallNoArgs(torch.no_dispatch));
  if (!guard) PyErr_Clear();
  return guard;
}

DeviceMemory allocate(DLDevice device, std::size_t bytes) noexcept {
  if (torch.api == nullptr) return {};
  const Ref no_modes = without_dispatch_modes();
  auto size = static_cast<std::int64_t>(bytes);
  DLTensor prototype{};
  prototype.device = device;
  prototype.dtype = {kDLUInt, 8, 1};
  prototype.ndim = 1;
  prototype.shape = &size;
  DLManagedTensorVersioned* made = nullptr;
  const auto ignore = [](void*, const char*, const char*) {};
  if (torch.api->managed_tensor_allocator(&prototype, &made, nullptr, ignore) != 0) return {};
  return DeviceMemory(made);
}

// A scope in which new tensors are ordinary ones, whoever reads in which mode: torch.inference_mode(False) where
// needed.
class OrdinaryTensors {
 public:
  OrdinaryTensors() {
    if (!is_true(checked(PyObject_CallNoArgs(torch.is_inference_mode)).get())) return;
    mode_ = checked(PyObject_CallOneArg(torch.inference_mode, Py_False));
    checked(PyObject_CallMethod(mode_.get(), "__enter__", nullptr));
  }
  OrdinaryTensors(const OrdinaryTensors&) = delete;
  OrdinaryTensors& operator=(const OrdinaryTensors&) = delete;
  ~OrdinaryTensors() {
    if (!mode_) return;
    const ErrorSetAside aside;
    const Ref left = Ref::steal(PyObject_CallMethod(mode_.get(), "__exit__", "OOO", Py_None, Py_None, Py_None));
    if (!left) PyErr_Clear();
  }

 private:
  Ref mode_;
};

bool has_elements(const DLTensor& tensor) {
  return std::all_of(tensor.shape, tensor.shape + tensor.ndim, [](std::int64_t size) { return size > 0; });
}

}  // namespace

void connect(PyObject* module) {
  if (connected()) return;
  Torch found;
  found.tensor = keep(module, "Tensor");
  found.api = find_api(found.tensor);
  const Ref nn = checked(PyObject_GetAttrString(module, "nn"));
  found.parameter = keep(nn.get(), "Parameter");
  found.is_conj = keep(found.tensor, "is_conj");
  found.is_neg = keep(found.tensor, "is_neg");
  found.dtype = interned("dtype");
  found.version = interned("_version");
  found.inference_mode = keep(module, "inference_mode");
  found.is_inference_mode = keep(module, "is_inference_mode_enabled");
  const Ref internals = checked(PyObject_GetAttrString(module, "_C"));
  if (PyObject_HasAttrString(internals.get(), "_DisableTorchDispatch") != 0) {
    found.no_dispatch = keep(internals.get(), "_DisableTorchDispatch");
  }
  found.int8 = keep(module, "int8");
  found.uint8 = keep(module, "uint8");
  torch = found;
  torch_services.current_stream = current_stream;
  torch_services.allocate = allocate;
}

bool connected() { return torch.tensor != nullptr; }

bool is_tensor(PyObject* object) { return PyObject_TypeCheck(object, reinterpret_cast<PyTypeObject*>(torch.tensor)); }

const char* view(PyObject* tensor, TensorView& out) {
  if (torch.api == nullptr) return "torch without a DLPack exchange API";
  const auto* type = reinterpret_cast<PyObject*>(Py_TYPE(tensor));
  if (type != torch.tensor && type != torch.parameter) return "tensor subclass";
  DLTensor seen{};
  if (torch.api->dltensor_from_py_object_no_sync(tensor, &seen) != 0) {
    PyErr_Clear();
    return "layout or dtype DLPack cannot carry";
  }
  if (seen.data == nullptr && has_elements(seen)) return "no memory of its own";
  if (seen.ndim > kMaxDims) return "more than 8 dimensions";
  if (seen.dtype.code == kDLComplex && bit_is_set(torch.is_conj, tensor)) return "conjugate view";
  if (seen.dtype.code != kDLBool && bit_is_set(torch.is_neg, tensor)) return "negative view";
  const bool byte = seen.dtype.bits == 8 && (seen.dtype.code == kDLInt || seen.dtype.code == kDLUInt);
  if (byte && !is_plain_byte(tensor)) return "sub-byte integers";
  out.data = static_cast<const char*>(seen.data) + seen.byte_offset;
  out.device = seen.device;
  out.dtype = seen.dtype;
  out.layout.assign(seen.ndim, seen.shape, seen.strides);
  return nullptr;
}

std::int64_t version(PyObject* tensor) {
  const Ref number = Ref::steal(PyObject_GetAttr(tensor, torch.version));
  const long long version = number ? PyLong_AsLongLong(number.get()) : -1;
  if (PyErr_Occurred()) PyErr_Clear();
  return version;
}

Ref to_tensor(const std::shared_ptr<Record>& record) {
  auto made = std::make_unique<Export>();
  made->record = record;
  DLManagedTensorVersioned& managed = made->managed;
  managed.version = {DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION};
  managed.manager_ctx = made.get();
  managed.deleter = delete_export;
  managed.dl_tensor.data = record->data();
  managed.dl_tensor.device = record->device;
  managed.dl_tensor.ndim = record->layout.ndim;
  managed.dl_tensor.dtype = record->dtype;
  managed.dl_tensor.shape = record->layout.shape.data();
  managed.dl_tensor.strides = record->layout.strides.data();
  Ref tensor = to_tensor(&managed);
  (void)made.release();
  return tensor;
}

Ref to_tensor(DLManagedTensorVersioned* memory) {
  NNTAP_CHECK(torch.api != nullptr, std::runtime_error, "this torch has no DLPack exchange API");
  void* tensor = nullptr;
  const OrdinaryTensors mode;
  if (torch.api->managed_tensor_to_py_object_no_sync(memory, &tensor) != 0) throw PythonErrorSet{};
  return Ref::steal(static_cast<PyObject*>(tensor));
}

}  // namespace nntap::torch_seam
