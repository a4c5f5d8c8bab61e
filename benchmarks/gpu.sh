#!/usr/bin/env bash
# Everything that only a GPU can prove, in one call: tests, sanitizer, benchmarks and a training run.
#
#     benchmarks/gpu.sh [STEP...]        all steps without arguments; their names are below
#
# For any Linux machine with an NVIDIA GPU, online or not: it needs a Python with AttenGait's dependencies (PYTHON, by
# default .venv/bin/python, else python3) and no installation of AttenGait itself. Logs, and the JSON that a step ends
# in, go to OUT (default benchmarks/results/GPU-NAME). compute-sanitizer is part of the CUDA toolkit; it is skipped
# where it is missing. ATTENGAIT_SHARED names the folder of large references, if there is one.
set -uo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONDONTWRITEBYTECODE=1 ATTENGAIT_REQUIRE_GPU=1
GPU=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1 | tr -cs '[:alnum:]\n' '-' | sed 's/-*$//')
OUT=${OUT:-benchmarks/results/${GPU:-no-gpu}}
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
mkdir -p "$OUT"

STEPS=(doctor tests memcheck racecheck flow agreement walkers preprocess store loader train evaluate)
LIMIT_SECONDS=${LIMIT_SECONDS:-240}
attengait() { "$PYTHON" -m attengait "$@"; }
sanitizer() {
    if ! command -v compute-sanitizer >/dev/null; then echo "skipped: no compute-sanitizer"; return; fi
    compute-sanitizer --tool "$1" --error-exitcode 1 "$PYTHON" tests/support/run_kernels_sanitised.py gpu
}
run_step() {
    case $1 in
    doctor) attengait doctor --json ;;
    tests) "$PYTHON" -m pytest -q -m gpu -p no:cacheprovider ;;
    memcheck | racecheck) sanitizer "$1" ;;
    flow) attengait benchmark flow ;;
    agreement) attengait benchmark agreement --out "$OUT/agreement.md" ;;
    walkers) attengait synth "$WORK/walkers" --subjects 24 --walks nm-01,nm-02 --views 54,90 --frames 40 --seed 5 ;;
    preprocess) attengait benchmark preprocess --frames "$WORK/walkers/rgb" --silhouettes "$WORK/walkers/silh" ;;
    store) attengait preprocess casia-b --frames "$WORK/walkers/rgb" --silhouettes "$WORK/walkers/silh" \
        --out "$WORK/walkers.zarr" --flow cuda ;;
    loader) attengait benchmark loader "$WORK/walkers.zarr" ;;
    train) attengait train "$WORK/walkers.zarr" --out "$WORK/run" --preset demo --set device=cuda \
        --set precision=bf16 --set train_subjects=1-16 ;;
    evaluate) attengait evaluate "$WORK/run" "$WORK/walkers.zarr" --protocol casia-b --subjects 17-24 --device cuda ;;
    *) echo "unknown step $1; the steps are: ${STEPS[*]}"; return 2 ;;
    esac
}

# A log that is JSON, or ends in a line of it, is kept as such.
keep_json() {
    "$PYTHON" - "$1" <<'END'
import json, pathlib, sys
log = pathlib.Path(sys.argv[1] + ".log").read_text(errors="replace")
for text in (log, log.rstrip().rpartition("\n")[2]):
    try:
        found = json.loads(text)
    except ValueError:
        continue
    pathlib.Path(sys.argv[1] + ".json").write_text(json.dumps(found, indent=1) + "\n")
    break
END
}

[ $# -gt 0 ] && STEPS=("$@")
table=()
failed=0
for step in "${STEPS[@]}"; do
    printf '%s ...\n' "$step"
    started=$SECONDS
    # A background job of its own, so that a step that hangs is stopped and the next one begins.
    (run_step "$step") >"$OUT/$step.log" 2>&1 &
    job=$!
    (sleep "$LIMIT_SECONDS" && pkill -TERM -P "$job") 2>/dev/null &
    watch=$!
    wait "$job"
    status=$?
    pkill -P "$watch" 2>/dev/null
    kill "$watch" 2>/dev/null
    keep_json "$OUT/$step"
    [ "$status" = 0 ] || failed=1
    table+=("$(printf '%-11s %-6s %4d s  %s' "$step" "$([ "$status" = 0 ] && echo ok || echo "rc $status")" \
        $((SECONDS - started)) "$(grep -v '^[{} ]' "$OUT/$step.log" | tail -n 1 | cut -c 1-120)")")
done
printf '\n%s\n' "${GPU:-no GPU}"
printf '%s\n' "${table[@]}"
exit "$failed"
