#include <new>

#include "bindings/module.h"

namespace pycnn::bindings {
namespace {

void set_python_error(const char* name, const char* text) {
  py::object type = py::module_::import("pycnn.errors").attr(name);
  PyErr_SetString(type.ptr(), text);
}

// OSError fills errno and filename from its arguments, so it is made with them.
void set_python_error(const FileError& error) {
  py::object type = py::module_::import("pycnn.errors").attr("FileError");
  py::object value = type(error.code(), error.what(), error.path());
  PyErr_SetObject(type.ptr(), value.ptr());
}

void set_python_error(const MemoryLimitError& error) {
  py::object type = py::module_::import("pycnn.errors").attr("MemoryLimitError");
  py::object value = type(error.what());
  value.attr("wanted_bytes") = error.wanted_bytes();
  value.attr("available_bytes") = error.available_bytes();
  PyErr_SetObject(type.ptr(), value.ptr());
}

}  // namespace

void bind_errors(py::module_&) {
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const ShapeError& e) {
      set_python_error("ShapeError", e.what());
    } catch (const DTypeError& e) {
      set_python_error("DTypeError", e.what());
    } catch (const ArgumentError& e) {
      set_python_error("ArgumentError", e.what());
    } catch (const GraphError& e) {
      set_python_error("GraphError", e.what());
    } catch (const DeviceError& e) {
      set_python_error("DeviceError", e.what());
    } catch (const FormatError& e) {
      set_python_error("FormatError", e.what());
    } catch (const UnsupportedError& e) {
      set_python_error("UnsupportedError", e.what());
    } catch (const LabelError& e) {
      set_python_error("LabelError", e.what());
    } catch (const FileError& e) {
      set_python_error(e);
    } catch (const MemoryLimitError& e) {
      set_python_error(e);
    } catch (const TrainingError& e) {
      set_python_error("TrainingError", e.what());
    } catch (const InternalError& e) {
      set_python_error("InternalError", e.what());
    } catch (const Error& e) {
      set_python_error("Error", e.what());
    } catch (const std::bad_alloc&) {
      // Small things that the core could not have; large ones are MemoryLimitErrors already.
      set_python_error("MemoryLimitError", "pycnn: the machine has no memory left");
    }
  });
}

}  // namespace pycnn::bindings
