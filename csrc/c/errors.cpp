// Exceptions become a status and a text of the thread that called.
#include <algorithm>
#include <cstring>
#include <exception>
#include <new>

#include "c/handles.h"

namespace pycnn::c {
namespace {

// Of fixed size, for a failure must be told also when there is no memory left.
struct Failure {
  char text[4096] = "";
  std::int32_t code = 0;
  std::size_t wanted_bytes = 0;
};
thread_local Failure last;

pycnn_status remember(pycnn_status status, const char* text) noexcept {
  std::size_t length = std::min(std::strlen(text), sizeof(last.text) - 1);
  // Not within a character of UTF-8.
  if (text[length] != '\0')
    while (length > 0 && (static_cast<unsigned char>(text[length]) & 0xC0) == 0x80) --length;
  std::memcpy(last.text, text, length);
  last.text[length] = '\0';
  last.code = 0;
  last.wanted_bytes = 0;
  return status;
}

constexpr const char* kNames[] = {"ok",
                                  "Error",
                                  "ShapeError",
                                  "DTypeError",
                                  "ArgumentError",
                                  "GraphError",
                                  "DeviceError",
                                  "FormatError",
                                  "UnsupportedError",
                                  "LabelError",
                                  "FileError",
                                  "MemoryLimitError",
                                  "TrainingError",
                                  "InternalError"};
static_assert(std::size(kNames) == PYCNN_INTERNAL_ERROR + 1);

}  // namespace

pycnn_status remember_failure() noexcept {
  try {
    throw;
  } catch (const ShapeError& e) {
    return remember(PYCNN_SHAPE_ERROR, e.what());
  } catch (const DTypeError& e) {
    return remember(PYCNN_DTYPE_ERROR, e.what());
  } catch (const ArgumentError& e) {
    return remember(PYCNN_ARGUMENT_ERROR, e.what());
  } catch (const GraphError& e) {
    return remember(PYCNN_GRAPH_ERROR, e.what());
  } catch (const DeviceError& e) {
    return remember(PYCNN_DEVICE_ERROR, e.what());
  } catch (const FormatError& e) {
    return remember(PYCNN_FORMAT_ERROR, e.what());
  } catch (const UnsupportedError& e) {
    return remember(PYCNN_UNSUPPORTED_ERROR, e.what());
  } catch (const LabelError& e) {
    return remember(PYCNN_LABEL_ERROR, e.what());
  } catch (const FileError& e) {
    remember(PYCNN_FILE_ERROR, e.what());
    last.code = e.code();
    return PYCNN_FILE_ERROR;
  } catch (const MemoryLimitError& e) {
    remember(PYCNN_MEMORY_LIMIT_ERROR, e.what());
    last.wanted_bytes = e.wanted_bytes();
    return PYCNN_MEMORY_LIMIT_ERROR;
  } catch (const TrainingError& e) {
    return remember(PYCNN_TRAINING_ERROR, e.what());
  } catch (const InternalError& e) {
    return remember(PYCNN_INTERNAL_ERROR, e.what());
  } catch (const Error& e) {
    return remember(PYCNN_ERROR, e.what());
  } catch (const std::bad_alloc&) {
    return remember(PYCNN_MEMORY_LIMIT_ERROR, "pycnn: the machine has no memory left");
  } catch (const std::exception& e) {
    return remember(PYCNN_INTERNAL_ERROR, e.what());
  } catch (...) {
    return remember(PYCNN_INTERNAL_ERROR,
                    "pycnn: an exception of unknown type; please report this");
  }
}

void require(const void* pointer, const char* who, const char* name) {
  if (pointer == nullptr) throw ArgumentError(std::string(who) + ": " + name + " is NULL");
}

void require_index(std::size_t index, std::size_t count, const char* who, const char* name) {
  if (index >= count)
    throw ArgumentError(std::string(who) + ": " + name + " is " + std::to_string(index) +
                        ", there are " + std::to_string(count));
}

void require_array(const void* data, std::size_t bytes, const TensorSpec& spec, const char* who,
                   const std::string& name) {
  const std::size_t wanted = byte_size(spec);
  if (data == nullptr && wanted > 0)
    throw ArgumentError(std::string(who) + ": the array of " + name + " is NULL");
  if (bytes != wanted)
    throw ArgumentError(std::string(who) + ": the array of " + name + " has " +
                        std::to_string(bytes) + " bytes, " + to_string(spec) + " needs " +
                        std::to_string(wanted));
}

void require_struct_size(std::size_t given, std::size_t smallest, const char* who,
                         const char* type) {
  if (given < smallest || given > kMaxStructBytes)
    throw ArgumentError(std::string(who) + ": struct_size is " + std::to_string(given) +
                        ", expected sizeof(" + type + ")");
}

const char* to_c_text(const std::string& text, const char* who) {
  if (const std::size_t zero = text.find('\0'); zero != std::string::npos)
    throw UnsupportedError(
        std::string(who) + ": the text '" + text.substr(0, std::min<std::size_t>(zero, 80)) +
        "' goes on after a zero at its byte " + std::to_string(zero) + ", which a C text cannot");
  return text.c_str();
}

pycnn_array_info describe(const std::string& name, const TensorSpec& spec) {
  if (spec.shape.size() > PYCNN_MAX_RANK)
    throw UnsupportedError("'" + name + "' has " + std::to_string(spec.shape.size()) +
                           " axes, this interface tells at most " + std::to_string(PYCNN_MAX_RANK));
  pycnn_array_info info = {};
  info.name = name.c_str();
  info.dtype = static_cast<pycnn_dtype>(spec.dtype);
  info.rank = static_cast<std::int32_t>(spec.shape.size());
  std::copy(spec.shape.begin(), spec.shape.end(), info.shape);
  info.bytes = byte_size(spec);
  return info;
}

static_assert(static_cast<int>(DType::kFloat32) == PYCNN_FLOAT32 &&
              static_cast<int>(DType::kFloat64) == PYCNN_FLOAT64 &&
              static_cast<int>(DType::kBFloat16) == PYCNN_BFLOAT16 &&
              static_cast<int>(DType::kFloat16) == PYCNN_FLOAT16 &&
              static_cast<int>(DType::kUInt8) == PYCNN_UINT8 &&
              static_cast<int>(DType::kInt32) == PYCNN_INT32 &&
              static_cast<int>(DType::kInt64) == PYCNN_INT64);

DType to_dtype(pycnn_dtype dtype, const char* who, const char* name) {
  if (dtype < PYCNN_FLOAT32 || dtype > PYCNN_INT64)
    throw ArgumentError(std::string(who) + ": " + name + " is " + std::to_string(dtype) +
                        ", no pycnn_dtype");
  return static_cast<DType>(dtype);
}

}  // namespace pycnn::c

using namespace pycnn::c;

const char* pycnn_status_name(pycnn_status status) {
  if (status < 0 || status > PYCNN_INTERNAL_ERROR) return "unknown status";
  return kNames[status];
}

const char* pycnn_last_error(void) { return last.text; }
int32_t pycnn_last_errno(void) { return last.code; }
size_t pycnn_last_wanted_bytes(void) { return last.wanted_bytes; }
