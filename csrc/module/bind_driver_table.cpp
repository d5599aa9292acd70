// The entries of the simulated driver's table, as Python calls them: results that the driver writes through pointers
// come back as values, everything else is given as it is, pointers and handles as whole numbers.

#include <string>
#include <tuple>
#include <type_traits>

#include "device/sim/active.hpp"
#include "module/bind.hpp"
#include "support/error.hpp"

namespace py = pybind11;

namespace nntap {
namespace {

using Address = std::uintptr_t;

template <typename T>
py::object to_python(T value) {
  if constexpr (std::is_same_v<T, const char*>) {
    return value == nullptr ? py::object(py::none()) : py::object(py::str(value));
  } else if constexpr (std::is_pointer_v<T>) {
    return py::int_(reinterpret_cast<Address>(value));
  } else {
    return py::int_(value);
  }
}

class Arguments {
 public:
  explicit Arguments(const py::args& given) : given_(given) {}

  py::handle next() {
    NNTAP_CHECK(at_ < given_.size(), InvalidArgument, "this entry takes more than ", given_.size(), " arguments");
    return given_[at_++];
  }
  void require_no_more() const {
    NNTAP_CHECK(at_ == given_.size(), InvalidArgument, "this entry takes ", at_, " arguments, not ", given_.size());
  }

 private:
  const py::args& given_;
  std::size_t at_ = 0;
};

/// A parameter that is given.
template <typename T>
struct Slot {
  explicit Slot(Arguments& arguments) {
    if constexpr (std::is_same_v<T, const char*>) {
      held = arguments.next().cast<std::string>();
    } else if constexpr (std::is_pointer_v<T>) {
      value = reinterpret_cast<T>(arguments.next().cast<Address>());
    } else {
      value = arguments.next().cast<T>();
    }
  }
  T pass() {
    if constexpr (std::is_same_v<T, const char*>) return held.c_str();
    return value;
  }
  void append_to(py::list&) {}

  T value{};
  std::string held;
};

/// A parameter through which the driver gives a result.
template <typename T>
struct ResultSlot {
  explicit ResultSlot(Arguments&) {}
  T* pass() { return &value; }
  void append_to(py::list& out) { out.append(to_python(value)); }

  T value{};
};

template <>
struct Slot<int*> : ResultSlot<int> {
  using ResultSlot::ResultSlot;
};
template <>
struct Slot<std::size_t*> : ResultSlot<std::size_t> {
  using ResultSlot::ResultSlot;
};
template <>
struct Slot<const char**> : ResultSlot<const char*> {
  using ResultSlot::ResultSlot;
};
template <>
struct Slot<cuda::Context*> : ResultSlot<cuda::Context> {
  using ResultSlot::ResultSlot;
};
template <>
struct Slot<cuda::Stream*> : ResultSlot<cuda::Stream> {
  using ResultSlot::ResultSlot;
};
template <>
struct Slot<cuda::Event*> : ResultSlot<cuda::Event> {
  using ResultSlot::ResultSlot;
};
template <>
struct Slot<cuda::Module*> : ResultSlot<cuda::Module> {
  using ResultSlot::ResultSlot;
};
template <>
struct Slot<cuda::Function*> : ResultSlot<cuda::Function> {
  using ResultSlot::ResultSlot;
};

template <typename... Parameters>
py::object call(cuda::Result (*entry)(Parameters...), const py::args& given) {
  Arguments arguments(given);
  std::tuple<Slot<Parameters>...> slots{Slot<Parameters>(arguments)...};  // braces: from left to right
  arguments.require_no_more();
  cuda::Result result;
  {
    const py::gil_scoped_release released;
    result = std::apply([&](auto&... slot) { return entry(slot.pass()...); }, slots);
  }
  py::list out;
  out.append(result);
  std::apply([&](auto&... slot) { (slot.append_to(out), ...); }, slots);
  return out.size() == 1 ? py::object(out[0]) : py::object(py::tuple(out));
}

py::object driver_call(const std::string& name, const py::args& arguments) {
  const cuda::Driver& table = *sim::platform().driver;
#define NNTAP_ENTRY(entry, symbol, parameters) \
  if (name == #entry) return call(table.entry, arguments);
  NNTAP_CUDA_DRIVER(NNTAP_ENTRY)
#undef NNTAP_ENTRY
  throw InvalidArgument(text("the driver table has no entry '", name, "'"));
}

}  // namespace

void bind_driver_table(py::module_& testing) {
  testing.def("driver_call", driver_call, py::arg("entry"), py::pos_only(),
              "Calls an entry of the simulated driver's table. Returns its result, or a tuple of it and what it gave.");
}

}  // namespace nntap
