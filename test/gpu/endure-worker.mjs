/**
 * What the app's own worker survives on a GPU. It runs beside the compiled program, as the archive of `npm run gpu:package` has it:
 *   ./node test/gpu/endure-worker.mjs [TURNS]
 * One line a check, "ok …" or "FAIL …"; the exit code is 1 if any failed.
 *   memory   a point that does not fit and one that does, in turns (1000): each row as it should be, free memory back within 64 MiB.
 *            Another program takes the rest of the device, so that points of a usual size are too large.
 *   fault    a kernel that writes to an illegal address costs its own row, and the process that it was in (programs/faulty)
 *   endless  a kernel that never ends is killed at the deadline; the next point is measured
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';

const root = join(import.meta.dirname, '../..');
const load = (path) => import(join(root, 'dist/src-main', path));
const { resolvePoint } = await load('engine/plan.js');
const { Supervisor } = await load('worker/supervisor.js');
const { forkWorker } = await load('worker/spawn.js');
const { workerScript } = await load('worker/location.js');

const turns = Number(process.argv[2] ?? 1000);
const mostDrift = 64 * 2 ** 20;
const deadline = 60;
let failed = 0;

function report(isGood, what) {
  process.stdout.write(`${isGood ? 'ok' : 'FAIL'} ${what}\n`);
  if (!isGood) failed += 1;
}

const point = (axes) =>
  resolvePoint({ level: 'custom', cacheDtype: 'f32', backend: 'cuda:0', phase: 'decode', ...axes }).config;
const mebibytes = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

/** Takes the device but for so many bytes, until it is ended. */
async function occupy(left) {
  const taker = spawn(join(root, 'programs/fastmqa-endure-gpu'), ['--occupy', String(left)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const [first] = await once(taker.stdout, 'data');
  process.stdout.write(`# ${String(first).trim()}\n`);
  return taker;
}

async function memory() {
  const supervisor = new Supervisor({ spawn: forkWorker(workerScript) });
  const free = async () => (await supervisor.cuda()).devices[0].freeBytes;
  // Of one workload, so that nothing but the cache differs: 512 MiB and 32 MiB of it.
  const shape = { hiddenDim: 64, heads: 16, headDim: 512, batch: 4, seqLen: 2048 };
  const [large, small] = [point(shape), point({ ...shape, kvHeads: 'MQA' })];
  const fits = async () => {
    const prepared = await supervisor.prepare(small, deadline);
    await supervisor.release(prepared);
    return prepared.generation;
  };
  const generation = await fits();
  const taker = await occupy(384 * 2 ** 20);
  const before = await free();
  const begin = performance.now();
  const outcomes = {};
  const count = (what) => {
    outcomes[what] = (outcomes[what] ?? 0) + 1;
  };
  for (let turn = 0; turn < turns; turn += 1) {
    await supervisor.prepare(large, deadline).then(
      (prepared) => supervisor.release(prepared).then(() => count('fitted though it should not')),
      (error) => count(error.kind),
    );
    await fits().then(
      (now) => count(now === generation ? 'fitted' : 'fitted in another process'),
      (error) => count(`${error.kind}: ${error.message}`),
    );
  }
  const drift = before - (await free());
  const seconds = (performance.now() - begin) / 1000;
  const isGood = outcomes['out-of-memory'] === turns && outcomes.fitted === turns && drift <= mostDrift;
  report(
    isGood,
    `memory: ${JSON.stringify(outcomes)}, ${mebibytes(drift)} less free than before, ${seconds.toFixed(1)} s`,
  );
  taker.kill();
  await once(taker, 'exit');
  await supervisor.close();
}

/** A sweep of the command line's own, three batches, the middle one planted. */
async function planted(name, batch, reason) {
  const args = ['sweep', 'custom', '--backend', 'cuda:0', '--format', 'json', '--timeout', '4', '--min-time', '0.02'];
  const axes = ['cacheDtype=f16', `batch=2,${batch},3`, 'seqLen=256', 'hiddenDim=256', 'heads=4', 'phase=decode'];
  const program = spawn(
    process.execPath,
    [join(root, 'dist/src-main/hosts/cli/main.js'), ...args, ...axes.flatMap((axis) => ['--set', axis])],
    {
      env: { ...process.env, FASTMQA_CUDA_LIBRARY: join(root, 'programs/faulty/libfastmqa-cuda.so') },
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  const begin = performance.now();
  let output = '';
  program.stdout.on('data', (text) => {
    output += text;
  });
  const [code] = await once(program, 'close');
  const rows = output === '' ? [] : JSON.parse(output).points;
  const told = rows.map(
    ({ config, outcome, reason: why }) => `batch ${config.batch} ${outcome}${why ? `: ${why}` : ''}`,
  );
  const outcomes = rows.map(({ outcome }) => outcome).join();
  const isGood = code === 1 && outcomes === 'measured,failed,measured' && reason.test(rows[1]?.reason ?? '');
  report(isGood, `${name}: ${told.join('; ')} (${((performance.now() - begin) / 1000).toFixed(1)} s)`);
}

await memory();
await planted('fault', 13, /illegal memory access.*poisoned/);
await planted('endless', 17, /no result within [\d.]+ s; the worker did not stop and was killed/);
process.exitCode = failed > 0 ? 1 : 0;
