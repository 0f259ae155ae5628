#!/usr/bin/env bash
# One run on a machine with an NVIDIA GPU: build, tests beside the CPU, checks of memory accesses, times beside PyTorch.
#   tools/gpu_check.sh OUTPUT_DIR [PHASE[:SECONDS]...]    # all phases but those on demand, or those named alone
# On demand: rates; and, each of up to 9 minutes, zoo (with the tests of transfer and inspect, which are nowhere else), cifar10, tune_all
# (every kernel of the nets that are timed is chosen by time; once more goes on where the first ended) and compiled_all (torch.compile beside pycnn for every row, which the table joins, as it
# does OUTPUT_DIR/torch.json or what PYCNN_TORCH_BASELINE names, of gpu_torch_baseline.py).
# Each phase has its own time limit, or the one that is given (all of them, with what ending one may take, are 570 s; those on demand
# apart; the last gets what the others leave) and leaves
# OUTPUT_DIR/PHASE.log; whatever fails, the next ones run and a table of at most 25 lines comes last (table.txt). All that
# OUTPUT_DIR holds is also in one file, OUTPUT_DIR/results.tgz.
# It ends with 0 if no phase failed, with 1 if one did, and with 77 without a GPU, where nothing but probe is run. A phase that
# is skipped for what the machine lacks is no failure, but the table begins with how many these are.
# It needs what a CUDA image with PyTorch, pybind11, cmake and ninja holds, and downloads nothing. Without Cython data sets
# and transforms are not built, and tests that need them (of fit and evaluate) skip; without pytest nets of the zoo stand in for the tests of nets
# (tools/gpu_nets.py), and those of transfer and inspect run nowhere. The table says so, and neither is a failure.
# The build stays in build-gpu/. The kernels' own tests take doctest
# (in a folder that DOCTEST_INCLUDE_DIR names, if it is not the system's), or else pycnn's stand-in for it. PYCNN_CUDA_PLANS may
# name a file of chosen kernels to go on with; it is OUTPUT_DIR/cuda_plans.txt otherwise.
set -uo pipefail
out=${1:?folder for logs and results}
cd "$(dirname "$0")/.."
mkdir -p "$out"
out=$(cd "$out" && pwd)
root=$PWD
build=$root/build-gpu
python=$(command -v python3 || command -v python)
rows=()
failed=0
skipped=0
wanted=" ${*:2} "

# phase NAME SECONDS COMMAND...: runs it with that limit, notes how it ended.
phase() {
  local name=$1 limit=$2 begin=$SECONDS code
  shift 2
  if [ "$wanted" != "  " ]; then
    [[ "$wanted" =~ " $name"(:([0-9]+))?" " ]] || return 0
    limit=${BASH_REMATCH[2]:-$limit}
  fi
  # Interrupted, pytest tells what has failed so far, and Python where it hangs.
  PHASE_SECONDS=$limit timeout --signal=INT --kill-after=5 "$limit" "$@" >"$out/$name.log" 2>&1
  code=$?
  case $code in
    0) result=ok ;;
    77) result=skipped skipped=$((skipped + 1)) ;;
    124 | 137)
      failed=$((failed + 1))
      # What something else killed has the same status.
      if ((SECONDS - begin >= limit)); then result="over $limit s"; else result="killed ($code)"; fi
      ;;
    *) result="failed ($code)" failed=$((failed + 1)) ;;
  esac
  rows+=("$(printf '%-12s %-12s %4d s  %s' "$name" "$result" $((SECONDS - begin)) "$(grep -a . "$out/$name.log" | tail -1 | cut -c1-88)")")
  return $code
}

table() {
  echo "${#rows[@]} phases, $failed failed, $skipped skipped; phase, result, seconds, last line:"
  printf '%s\n' "${rows[@]}"
  local left=$((24 - ${#rows[@]})) times=$out/times.txt
  if "$python" tools/gpu_report.py "$out" >"$out/report.txt" 2>/dev/null; then times=$out/report.txt; else rm -f "$out/report.txt"; fi
  if [ -s "$times" ]; then tail -n $((left < 15 ? left : 15)) "$times"; fi
}

# finish STATUS [WORDS]: the table, all results as one file, and the end.
finish() {
  # What was chosen goes on elsewhere with the other results.
  [ "$PYCNN_CUDA_PLANS" = "$out/cuda_plans.txt" ] || cp "$PYCNN_CUDA_PLANS" "$out/cuda_plans.txt" 2>/dev/null
  { table && echo "${@:2}"; } | grep . | tee "$out/table.txt"
  local packed
  packed=$(mktemp) && tar -czf "$packed" -C "$out" --exclude=./results.tgz . && mv "$packed" "$out/results.tgz" && chmod a+r "$out/results.tgz"
  exit "$1"
}

# Says where NVIDIA's wheels have the libraries: an installed package finds them beside itself, what is staged here cannot.
libraries() {
  "$python" -P - <<'PYTHON'
import importlib.util, os, pathlib, shlex

spec = importlib.util.find_spec("nvidia")
places = [pathlib.Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
for variable, file in (("PYCNN_CUDNN", "cudnn/lib/libcudnn.so.9"), ("PYCNN_CUBLASLT", "cu13/lib/libcublasLt.so.13"),
                       ("PYCNN_NVRTC", "cu13/lib/libnvrtc.so.13")):
    found = [place / file for place in places if (place / file).is_file()]
    if found and variable not in os.environ:
        print(f"export {variable}={shlex.quote(str(found[0]))}")
PYTHON
}

probe() {
  uname -sr && nproc
  "$python" --version
  cmake --version | head -1
  nvcc --version 2>/dev/null | tail -1
  echo "cuDNN: ${PYCNN_CUDNN:-as the system has it}"
  echo "cuBLASLt: ${PYCNN_CUBLASLT:-as the system has it}"
  echo "NVRTC: ${PYCNN_NVRTC:-as the system has it}"
  "$python" tools/gpu_machine.py "$out/machine.json"
}

ceilings() {
  "$python" tools/gpu_ceilings.py "$out/ceilings.json"
}

build() {
  local nvcc
  nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
  local tool lacks="" python_targets="_core _image"
  [ -x "$nvcc" ] || lacks+=" nvcc"
  for tool in cmake ninja c++; do command -v $tool >/dev/null || lacks+=" $tool"; done
  for tool in numpy pybind11; do "$python" -P -c "import $tool" 2>/dev/null || lacks+=" $tool"; done
  [ -z "$lacks" ] || { echo "nothing can be built: there is no$lacks"; exit 1; }
  "$python" -P -c 'import Cython' 2>/dev/null || python_targets="_core"
  rm -rf "$build/stage"
  cmake -S . -B "$build" -G Ninja -DSKBUILD=2 -DPYCNN_WITH_CUDA=ON -DPYCNN_BUILD_PYTHON=ON -DBUILD_SHARED_LIBS=ON \
    -DPYCNN_UNITY_BUILD=OFF -DCMAKE_CUDA_COMPILER="$nvcc" -DPython_EXECUTABLE="$python" \
    -DCMAKE_CUDA_ARCHITECTURES="${GPU_ARCHITECTURES:-native}" \
    -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" || exit
  # shellcheck disable=SC2086
  cmake --build "$build" --target $python_targets pycnn_cuda || exit
  mkdir -p "$build/stage"
  cp -r pycnn "$build/stage/"
  local component
  for component in cpp python; do cmake --install "$build" --component $component --prefix "$build/stage" >/dev/null; done
  if [ "$python_targets" = _core ]; then
    # In its place, so that the rest can be imported; tests/conftest.py knows the message. Python itself asks for names with __.
    echo 'def __getattr__(name): raise (AttributeError if name.startswith("__") else ImportError)("pycnn.data._image was not built: there is no Cython")' >"$build/stage/pycnn/data/_image.py"
  fi
  PYTHONPATH=$build/stage "$python" -P -c 'from pycnn.config import machine; print("devices:", *machine()["devices"])' || exit
  PYTHONPATH=$build/stage "$python" -P -c 'import pycnn.train, pycnn.data, pycnn.models' || { echo "pycnn.train cannot be imported"; exit 1; }
  PYCNN_CUDA_DETERMINISTIC=1 PYTHONPATH=$build/stage "$python" -P - <<'PYTHON'
# Whether kernels of NVIDIA's libraries can be had: without them all is computed, but not what is to be measured.
import pycnn

net = pycnn.nn.Sequential(pycnn.nn.Conv2d(8, 8, 3, padding=1), pycnn.nn.Flatten(), pycnn.nn.Linear(512, 16))
text = pycnn.compile(net, (4, 8, 8, 8), device="cuda", dtype="bfloat16").explain()
missing = [line.strip() for line in text.splitlines() if "not conv2d.cudnn" in line or "not dense.cublaslt" in line]
print("\n".join(missing) or "cuDNN and cuBLASLt are used")
raise SystemExit(1 if missing else 0)
PYTHON
  local code=$?
  # Of a build that fails the last line says why.
  if [ $code = 0 ] && [ "$python_targets" = _core ]; then echo "no Cython: data sets and transforms are not built, tests of fit and evaluate skip"; fi
  exit $code
}

# test_build TARGET: builds it beside the module, without the module for the emulated device, which is not what runs here.
test_build() {
  [ -d "$build/stage" ] || { echo "skipped: the phase build was not done"; exit 77; }
  cmake -S . -B "$build/tests" -G Ninja -DPYCNN_BUILD_TESTS=ON -DPYCNN_CUDA_EMULATED=OFF -DPYCNN_CPU_ISAS=avx2 -DPYCNN_WARNINGS=OFF \
    ${DOCTEST_INCLUDE_DIR:+"-DDOCTEST_INCLUDE_DIR=$DOCTEST_INCLUDE_DIR"} | grep -e doctest -e CMake
  [ "${PIPESTATUS[0]}" = 0 ] || exit 1
  cmake --build "$build/tests" --target "$1" || exit
}

kernel_tests() {
  test_build pycnn_cuda_tests
  mkdir -p "$out/kernels"
  local cases failed
  cases=$("$build/tests/tests/cpp/pycnn_cuda_tests" --list-test-cases | grep -v -e '^\[doctest\]' -e '^=*$')
  failed=$(tr '\n' '\0' <<<"$cases" | xargs -0 -P 8 -I{} bash -c 'kernel_test "$1"' kernel_test {})
  if [ -n "$failed" ]; then
    echo "$failed"
    echo "$(wc -l <<<"$failed") of $(wc -l <<<"$cases") cases failed: kernels/"
    exit 1
  fi
  echo "all kernels agree with the CPU's references, $(wc -l <<<"$cases") cases"
}

# In a process of its own: one whose kernel touched memory that is not its own has no GPU any more. Names the case if it fails.
# What libraries offer is tried and not timed, so that a case is not out of time for that.
kernel_test() {
  local log
  log=$out/kernels/$(tr -c 'a-z0-9\n' _ <<<"$1").log
  if PYCNN_CUDA_CHOOSE_SECONDS=0 PYCNN_CUDA_TEST_MODULE=$build/stage/pycnn/lib/pycnn_cuda.so timeout --foreground --kill-after=5 40 \
    "$build/tests/tests/cpp/pycnn_cuda_tests" --minimal --test-case="${1//,/\\,}" >"$log" 2>&1; then
    rm "$log"
  else
    echo "$1 ($?)"
  fi
}

# Some machines (sandboxes such as gVisor) do not let a program look at another's accesses: it is tried with one of a line.
try_sanitizer() {
  local nvcc program=$build/one_store
  nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
  mkdir -p "$build"
  cat >"$program.cu" <<'CUDA'
__global__ void store(int* to) { *to = 1; }
int main() {
  int* memory = nullptr;
  if (cudaMalloc(&memory, sizeof(int)) != cudaSuccess) return 3;
  store<<<1, 1>>>(memory);
  return cudaDeviceSynchronize() == cudaSuccess ? 0 : 4;
}
CUDA
  "$nvcc" -arch=native -o "$program" "$program.cu" || { echo "a program of one store cannot be built"; exit 1; }
  "$program" || { echo "a program of one store fails without the sanitizer, too ($?)"; exit 1; }
  if ! timeout --kill-after=2 8 "$1" --tool memcheck --error-exitcode 9 "$program"; then
    echo "skipped: refused by the machine, compute-sanitizer cannot watch a program of one store"
    exit 77
  fi
}

# watched TOOL CHECK SECONDS: our own kernels under one check, and what came of it. The tool starts the tests as a process of
# their own, which would go on without it on the GPU: all of them are a group, which is ended.
watched() {
  local begin=$SECONDS code group
  PYCNN_CUDNN=off PYCNN_CUBLASLT=off PYCNN_CUDA_CHOOSE_SECONDS=0 PYCNN_CUDA_TEST_MODULE=$build/stage/pycnn/lib/pycnn_cuda.so \
    timeout --kill-after=2 "$3" "$1" --tool "$2" --error-exitcode 9 \
    "$build/tests/tests/cpp/pycnn_cuda_tests" --minimal --test-case='cuda once: *' >"$out/$2.log" 2>&1 &
  group=$!
  wait $group
  code=$?
  kill -KILL -- -$group 2>/dev/null
  if [ $code = 0 ]; then
    echo "$2 found nothing"
    return 0
  fi
  tail -n 40 "$out/$2.log"
  case $code in
    9) echo "$2 found errors: $2.log" ;;
    124 | 137) if ((SECONDS - begin >= $3)); then echo "$2 was not done after $3 s"; else echo "$2 was killed after $((SECONDS - begin)) s"; fi ;;
    *) echo "the tests failed under $2 ($code): $2.log" ;;
  esac
  return 1
}

# Both checks side by side: most of what they do is the host's.
sanitizer() {
  local tool=/usr/local/cuda/bin/compute-sanitizer failed=0
  [ -x "$tool" ] || tool=$(command -v compute-sanitizer) || { echo "skipped: no compute-sanitizer"; exit 77; }
  try_sanitizer "$tool"
  test_build pycnn_cuda_tests
  local left=$((PHASE_SECONDS - SECONDS - 5))
  if ((left < 3)); then echo "building took the time, nothing was checked"; exit 1; fi
  local check
  local -A ends
  for check in memcheck racecheck; do
    watched "$tool" $check "$left" >"$out/$check.txt" &
    ends[$check]=$!
  done
  for check in memcheck racecheck; do
    wait "${ends[$check]}" || failed=1
    cat "$out/$check.txt"
  done
  tail -qn 1 "$out/memcheck.txt" "$out/racecheck.txt" | paste -sd ";"
  rm "$out/memcheck.txt" "$out/racecheck.txt"
  exit $failed
}

# Our own products beside the libraries', in percent of the ceiling that was measured; then convolutions that measure for
# batch norms beside ones that do not.
kernel_times() {
  test_build pycnn_cuda_kernel_times
  local peak=0
  if [ -s "$out/ceilings.json" ]; then peak=$("$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["bfloat16_flops"] / 1e12)' "$out/ceilings.json"); fi
  PYCNN_CUDA_CHOOSE_SECONDS=20 PYCNN_CUDA_MODULE=$build/stage/pycnn/lib/pycnn_cuda.so "$build/tests/tests/cpp/pycnn_cuda_kernel_times" "$peak" | tee "$out/kernel_times.txt"
  [ "${PIPESTATUS[0]}" = 0 ] && echo "rates of kernels: kernel_times.txt"
}

# Nets of many shapes: to time every kernel for them would take minutes. Several processes, where pytest-xdist is there. No other
# plugin is loaded than ours need: of those that a machine has, one that warns ends pytest, to which warnings are errors here
# (pytest-benchmark warns where there are several processes). What tests choose by time beside one another is not kept.
net_tests() {
  [ -d "$build/stage" ] || { echo "skipped: the phase build was not done"; exit 77; }
  local finds="from pycnn.config import machine; raise SystemExit('cuda:0' not in machine()['devices'])"
  PYTHONPATH=$build/stage "$python" -P -c "$finds" || { echo "pycnn finds no GPU: all nets would be skipped"; exit 1; }
  if ! "$python" -P -c 'import pytest' 2>/dev/null; then
    # The last net begun has time to end.
    PYCNN_CUDA_PLANS=off PYTHONPATH=$build/stage "$python" -P tools/gpu_nets.py --seconds $((PHASE_SECONDS - 40))
    exit
  fi
  local -a many=()
  if PYTHONPATH=$build/stage "$python" -P -c 'import xdist' 2>/dev/null; then
    many=(-p xdist -n 6)
    export OMP_NUM_THREADS=4
  fi
  PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 PYTEST_ADDOPTS= PYCNN_CUDA_DETERMINISTIC=1 PYCNN_CUDA_PLANS=off PYTHONPATH=$build/stage "$python" -P -m pytest -q --tb=short --maxfail=40 "${many[@]}" "$@"
}

# Kernels of NVIDIA's libraries are chosen by time; what is kept makes the phases after it quick. The last net begun has time
# for its choices; those that are left are made by the phases behind it, of each net for a few seconds.
tune() {
  local each=$((PHASE_SECONDS / 2))
  if ((each > 28)); then each=28; fi
  PYCNN_CUDA_CHOOSE_SECONDS=$each PYTHONPATH=$build/stage "$python" -P tools/gpu_times.py --tune --seconds $((PHASE_SECONDS - each - 8))
}

# The same until every kernel is chosen by time, or the phase ends: what was chosen until then is kept.
tune_all() {
  PYCNN_CUDA_CHOOSE_SECONDS=300 PYTHONPATH=$build/stage "$python" -P tools/gpu_times.py --tune --seconds $((PHASE_SECONDS - 40))
}

# The recipe for CIFAR-10 as a user trains it, then the accuracy of the same in PyTorch. The images are those that
# PYCNN_CIFAR10 names, or of a folder of shared data.
cifar10() {
  local data
  if [ -f "$build/stage/pycnn/data/_image.py" ]; then
    echo "skipped: no Cython, so what reads images was not built"
    exit 77
  fi
  # No other images than those that were asked for.
  if [ -n "${PYCNN_CIFAR10:-}" ] && [ ! -d "$PYCNN_CIFAR10" ]; then
    echo "PYCNN_CIFAR10 must name a folder with CIFAR-10, got $PYCNN_CIFAR10"
    exit 1
  fi
  for data in "${PYCNN_CIFAR10:-}" "$root/../shared/data/cifar10" "$root/shared/data/cifar10"; do
    if [ -n "$data" ] && [ -d "$data" ]; then
      PYCNN_CUDA_CHOOSE_SECONDS=30 PYTHONPATH=$build/stage "$python" -P tools/gpu_cifar10.py "$out" "$data"
      exit
    fi
  done
  echo "skipped: no CIFAR-10 in ../shared/data/cifar10, and PYCNN_CIFAR10 is not set"
  exit 77
}

# times NAME OPTION...
times() {
  local name=$1
  shift
  PYCNN_CUDA_CHOOSE_SECONDS=10 PYTHONPATH=$build/stage "$python" -P tools/gpu_times.py "$out" "$@" | tee "$out/$name.txt"
  return "${PIPESTATUS[0]}"
}

export -f probe watched ceilings build test_build kernel_tests kernel_test kernel_times try_sanitizer sanitizer net_tests tune tune_all times cifar10
export out build python root
known=" probe ceilings build kernels rates nets sanitizer tune tune_all times compiled compiled_all zoo cifar10 "
for phase in $wanted; do
  if [[ "$known" != *" ${phase%%:*} "* ]] || ! [[ "$phase" =~ ^[a-z0-9_]+(:[1-9][0-9]*)?$ ]]; then
    echo "no phase $phase: expected NAME or NAME:SECONDS of$known" >&2
    exit 2
  fi
done

# on_demand NAME SECONDS COMMAND...: a phase that is only run where it is named.
on_demand() { [ "$wanted" = "  " ] || phase "$@"; }

# rest SECONDS: what is left until the whole is to end, but at least so much.
rest() { echo $((565 - SECONDS > $1 ? 565 - SECONDS : $1)); }

export PYCNN_CUDA_PLANS=${PYCNN_CUDA_PLANS:-$out/cuda_plans.txt}
eval "$(libraries)"
phase probe 10 bash -c probe
if [ $? = 77 ]; then
  finish 77 "no GPU: nothing else was run"
fi
# The first to import PyTorch, which takes long once.
phase ceilings 25 bash -c ceilings
phase build 90 bash -c build
phase kernels 70 bash -c kernel_tests
on_demand rates 40 bash -c kernel_times
long=$(printf 'tests/cuda/test_%s.py ' zoo_on_gpu inspect_on_device transfer_on_device)  # many programs each
phase nets 70 bash -c "net_tests tests/cuda tests/train/test_augment_in_step.py tests/train/test_residual_norm.py ${long//tests\/cuda/--ignore=tests\/cuda}"
phase sanitizer 45 bash -c sanitizer
phase tune 40 bash -c tune
on_demand tune_all 540 bash -c tune_all
phase times 80 bash -c 'times times --seconds $((PHASE_SECONDS - 20))'
# To compile the training of ResNet-50 takes a minute or more; further rows where there is time for as much.
phase compiled "$(rest 95)" bash -c 'times compiled --compiled --seconds $((PHASE_SECONDS - 75))'
on_demand compiled_all 540 bash -c 'times compiled_all --compiled --seconds $((PHASE_SECONDS - 100))'
on_demand zoo 400 bash -c "net_tests $long"
on_demand cifar10 240 bash -c cifar10
finish $((failed > 0 ? 1 : 0))
