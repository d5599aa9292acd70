#include "nnsight/handle.hpp"

#include "nnsight/interleaver.hpp"
#include "nnsight/replacement.hpp"

namespace nntap {
namespace {

PyTypeObject* handle_type = nullptr;  // owned, for the life of the process

PyObject* call(PyObject* self, PyObject* const* args, size_t nargsf, PyObject* kwnames) {
  return guarded([&]() -> PyObject* {
    const bool as_expected = PyVectorcall_NARGS(nargsf) == 3 && kwnames == nullptr;
    if (as_expected && interleaver::pass(args[0], args[1], [&] { return Ref::share(args[2]); }))
      return Py_NewRef(args[2]);
    return call_original(self, args, nargsf, kwnames);
  });
}

}  // namespace

bool is_handle(PyObject* object) { return Py_IS_TYPE(object, handle_type); }

void init_handle_type(PyObject* module) {
  interleaver::init_names();
  handle_type = add_replacement_type(module, "nntap._core.Handle", "What stands for nnsight's Interleaver.handle.",
                                     make_replacement<call>);
}

}  // namespace nntap
