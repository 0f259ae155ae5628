#include <pybind11/stl.h>

#include "bindings/module.h"

namespace pycnn::bindings {
namespace {

// Whether an array can be handed to the core as it is.
bool matches(const py::handle& object, const TensorSpec& spec) {
  // No subclass: a masked array, say, is more than what lies in its memory.
  if (Py_TYPE(object.ptr()) != py::detail::npy_api::get().PyArray_Type_) return false;
  const auto array = py::reinterpret_borrow<py::array>(object);
  if (array.ndim() != static_cast<py::ssize_t>(spec.shape.size())) return false;
  for (py::ssize_t i = 0; i < array.ndim(); ++i)
    if (array.shape(i) != spec.shape[static_cast<std::size_t>(i)]) return false;
  constexpr int kNeeded =
      py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  if ((array.flags() & kNeeded) != kNeeded) return false;
  const py::dtype dtype = array.dtype();
  if (dtype.byteorder() == '>') return false;
  // NumPy has two types of 64-bit integers that are equal; only one has the number.
  return dtype.num() == numpy_number(spec.dtype) ||
         (spec.dtype == DType::kInt64 && dtype.kind() == 'i' && dtype.itemsize() == 8);
}

py::array new_array(const TensorSpec& spec, const std::string& output) {
  try {
    return {numpy_dtype(spec.dtype),
            std::vector<py::ssize_t>(spec.shape.begin(), spec.shape.end())};
  } catch (const py::error_already_set& error) {
    if (!error.matches(PyExc_MemoryError)) throw;
  }
  // Compiling looked at what there was; somebody may have taken it since.
  const std::size_t wanted = byte_size(spec), available = machine().available_memory_bytes;
  throw MemoryLimitError("program: output '" + output + "' takes " + std::to_string(wanted) +
                             " bytes, " + std::to_string(available) + " are available",
                         wanted, available);
}

// What a run reads and fills. False when an input needs conversion first: Python does that, with
// the messages.
struct Arrays {
  std::vector<const void*> from;
  std::vector<void*> to;
  py::tuple results;

  bool match(const Program& program, const py::args& arrays) {
    const auto& inputs = program.inputs();
    const auto& outputs = program.outputs();
    if (arrays.size() != inputs.size()) return false;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (!matches(arrays[i], inputs[i].second)) return false;
      from.push_back(py::reinterpret_borrow<py::array>(arrays[i]).data());
    }
    results = py::tuple(outputs.size());
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      py::array array = new_array(outputs[i].second, outputs[i].first);
      to.push_back(array.mutable_data());
      results[i] = std::move(array);
    }
    return true;
  }
};

py::object run(const Program& program, const py::args& inputs) {
  Arrays arrays;
  if (!arrays.match(program, inputs)) return py::none();
  {
    py::gil_scoped_release nogil;
    program.run(arrays.from, arrays.to);
  }
  return arrays.results;
}

struct BegunRun {
  PendingRun run;
  py::tuple results;  // filled by `wait`
};

template <bool kLate>
py::object begin(const Program& program, const py::args& inputs) {
  Arrays arrays;
  if (!arrays.match(program, inputs)) return py::none();
  BegunRun begun;
  begun.results = arrays.results;
  {
    py::gil_scoped_release nogil;
    begun.run = program.begin(arrays.from, arrays.to, kLate);
  }
  return py::cast(std::move(begun));
}

py::list named_specs(const std::vector<std::pair<std::string, TensorSpec>>& specs) {
  py::list result;
  for (const auto& [name, spec] : specs)
    result.append(py::make_tuple(name, to_tuple(spec.shape), long_name(spec.dtype)));
  return result;
}

// Dicts are filled entry by entry: the compiler takes long over one call with all of them.
py::dict to_dict(const MemoryReport& r) {
  py::dict d;
  d["arena_bytes"] = r.arena_bytes;
  d["scratch_bytes"] = r.scratch_bytes;
  d["prepared_bytes"] = r.prepared_bytes;
  d["variable_bytes"] = r.variable_bytes;
  d["unshared_bytes"] = r.unshared_bytes;
  d["transfer_bytes"] = r.transfer_bytes;
  d["staging_bytes"] = r.staging_bytes;
  d["lane_scratch_bytes"] = r.lane_scratch_bytes;
  return d;
}

py::dict to_dict(const StepProfile& s) {
  py::dict d;
  d["name"] = s.name;
  d["op"] = s.op;
  d["variant"] = s.variant;
  d["phase"] = s.phase;
  d["runs"] = s.runs;
  d["total_seconds"] = s.total_seconds;
  d["min_seconds"] = s.min_seconds;
  d["macs"] = s.cost.macs;
  d["other_flops"] = s.cost.other_flops;
  d["bytes"] = s.cost.bytes;
  d["refused"] = s.refused;
  d["absorbed"] = s.absorbed;
  return d;
}

py::list to_dicts(const std::vector<StepProfile>& steps) {
  py::list result;
  for (const StepProfile& step : steps) result.append(to_dict(step));
  return result;
}

py::dict to_dict(const MachinePeaks::Compute& c) {
  py::dict d;
  d["dtype"] = c.dtype;
  d["unit"] = c.unit;
  d["flops"] = c.flops;
  return d;
}

py::dict to_dict(const MachinePeaks::Memory& m) {
  py::dict d;
  d["level"] = m.level;
  d["capacity_bytes"] = m.capacity_bytes;
  d["buffer_bytes"] = m.buffer_bytes;
  d["read_bytes"] = m.read_bytes;
  d["copy_bytes"] = m.copy_bytes;
  return d;
}

py::dict to_dict(const MachinePeaks& peaks) {
  py::list compute, memory;
  for (const MachinePeaks::Compute& c : peaks.compute) compute.append(to_dict(c));
  for (const MachinePeaks::Memory& m : peaks.memory) memory.append(to_dict(m));
  py::dict d;
  d["cpu"] = peaks.cpu;
  d["isa"] = peaks.isa;
  d["threads"] = peaks.threads;
  d["compute"] = compute;
  d["memory"] = memory;
  d["disturbed"] = peaks.disturbed;
  return d;
}

py::dict to_dict(const Machine& machine) {
  py::dict d;
  d["cpu"] = machine.cpu;
  d["isas"] = machine.isas;
  d["isa"] = machine.isa;
  d["bfloat16_units"] = machine.bfloat16_units;
  d["threads"] = machine.threads;
  d["threads_reason"] = machine.threads_reason;
  d["thread_limits"] = machine.thread_limits;
  d["devices"] = machine.devices;
  d["compiler"] = machine.compiler;
  d["warnings"] = machine.warnings;
  d["available_memory_bytes"] = machine.available_memory_bytes;
  return d;
}

Optimizer::Kind parse_optimizer(const std::string& kind) {
  if (kind == "sgd") return Optimizer::Kind::kSgd;
  if (kind == "adam") return Optimizer::Kind::kAdam;
  if (kind == "adamw") return Optimizer::Kind::kAdamW;
  if (kind == "muon") return Optimizer::Kind::kMuon;
  throw ArgumentError("optimizer: '" + kind + "' is not one of sgd, adam, adamw, muon");
}

// An object of Python with the methods begin(bucket, array) and finish().
class PythonExchange : public GradientExchange {
 public:
  explicit PythonExchange(const py::object& object)
      : begin_(object.attr("begin")), finish_(object.attr("finish")) {}
  PythonExchange(const PythonExchange&) = delete;
  PythonExchange& operator=(const PythonExchange&) = delete;
  ~PythonExchange() override {
    const py::gil_scoped_acquire gil;
    begin_ = finish_ = py::object();
  }

  void begin(std::size_t bucket, std::span<float> gradients) override {
    const py::gil_scoped_acquire gil;
    // With a base, the array is a view.
    begin_(bucket, py::array_t<float>(static_cast<py::ssize_t>(gradients.size()), gradients.data(),
                                      py::none()));
  }
  void finish() override {
    const py::gil_scoped_acquire gil;
    finish_();
  }

 private:
  py::object begin_, finish_;
};

std::shared_ptr<GradientExchange> make_exchange(const py::object& object) {
  if (object.is_none()) return nullptr;
  return std::make_shared<PythonExchange>(object);
}

void bind_optimizer(py::module_& m) {
  py::class_<ParameterGroup>(m, "ParameterGroup", "Parameters that share hyper-parameters.")
      .def(py::init([](std::vector<std::string> names, double weight_decay, double rate_scale,
                       bool frozen) {
             return ParameterGroup{std::move(names), weight_decay, rate_scale, frozen};
           }),
           py::arg("names"), py::arg("weight_decay"), py::arg("rate_scale"), py::arg("frozen"));
  py::class_<Optimizer>(m, "Optimizer", "Update to append to a training program.")
      .def(py::init([](const std::string& kind, double momentum, bool nesterov, double beta1,
                       double beta2, double eps, double weight_decay,
                       std::vector<ParameterGroup> groups, std::optional<double> clip_norm,
                       std::optional<double> ema_decay) {
             return Optimizer{
                 parse_optimizer(kind), momentum,          nesterov,  beta1,    beta2, eps,
                 weight_decay,          std::move(groups), clip_norm, ema_decay};
           }),
           py::kw_only(), py::arg("kind"), py::arg("momentum"), py::arg("nesterov"),
           py::arg("beta1"), py::arg("beta2"), py::arg("eps"), py::arg("weight_decay"),
           py::arg("groups"), py::arg("clip_norm"), py::arg("ema_decay"));
}

}  // namespace

void bind_program(py::module_& m) {
  bind_optimizer(m);
  // A wrapper of its own: pybind11 would copy a std::map into a dict, and programs must share the
  // tensors.
  struct VariablesHolder {
    Variables map;
  };
  py::class_<VariablesHolder>(m, "Variables", "Named tensors that programs share.")
      .def(py::init<>())
      .def("__getitem__",
           [](const VariablesHolder& v, const std::string& name) {
             const auto it = v.map.find(name);
             if (it == v.map.end()) throw py::key_error(name);
             return it->second;
           })
      .def("__setitem__", [](VariablesHolder& v, const std::string& name,
                             const Tensor& tensor) { v.map[name] = tensor; })
      .def("__delitem__",
           [](VariablesHolder& v, const std::string& name) {
             if (v.map.erase(name) == 0) throw py::key_error(name);
           })
      .def("__contains__",
           [](const VariablesHolder& v, const std::string& name) { return v.map.contains(name); })
      .def("__len__", [](const VariablesHolder& v) { return v.map.size(); })
      .def("keys",
           [](const VariablesHolder& v) {
             std::vector<std::string> names;
             for (const auto& [name, tensor] : v.map) names.push_back(name);
             return names;
           })
      .def(
          "create",
          [](VariablesHolder& v, const Graph& graph, std::uint64_t seed) {
            create_variables(graph, v.map, seed);
          },
          py::arg("graph"), py::arg("seed") = 0, "Makes what the graph names and the map lacks.");

  py::class_<BegunRun>(m, "PendingRun", "A run that was begun.")
      .def(
          "wait",
          [](BegunRun& begun) {
            {
              py::gil_scoped_release nogil;
              begun.run.wait();
            }
            return begun.results;
          },
          "Tuple of arrays, once they are there.");

  py::class_<Program>(m, "Program", "Compiled graph.")
      .def("run", &run,
           "Arrays in, tuple of arrays out; None when an input does not match exactly.")
      .def("begin", &begin<false>, "As run, but gives a PendingRun.")
      .def("begin_late", &begin<true>, "As begin, of results that are asked for many runs later.")
      .def_property_readonly("overlaps", &Program::overlaps)
      .def_property_readonly(
          "recording",
          py::cpp_function(&Program::recording, py::call_guard<py::gil_scoped_release>()))
      .def_property_readonly("inputs", [](const Program& p) { return named_specs(p.inputs()); })
      .def_property_readonly("outputs", [](const Program& p) { return named_specs(p.outputs()); })
      .def_property_readonly("threads", &Program::threads)
      .def_property_readonly("isa", &Program::isa)
      .def_property_readonly("warnings", &Program::warnings)
      .def("explain", &Program::explain, py::call_guard<py::gil_scoped_release>())
      .def("graph_text", &Program::graph_text)
      .def("memory", [](const Program& p) { return to_dict(p.memory()); })
      .def("start_profile", &Program::start_profile)
      .def("profile", [](const Program& p) { return to_dicts(p.profile()); })
      .def("steps", [](const Program& p) { return to_dicts(p.steps()); });

  m.def(
      "compile",
      [](const Graph& graph, VariablesHolder& variables, const std::string& mode,
         const std::string& device, const std::string& isa, std::int64_t threads,
         std::map<std::string, std::string> pins, bool winograd, bool tf32,
         const std::string& recompute, const std::string& dtype, bool emulate_bfloat16, bool fuse,
         bool reuse_memory, std::size_t memory_limit_bytes, const std::string& loss,
         std::optional<Optimizer> optimizer, const py::object& exchange, std::size_t bucket_bytes,
         const Variables& own) {
        CompileOptions options;
        options.exchange = make_exchange(exchange);
        options.bucket_bytes = bucket_bytes;
        options.mode = parse_mode(mode);
        options.device = device;
        options.isa = isa;
        options.threads = threads;
        options.variants = std::move(pins);
        options.winograd = winograd;
        options.tf32 = tf32;
        options.dtype = parse_dtype(dtype);
        options.emulate_bfloat16 = emulate_bfloat16;
        options.recompute = parse_recompute(recompute);
        options.fuse = fuse;
        options.reuse_memory = reuse_memory;
        options.memory_limit_bytes = memory_limit_bytes;
        options.loss = loss;
        options.optimizer = std::move(optimizer);
        // The lock of the map is the interpreter's.
        return compile_beside(
            graph, variables.map, options,
            [](const auto& work) {
              const py::gil_scoped_release nogil;
              work();
            },
            own);
      },
      py::arg("graph"), py::arg("variables"), py::kw_only(), py::arg("mode"), py::arg("device"),
      py::arg("isa"), py::arg("threads"), py::arg("variants"), py::arg("winograd"), py::arg("tf32"),
      py::arg("recompute"), py::arg("dtype"), py::arg("emulate_bfloat16"), py::arg("fuse"),
      py::arg("reuse_memory"), py::arg("memory_limit_bytes"), py::arg("loss"), py::arg("optimizer"),
      py::arg("exchange") = py::none(), py::arg("bucket_bytes") = CompileOptions().bucket_bytes,
      py::arg("own") = Variables());

  m.def(
      "plan_memory",
      [](const Graph& graph, const std::string& mode, const std::string& device,
         const std::string& isa, std::int64_t threads, bool winograd, bool tf32,
         const std::string& recompute, const std::string& dtype, bool emulate_bfloat16,
         const std::string& loss, std::optional<Optimizer> optimizer) {
        CompileOptions options;
        options.mode = parse_mode(mode);
        options.device = device;
        options.isa = isa;
        options.threads = threads;
        options.winograd = winograd;
        options.tf32 = tf32;
        options.dtype = parse_dtype(dtype);
        options.emulate_bfloat16 = emulate_bfloat16;
        options.recompute = parse_recompute(recompute);
        options.loss = loss;
        options.optimizer = std::move(optimizer);
        MemoryPlan plan;
        {
          py::gil_scoped_release nogil;
          plan = plan_memory(graph, options);
        }
        py::dict result = to_dict(plan.memory);
        result["isa"] = plan.isa;
        result["threads"] = plan.threads;
        return result;
      },
      py::arg("graph"), py::kw_only(), py::arg("mode"), py::arg("device"), py::arg("isa"),
      py::arg("threads"), py::arg("winograd"), py::arg("tf32"), py::arg("recompute"),
      py::arg("dtype"), py::arg("emulate_bfloat16"), py::arg("loss"), py::arg("optimizer"),
      "What compile would take.");

  m.def("variants", &variants, py::arg("op_name"), py::arg("device") = "cpu",
        "Kernel variants of an op, best first.");
  m.def(
      "machine", [] { return to_dict(machine()); }, "What this machine offers.");
  m.def(
      "measure_peaks",
      [](const std::string& isa, std::int64_t threads, double seconds) {
        MachinePeaks peaks;
        {
          py::gil_scoped_release nogil;
          peaks = measure_peaks(isa, threads, seconds);
        }
        return to_dict(peaks);
      },
      py::kw_only(), py::arg("isa"), py::arg("threads"), py::arg("seconds"),
      "Highest rates that plain loops reach.");
  m.def("clock_hertz", &clock_hertz, "Cycles a second of this core.");
}

}  // namespace pycnn::bindings
