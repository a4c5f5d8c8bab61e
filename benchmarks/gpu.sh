#!/usr/bin/env bash
# Everything that only a GPU can prove, in one call: tests, benchmarks, training, profiles, sanitizers.
#
#     benchmarks/gpu.sh [STEP...]        all steps without arguments; their names are below
#
# For any Linux machine with an NVIDIA GPU, online or not. It needs a Python with AttenGait's dependencies (PYTHON, by
# default .venv/bin/python, else python3) and no installation of AttenGait itself. A step whose package or program is
# missing is skipped and says so, and so is a GPU's step where nvidia-smi names no GPU. The others run on the CPU then,
# with less to do.
#
# Each step has a time limit, and all together have SECONDS_IN_ALL (570). A line of the table is printed when its step
# ends. Logs, JSON and the table go to benchmarks/results/GPU-NAME (or to RESULTS), and after each step all of it is
# packed again into one file, GPU-NAME.tar.gz in the folder OUT (by default benchmarks/results). So whoever stops this
# loses one step. ATTENGAIT_SHARED names the folder of large references, if there is one.
#
# The exit status is 1 if a step failed or ran out of time.
set -uo pipefail
script=$(realpath "$0")
cd "$(dirname "$script")/.." || exit 2

# name:seconds, in the order of what matters most
ALL_STEPS=(doctor:30 tests:150 flow:45 store:45 preprocess:45 loader:40 train:130 demo:90 nvdec:30
    ncu:60 memcheck:40 racecheck:40 initcheck:40)

attengait() { "$PYTHON" -m attengait "$@"; }

# Status 77 means that a step is skipped. Its last line says why.
skip() {
    echo "skipped: $*"
    exit 77
}
needs_gpu() { [ -n "$GPU" ] || skip "no NVIDIA GPU (nvidia-smi names none)"; }
needs_program() { command -v "$1" >/dev/null || skip "no program $1"; }
needs_packages() {
    local missing
    missing=$("$PYTHON" - "$@" <<'END'
import importlib.util, sys
def found(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
print(", ".join(name for name in sys.argv[1:] if not found(name)))
END
    )
    [ -z "$missing" ] || skip "no package $missing"
}

make_walkers() {
    local subjects=24
    [ -n "$GPU" ] || subjects=2
    [ -d "$WORK/walkers" ] || attengait synth "$WORK/walkers" --subjects $subjects --walks nm-01,nm-02 --views 54,90 \
        --frames 40 --seed 5 || exit
}
make_store() {
    make_walkers
    [ -d "$WORK/walkers.zarr" ] || attengait preprocess casia-b --frames "$WORK/walkers/rgb" \
        --silhouettes "$WORK/walkers/silh" --out "$WORK/walkers.zarr" --flow "${GPU:+cuda}${NO_GPU:+auto}" || exit
}
train_small() {
    attengait benchmark train "$WORK/walkers.zarr" --device cuda --size small --subjects-per-batch 8 \
        --clips-per-subject 8 --clip-frames 30 "$@"
}
sanitizer() {
    needs_gpu
    needs_program compute-sanitizer
    needs_packages cupy
    compute-sanitizer --tool "$1" --error-exitcode 1 "$PYTHON" tests/support/run_kernels_sanitised.py gpu
}

run_step() {
    local step=$1 status=0
    case $step in
    doctor)
        attengait doctor --json
        ;;
    tests)
        needs_gpu
        needs_packages pytest
        local workers=()
        "$PYTHON" -c 'import xdist' 2>/dev/null && workers=(-n 4)
        # Warnings are errors where our own code causes them; other people's packages differ from machine to machine.
        ATTENGAIT_REQUIRE_GPU=1 ATTENGAIT_SKIP_MISSING=1 "$PYTHON" -m pytest -q -rs -m gpu -p no:cacheprovider \
            "${workers[@]}" --durations 10 -o filterwarnings=error:::attengait
        ;;
    flow)
        if [ -n "$GPU" ]; then attengait benchmark flow; else attengait benchmark flow --sizes 64x64 --repeats 1; fi
        ;;
    store)
        needs_packages zarr simplejpeg google_crc32c
        make_store
        ;;
    preprocess)
        needs_packages zarr simplejpeg google_crc32c
        make_walkers
        attengait benchmark preprocess --frames "$WORK/walkers/rgb" --silhouettes "$WORK/walkers/silh" --repeats 1 \
            --flow "${GPU:+cuda,}opencv" --workers "$(nproc)" ${GPU:+--readers 4 --video}
        ;;
    loader)
        needs_packages zarr simplejpeg google_crc32c nvidia.dali
        make_store
        attengait benchmark loader "$WORK/walkers.zarr" --repeats "${GPU:+3}${NO_GPU:+1}"
        ;;
    train)
        needs_packages zarr google_crc32c
        if [ -z "$GPU" ]; then
            attengait benchmark train --device cpu --size tiny --subjects-per-batch 2 --clips-per-subject 2 \
                --clip-frames 16 --steps 1 --repeats 1 --profile "$RESULTS/profile.txt"
            return
        fi
        needs_packages simplejpeg
        make_store
        train_small --precision bf16 --cache gpu --profile "$RESULTS/profile.txt" || status=$?
        train_small --precision fp32,fp16 --cache gpu --repeats 3 || status=$?
        # With and without CUDA graphs, and whether the losses are equal to the bit, as they are meant to be then.
        train_small --precision bf16 --cache gpu --repeats 2 --cuda-graphs true,false || status=$?
        train_small --precision bf16 --cache gpu --repeats 2 --cuda-graphs true,false --set deterministic=true || status=$?
        if (needs_packages nvidia.dali); then train_small --precision bf16 --cache none || status=$?; fi
        return "$status"
        ;;
    demo)
        needs_gpu
        needs_packages zarr simplejpeg google_crc32c nvidia.dali
        attengait demo --out "$WORK/demo"
        ;;
    nvdec)
        needs_gpu
        needs_packages nvidia.dali
        local videos=()
        [ ! -f "${ATTENGAIT_SHARED-}/walkers/plaza.avi" ] || videos=("$ATTENGAIT_SHARED/walkers/plaza.avi")
        "$PYTHON" -m attengait.benchmarks.dali_video --device gpu "${videos[@]}"
        ;;
    ncu)
        needs_gpu
        needs_program ncu
        needs_packages cupy
        # The clocks are left as they are: on a shared machine they are not ours to set.
        ncu --clock-control none --profile-from-start off --csv --metrics "$(
            printf '%s,' gpu__time_duration.sum dram__bytes.sum gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed \
                sm__throughput.avg.pct_of_peak_sustained_elapsed sm__warps_active.avg.pct_of_peak_sustained_active
        )launch__registers_per_thread" "$PYTHON" -m attengait.benchmarks.kernels_once
        ;;
    memcheck | racecheck | initcheck) sanitizer "$step" ;;
    *)
        echo "unknown step $step; the steps are: ${ALL_STEPS[*]%:*}"
        return 2
        ;;
    esac
}

if [ "${1-}" = --step ]; then # one step, in a process of its own that `timeout` can end with all that it started
    run_step "$2"
    exit
fi

PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
GPU=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1 | tr -cs '[:alnum:]\n' '-' | sed 's/-*$//')
NO_GPU=$([ -n "$GPU" ] || echo yes)
name=${GPU:-no-gpu}
RESULTS=$(realpath -m "${RESULTS:-benchmarks/results/$name}")
PACKED=$(realpath -m "${OUT:-benchmarks/results}/$name.tar.gz")
WORK=$(mktemp -d)
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
export PYTHON GPU NO_GPU RESULTS WORK
job=
trap '[ -z "$job" ] || kill "$job" 2>/dev/null; rm -rf "$WORK"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
mkdir -p "$RESULTS" "$(dirname "$PACKED")" || exit 2
: >"$RESULTS/table.txt"

say() { printf '%s\n' "$*" | tee -a "$RESULTS/table.txt"; }
pack() {
    # Under another name first, so that what is there is always whole.
    tar czf "$PACKED.part" -C "$(dirname "$RESULTS")" "$(basename "$RESULTS")" && mv "$PACKED.part" "$PACKED"
}
# What a log has of JSON: all of it, or whole lines, as a benchmark ends in one.
keep_json() {
    "$PYTHON" - "$1" <<'END'
import json, pathlib, sys
log = pathlib.Path(sys.argv[1] + ".log").read_text(errors="replace")
def parsed(texts):
    for text in texts:
        if text.lstrip()[:1] in ("{", "["):
            try:
                yield json.loads(text)
            except ValueError:
                pass
found = list(parsed([log])) or list(parsed(log.splitlines()))
if found:
    pathlib.Path(sys.argv[1] + ".json").write_text(json.dumps(found[0] if len(found) == 1 else found, indent=1) + "\n")
END
}
limit_of() {
    local step
    for step in "${ALL_STEPS[@]}"; do
        [ "${step%:*}" = "$1" ] && echo "${step#*:}" && return
    done
    echo 10
}

steps=("$@")
[ $# -gt 0 ] || steps=("${ALL_STEPS[@]%:*}")
failed=0
say "${GPU:-no GPU}, $(date -u +%FT%TZ)"
for step in "${steps[@]}"; do
    left=$((${SECONDS_IN_ALL:-570} - SECONDS))
    limit=$(limit_of "$step")
    started=$SECONDS
    log=$RESULTS/$step.log
    rm -f "$RESULTS/$step.json"
    if [ "$left" -lt 5 ]; then
        echo "no time was left" >"$log"
        status=124
    else
        timeout -k 5 $((limit < left ? limit : left)) bash "$script" --step "$step" >"$log" 2>&1 &
        job=$!
        wait "$job"
        status=$?
        job=
    fi
    case $status in
    0) result=ok ;;
    77) result=skip ;;
    124 | 137) result=time failed=1 ;;
    *) result="rc $status" failed=1 ;;
    esac
    keep_json "$RESULTS/$step"
    last=$(grep -v '^[]{}[ ]' "$log" | grep . | tail -n 1 | cut -c 1-120)
    say "$(printf '%-10s %-6s %4d s  %s' "$step" "$result" $((SECONDS - started)) "$last")"
    # What a benchmark found, for whoever sees nothing but the end of the output.
    case $step:$result in flow:ok | preprocess:ok | loader:ok | nvdec:ok | train:*)
        grep -v '^[]{}[]' "$log" | grep . | tail -n 30 | cut -c 1-180 | sed 's/^/    /'
        ;;
    esac
    pack
done
say "in all $SECONDS s; packed: $PACKED"
pack
exit "$failed"
