#include "capture/ticket.hpp"

#include <new>

#include "capture/torch_seam.hpp"
#include "python/python_error.hpp"
#include "python/weak_reference.hpp"
#include "support/error.hpp"

namespace nntap {
namespace {

struct Ticket {
  PyObject_HEAD
  std::shared_ptr<Record> record;
  PyObject* tensor;  // a weak reference, owned; null until redeemed
};

PyTypeObject* ticket_type = nullptr;  // owned for the life of the process

void ticket_dealloc(PyObject* self) {
  auto* ticket = reinterpret_cast<Ticket*>(self);
  PyTypeObject* type = Py_TYPE(self);
  ticket->record->ticket = nullptr;  // first: freeing the tensor may run Python code that wants a ticket
  Py_XDECREF(ticket->tensor);
  ticket->record.~shared_ptr();
  PyObject_Free(self);
  Py_DECREF(type);
}

PyType_Slot slots[] = {
    {Py_tp_dealloc, reinterpret_cast<void*>(ticket_dealloc)},
    {Py_tp_doc, const_cast<char*>("A recorded tensor that nobody has read yet.")},
    {0, nullptr},
};
PyType_Spec spec = {"nntap._core.Ticket", sizeof(Ticket), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                    slots};

}  // namespace

void init_ticket_type() { ticket_type = reinterpret_cast<PyTypeObject*>(checked(PyType_FromSpec(&spec)).release()); }

Ref ticket_for(std::shared_ptr<Record> record) {
  if (record->ticket != nullptr) return Ref::share(static_cast<PyObject*>(record->ticket));
  auto* ticket = PyObject_New(Ticket, ticket_type);
  if (ticket == nullptr) throw PythonErrorSet{};
  new (&ticket->record) std::shared_ptr<Record>(std::move(record));
  ticket->tensor = nullptr;
  ticket->record->ticket = ticket;
  return Ref::steal(reinterpret_cast<PyObject*>(ticket));
}

bool is_ticket(PyObject* object) { return Py_IS_TYPE(object, ticket_type); }

Ref redeem(PyObject* self) {
  auto* ticket = reinterpret_cast<Ticket*>(self);
  Record& record = *ticket->record;
  if (const auto landing = record.landing) {
    {
      const WithoutGil others_run;
      landing->wait();
    }
    record.landing.reset();
  }
  NNTAP_CHECK(record.nbytes == 0 || record.data() != nullptr, std::runtime_error, "a record was never copied");
  if (Ref known = referent(ticket->tensor)) return known;
  Ref made = torch_seam::to_tensor(ticket->record);
  if (Ref known = referent(ticket->tensor)) return known;  // another thread was faster
  Py_XSETREF(ticket->tensor, checked(PyWeakref_NewRef(made.get(), nullptr)).release());
  return made;
}

}  // namespace nntap
