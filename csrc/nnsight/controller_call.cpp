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
  PyObject *state, *module_ref, *routes, *interleaving, *busy, *handle, *body, *dict, *device_hook, *observers;
} names;

// A run whose workers have all come to their end: nobody can wait anywhere, so nobody can tell how often a location was
// visited either, and the observers are all there is.
struct QuietRun {
  Ref interleaver;
  Ref observers;  // a dict
};

// Guarded by the GIL. At most one for each trace that is running.
std::vector<QuietRun> quiet_runs;

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
  Ref quiet_observers;  // where the run is quiet
};

Ref observers_where_quiet(PyObject* interleaver) {
  for (const QuietRun& run : quiet_runs) {
    if (run.interleaver.get() == interleaver) return run.observers;
  }
  return {};
}

// False while nnsight stands down: a call of an envoy inside the run that is no part of it.
bool is_interleaving(PyObject* interleaver) { return is_true(attribute(interleaver, names.interleaving).get()); }

bool is_busy(PyObject* interleaver) { return is_true(attribute(interleaver, names.busy).get()); }

// The interleaver whose trace is running on the module, as `State.active()` finds it; empty where there is none.
Route active_route(PyObject* state) {
  const Ref routes = attribute(state, names.routes);
  NNTAP_CHECK(PyList_Check(routes.get()), InvalidArgument, "State.routes is no list");
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(routes.get()); ++i) {
    const Ref route = Ref::share(PyList_GET_ITEM(routes.get(), i));
    NNTAP_CHECK(PyTuple_Check(route.get()) && PyTuple_GET_SIZE(route.get()) == 3, InvalidArgument,
                "an entry of State.routes is no (interleaver, path, locations)");
    Ref interleaver = checked(PyObject_CallNoArgs(PyTuple_GET_ITEM(route.get(), 0)));
    if (interleaver.get() == Py_None) continue;
    if (!is_interleaving(interleaver.get())) continue;
    Ref quiet_observers = observers_where_quiet(interleaver.get());
    if (!quiet_observers && !is_busy(interleaver.get())) continue;
    PyObject* locations = PyTuple_GET_ITEM(route.get(), 2);
    NNTAP_CHECK(PyTuple_Check(locations) && PyTuple_GET_SIZE(locations) == 3, InvalidArgument,
                "the locations of a route are no (input, skip, output)");
    return {std::move(interleaver), Ref::share(PyTuple_GET_ITEM(locations, 0)),
            Ref::share(PyTuple_GET_ITEM(locations, 1)), Ref::share(PyTuple_GET_ITEM(locations, 2)),
            std::move(quiet_observers)};
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
  if (route.quiet_observers) {
    if (const Ref seen = item(route.quiet_observers.get(), route.input.get())) {
      interleaver::show_whole(seen.get(), packed(given).get());
    }
    return true;
  }
  if (!has_our_handle(interleaver)) return false;
  if (interleaver::is_awaited(interleaver, route.skip.get())) return false;
  if (interleaver::observers_of(interleaver, route.skip.get())) return false;
  if (!interleaver::pass(interleaver, route.input.get(), [&] { return packed(given); })) return false;
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

// Visits the output; gives it back, edited if a worker waited for it.
Ref leave(const Route& route, Ref output) {
  PyObject* interleaver = route.interleaver.get();
  // Looked for anew: the run may have changed while the module's forward ran.
  if (const Ref observers = observers_where_quiet(interleaver)) {
    if (const Ref seen = item(observers.get(), route.output.get())) {
      interleaver::show_whole(seen.get(), output.get());
    }
    return output;
  }
  if (interleaver::pass(interleaver, route.output.get(), [&] { return output; })) return output;
  return checked(PyObject_CallMethodObjArgs(interleaver, names.handle, route.output.get(), output.get(), nullptr));
}

// What the module gives back, or an empty reference where nnsight has to run it.
Ref run(const Arguments& given) {
  const Ref state = attribute(given.controller(), names.state);
  const Ref module = checked(PyObject_CallNoArgs(attribute(given.controller(), names.module_ref).get()));
  if (module.get() == Py_None || has_device_hook(module.get())) return {};
  const Route route = active_route(state.get());
  if (!route.interleaver) return run_body(state.get(), module.get(), given);
  if (!enter(route, given)) return {};
  return leave(route, run_body(state.get(), module.get(), given));
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

void begin_quiet_run(PyObject* interleaver) {
  end_quiet_run(interleaver);
  Ref observers = attribute(interleaver, names.observers);
  NNTAP_CHECK(PyDict_Check(observers.get()), InvalidArgument, "Interleaver.observers is no dict");
  quiet_runs.push_back({Ref::share(interleaver), std::move(observers)});
}

void end_quiet_run(PyObject* interleaver) {
  const auto mine = std::find_if(quiet_runs.begin(), quiet_runs.end(),
                                 [=](const QuietRun& run) { return run.interleaver.get() == interleaver; });
  if (mine == quiet_runs.end()) return;
  const QuietRun gone = std::move(*mine);  // let go of at the end, when the list is whole again
  quiet_runs.erase(mine);
}

void init_controller_call_type(PyObject* module) {
  names = {interned("state"),    interned("module_ref"), interned("routes"), interned("interleaving"),
           interned("busy"),     interned("handle"),     interned("body"),   interned("__dict__"),
           interned("_hf_hook"), interned("observers")};
  add_replacement_type(module, "nntap._core.ControllerCall", "What stands for nnsight's Controller.__call__.",
                       make_replacement<call>);
}

}  // namespace nntap
