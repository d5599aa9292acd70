#include "nnsight/controller_call.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "nnsight/handle.hpp"
#include "nnsight/interleaver.hpp"
#include "nnsight/replacement.hpp"
#include "support/error.hpp"

namespace nntap {
namespace {

// Interned, for the life of the process.
struct Names {
  PyObject *state, *module_ref, *routes, *interleaving, *busy, *handle, *body, *dict, *device_hook;
} names;

// The arguments of a call as Python hands them over: the controller first.
struct Arguments {
  PyObject* const* values;
  Py_ssize_t positional;
  PyObject* keywords;  // a tuple of names, or null

  Py_ssize_t named() const { return keywords == nullptr ? 0 : PyTuple_GET_SIZE(keywords); }
  PyObject* controller() const { return values[0]; }
};

// Where a module's three visits go.
struct Route {
  Ref interleaver, input, skip, output;
};

// The interleaver whose trace is running on the module, as `State.active()` finds it; empty where there is none.
Route active_route(PyObject* state) {
  const Ref routes = attribute(state, names.routes);
  NNTAP_CHECK(PyList_Check(routes.get()), InvalidArgument, "State.routes is no list");
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(routes.get()); ++i) {
    const Ref route = Ref::share(PyList_GET_ITEM(routes.get(), i));
    NNTAP_CHECK(PyTuple_Check(route.get()) && PyTuple_GET_SIZE(route.get()) == 3, InvalidArgument,
                "an entry of State.routes is no (interleaver, path, locations)");
    Ref interleaver = checked(PyObject_CallNoArgs(PyTuple_GET_ITEM(route.get(), 0)));
    if (interleaver.get() == Py_None || !is_true(attribute(interleaver.get(), names.interleaving).get()) ||
        !is_true(attribute(interleaver.get(), names.busy).get())) {
      continue;
    }
    PyObject* locations = PyTuple_GET_ITEM(route.get(), 2);
    NNTAP_CHECK(PyTuple_Check(locations) && PyTuple_GET_SIZE(locations) == 3, InvalidArgument,
                "the locations of a route are no (input, skip, output)");
    return {std::move(interleaver), Ref::share(PyTuple_GET_ITEM(locations, 0)),
            Ref::share(PyTuple_GET_ITEM(locations, 1)), Ref::share(PyTuple_GET_ITEM(locations, 2))};
  }
  return {};
}

// Whether `interleaver.handle` is the core's, and not that of a runtime that derives from the Interleaver.
bool has_our_handle(PyObject* interleaver) {
  const Ref method = attribute(interleaver, names.handle);
  return PyMethod_Check(method.get()) && is_handle(PyMethod_GET_FUNCTION(method.get()));
}

// The (args, kwargs) pair that nnsight shows of a call.
Ref packed(const Arguments& given) {
  const Ref args = checked(PyTuple_New(given.positional - 1));
  for (Py_ssize_t i = 1; i < given.positional; ++i) {
    PyTuple_SET_ITEM(args.get(), i - 1, Py_NewRef(given.values[i]));
  }
  const Ref kwargs = checked(PyDict_New());
  for (Py_ssize_t i = 0; i < given.named(); ++i) {
    checked(PyDict_SetItem(kwargs.get(), PyTuple_GET_ITEM(given.keywords, i), given.values[given.positional + i]));
  }
  return checked(PyTuple_Pack(2, args.get(), kwargs.get()));
}

// Visits the input and the skip gate. False, with nothing done, where these visits are nnsight's own.
bool enter(const Route& route, const Arguments& given) {
  PyObject* interleaver = route.interleaver.get();
  if (interleaver::is_awaited(interleaver, route.skip.get())) return false;
  if (interleaver::observers_of(interleaver, route.skip.get())) return false;
  const bool is_seen = static_cast<bool>(interleaver::observers_of(interleaver, route.input.get()));
  const Ref value = is_seen ? packed(given) : Ref::share(Py_None);
  if (!interleaver::pass(interleaver, route.input.get(), value.get())) return false;
  interleaver::count_visit(interleaver, route.skip.get());
  return true;
}

// accelerate's hook moves the arguments of a module between devices; nnsight calls it around the body.
bool has_device_hook(PyObject* module) {
  const Ref attributes = attribute(module, names.dict);
  const int found = PySequence_Contains(attributes.get(), names.device_hook);
  checked(found);
  return found != 0;
}

// The module's own forward, with the module in the controller's place.
Ref run_body(PyObject* state, PyObject* module, const Arguments& given) {
  const Ref body = attribute(state, names.body);
  const auto count = static_cast<std::size_t>(given.positional + given.named());
  std::array<PyObject*, 16> few;
  std::vector<PyObject*> many(count > few.size() ? count : 0);
  PyObject** values = many.empty() ? few.data() : many.data();
  std::copy_n(given.values, count, values);
  values[0] = module;
  return checked(PyObject_Vectorcall(body.get(), values, static_cast<std::size_t>(given.positional), given.keywords));
}

// What the module gives back, or an empty reference where nnsight has to run it.
Ref run(const Arguments& given) {
  const Ref state = attribute(given.controller(), names.state);
  const Ref module = checked(PyObject_CallNoArgs(attribute(given.controller(), names.module_ref).get()));
  if (module.get() == Py_None || has_device_hook(module.get())) return {};
  const Route route = active_route(state.get());
  if (!route.interleaver) return run_body(state.get(), module.get(), given);
  if (!has_our_handle(route.interleaver.get()) || !enter(route, given)) return {};
  Ref output = run_body(state.get(), module.get(), given);
  if (interleaver::pass(route.interleaver.get(), route.output.get(), output.get())) return output;
  return checked(
      PyObject_CallMethodObjArgs(route.interleaver.get(), names.handle, route.output.get(), output.get(), nullptr));
}

PyObject* call(PyObject* self, PyObject* const* args, size_t nargsf, PyObject* kwnames) {
  return guarded([&]() -> PyObject* {
    const Arguments given{args, PyVectorcall_NARGS(nargsf), kwnames};
    if (given.positional > 0) {
      if (Ref output = run(given)) return output.release();
    }
    return call_original(self, args, nargsf, kwnames);
  });
}

}  // namespace

void init_controller_call_type(PyObject* module) {
  names = {interned("state"),  interned("module_ref"), interned("routes"),   interned("interleaving"), interned("busy"),
           interned("handle"), interned("body"),       interned("__dict__"), interned("_hf_hook")};
  add_replacement_type(module, "nntap._core.ControllerCall", "What stands for nnsight's Controller.__call__.",
                       make_replacement<call>);
}

}  // namespace nntap
