#!/bin/bash
# Everything that only a machine with an NVIDIA GPU can show, in one go: the most valuable first, each part with a limit of time.
# Run from the unpacked archive of `npm run gpu:package`; of a checkout, parts that need its programs are skipped.
#
#   test/gpu/session.sh [-o FOLDER] [-t SECONDS] [PART ...]
#     -o  where results go: PART.log of every part, sessions, bench.jsonl, summary.txt (default: gpu-session)
#     -t  time for all of it together; what has no time left is skipped and says so (default: 3600)
#   Parts, in order (default: all):
#     machine    what it is
#     kernels    every kernel against fp64, portable and Hopper's; layers: whole points against fp64 and the CPU
#     models     sweep quick; step: kernels of a decode step of a whole model, and how long they take
#     sanitizer  compute-sanitizer's four tools on small cases
#     bench      steps in a graph, latents, then every kernel; peers: PyTorch's backends at the same shapes
#     plan       levels until the device is full, beside the plan
#     endure     1,000 turns of what fits and what does not, faults, endless kernels; worker: the same through the program's own
#     gallery    the sessions that the program offers as examples
#
# summary.txt has a line a part: ok, FAILED, TIMED OUT or skipped, seconds, and what it found. The exit code is 1 if any failed.
set -u
here=$(cd "$(dirname "$0")/../.." && pwd)
out=gpu-session total=3600
while getopts o:t: option; do
  case $option in
    o) out=$OPTARG ;;
    t) total=$OPTARG ;;
    *) exit 2 ;;
  esac
done
shift $((OPTIND - 1))
all=' machine kernels layers models step sanitizer bench peers plan endure worker gallery '
wanted=" ${*:-$all} "
for name in $wanted; do
  [[ $all == *" $name "* ]] || { echo "expected parts among$all""but received $name" >&2 && exit 2; }
done
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 2
cd "$here" || exit 2
export FASTMQA_HOME=$out/home
node=$here/node
[ -x "$node" ] || node=$(command -v node)
fastmqa=("$node" dist/src-main/hosts/cli/main.js)
: >"$out/summary.txt"
failed=0

say() { printf '%-10s %-9s %5s  %s\n' "$@" | tee -a "$out/summary.txt"; }

# limited SECONDS COMMAND...: ends it and what it started when the time is over; `timeout` knows no functions.
limited() {
  local seconds=$1 child watch status
  shift
  set -m # a process group each
  "$@" &
  child=$!
  (sleep "$seconds" && kill -TERM -- -$child) 2>/dev/null &
  watch=$!
  set +m
  wait $child
  status=$?
  kill -- -$watch 2>/dev/null
  for _ in {1..8}; do kill -0 -- -$child 2>/dev/null && sleep 0.5; done # a sweep saves its session first
  kill -KILL -- -$child 2>/dev/null
  return $status
}

# part NAME LIMIT REASON COMMAND...: skipped where a reason is given. The last line of the log is what it found.
part() {
  local name=$1 limit=$2 reason=$3 status start=$SECONDS
  shift 3
  [[ $wanted == *" $name "* ]] || return 0
  [ $((total - SECONDS)) -ge 1 ] || reason="no time left of $total s"
  if [ -n "$reason" ]; then
    say "$name" skipped 0 "${reason%%$'\n'*}"
    return
  fi
  [ $((total - SECONDS)) -ge "$limit" ] || limit=$((total - SECONDS))
  limited "$limit" "$@" >"$out/$name.log" 2>&1
  status=$?
  case $status in
    0) say "$name" ok $((SECONDS - start)) "$(tail -n 1 "$out/$name.log")" ;;
    143 | 137) failed=1 && say "$name" 'TIMED OUT' $((SECONDS - start)) "after $limit s: $(tail -n 1 "$out/$name.log")" ;;
    *) failed=1 && say "$name" FAILED $((SECONDS - start)) "exit code $status: $(grep -m 1 '^FAIL' "$out/$name.log" || tail -n 1 "$out/$name.log")" ;;
  esac
}

# Why a part cannot run; nothing where it can.
without() {
  case $1 in
    gpu) "${fastmqa[@]}" devices --format json 2>/dev/null | grep -q '"cuda:0"' || echo "no CUDA device: see machine.log" ;;
    torch) python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null || echo 'no PyTorch with CUDA for python3' ;;
    compute-sanitizer) command -v compute-sanitizer >/dev/null || ls /usr/local/cuda/bin/compute-sanitizer >/dev/null 2>&1 || echo 'no compute-sanitizer' ;;
    *) [ -x "programs/$1" ] || echo "no programs/$1: unpack the archive of npm run gpu:package" ;;
  esac
}

machine() {
  nvidia-smi || echo 'nvidia-smi: none'
  "${fastmqa[@]}" devices
}

# A step of a whole model: how many kernels its graph has, and how long one takes.
step() {
  "${fastmqa[@]}" sweep custom --backend cuda:0 --set model=byte-mha --set cacheDtype=f16,int8 --set phase=decode --set seqLen=512 \
    --set batch=1,8 --format json --out "$out/step.fmqa" >"$out/step.json" || return
  "$node" -e '
    const { points } = JSON.parse(require("fs").readFileSync(process.argv[1], "utf8"));
    const lines = points.map(({ config, throughput, reason }) => {
      if (!throughput) return `${config.keyDtype}: ${reason}`;
      const { medianSeconds, graphNodes } = throughput;
      const recorded = graphNodes ? `${graphNodes} kernels, ${((medianSeconds * 1e6) / graphNodes).toFixed(1)} us each` : "NOT RECORDED";
      return `${config.keyDtype} B${config.batch} ${(medianSeconds * 1e6).toFixed(0)} us, ${recorded}`;
    });
    console.log(lines.join("; "));' "$out/step.json"
}

# All tools at once: they wait for each other on the device, but not for their own work on the host.
sanitizer() {
  local tool running=() found=0
  PATH=$PATH:/usr/local/cuda/bin
  for tool in memcheck racecheck initcheck synccheck; do
    compute-sanitizer --tool $tool --error-exitcode 9 programs/fastmqa-test-gpu small >"$out/$tool.log" 2>&1 &
    running+=($!)
  done
  compute-sanitizer --report-api-errors no --error-exitcode 9 programs/fastmqa-test-accelerator --gpu four-bit >"$out/memcheck-layers.log" 2>&1 & # refusals are asked for
  running+=($!)
  for tool in "${running[@]}"; do wait "$tool" || found=1; done
  for tool in memcheck racecheck initcheck synccheck memcheck-layers; do echo "$tool: $(grep SUMMARY "$out/$tool.log" || echo 'no summary')"; done
  return $found
}

bench() {
  programs/fastmqa-bench-gpu --only 'in a graph' && programs/fastmqa-bench-gpu --only latent && programs/fastmqa-bench-gpu >"$out/bench.jsonl" && wc -l <"$out/bench.jsonl"
}

plan() {
  "${fastmqa[@]}" plan --model Llama-3.1-8B --context 8192 --prove device --backend cuda:0
}

gallery() {
  local limits=(--backend cuda:0 --min-time 0.1 --max-time 0.6 --max-samples 250) layer='"hiddenDim":[2048],"heads":[32],"headDim":[64],"referenceKvHeads":[8],"seqLen":[2048],"batch":[1,4,16,64],"phase":["prefill","decode","verify"]'
  local long='"hiddenDim":[1024],"heads":[16],"seqLen":[1024,4096,16384,65536,131072],"phase":["decode"]'
  "${fastmqa[@]}" sweep levels --backend cuda:0 --out "$out/levels.fmqa" || return
  "${fastmqa[@]}" sweep kv-dtype "${limits[@]}" --out "$out/kv-dtype.fmqa" || return
  echo "{\"name\":\"scaling\",\"axes\":{$long,\"level\":[\"baseline\",\"near-lossless\",\"four-bit\",\"balanced\"]},\"also\":[{\"axes\":{$long,\"level\":[\"custom\"],\"cacheDtype\":[\"f16\"]}}]}" |
    "${fastmqa[@]}" sweep - "${limits[@]}" --out "$out/scaling.fmqa" || return
  echo "{\"name\":\"roofline\",\"axes\":{$layer,\"level\":[\"near-lossless\",\"four-bit\"]},\"also\":[{\"axes\":{$layer,\"level\":[\"custom\"],\"cacheDtype\":[\"f16\"]}}]}" |
    "${fastmqa[@]}" sweep - "${limits[@]}" --out "$out/roofline.fmqa" || return
  "${fastmqa[@]}" sweep near-lossless --set level=baseline,near-lossless,four-bit,mixed-latent,conservative,balanced,aggressive --set model=Llama-3.1-8B \
    --set seqLen=8192 --set phase=capacity --backend cuda:0 --out "$out/capacity.fmqa" || return
  ls "$out"/*.fmqa | wc -l
}

gpu=$(without gpu)
part machine 60 '' machine
part kernels 300 "$(without fastmqa-test-gpu)" programs/fastmqa-test-gpu
part layers 300 "$(without fastmqa-test-accelerator)" programs/fastmqa-test-accelerator --gpu
part models 180 "$gpu" "${fastmqa[@]}" sweep quick --backend cuda:0 --out "$out/quick.fmqa"
part step 120 "$gpu" step
part sanitizer 900 "$(without compute-sanitizer; without fastmqa-test-gpu)" sanitizer
part bench 400 "$(without fastmqa-bench-gpu)" bench
part peers 400 "$(without torch; [ -s "$out/bench.jsonl" ] || echo 'no bench.jsonl: run bench first')" \
  python3 kernels/tools/gpu/torch-sdpa.py "$out/bench.jsonl" "$out/peers.jsonl"
part plan 300 "$gpu" plan
part endure 300 "$(without fastmqa-endure-gpu)" programs/fastmqa-endure-gpu
part worker 600 "$(without fastmqa-endure-gpu)" "$node" test/gpu/endure-worker.mjs
part gallery 600 "$gpu" gallery
echo "results: $out"
exit $failed
