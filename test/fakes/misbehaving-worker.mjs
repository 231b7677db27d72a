/**
 * A worker that answers like the real one until a point's level names a misbehaviour, `crash` for example. It needs no addon,
 * so the supervisor, the command line and the session can be tested without one, and figures are the same in every run.
 */
import { lstatSync, readFileSync, symlinkSync, writeSync } from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';
import { encodeFrame, frameReader, pipeDescriptor } from '../../dist/src-main/worker/frames.js';
import { figures } from './scripted-figures.mjs';

const supervisor = new Socket({ fd: pipeDescriptor, readable: true, writable: true });
const send = (message) => supervisor.write(encodeFrame(message));

let cancelled = false;

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const refuse = (code, message) => {
  throw Object.assign(new Error(message), { code });
};

async function untilCancelled() {
  while (!cancelled) await sleep(5);
  refuse('cancelled', 'cancelled');
}

const misbehaviours = {
  crash: () => process.kill(process.pid, 'SIGSEGV'),
  abort: () => process.abort(),
  throw: () => {
    setImmediate(() => refuse('none', 'thrown where nobody catches'));
    return sleep(60_000);
  },
  /** As if the machine had gone. */
  'kills its host': () => process.kill(process.ppid, 'SIGKILL'),
  hang: () => new Promise(() => undefined),
  'ignores SIGTERM': () => {
    process.on('SIGTERM', () => undefined);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0); // as busy as an endless loop, at no cost to others
  },
  'silent exit': () => process.exit(0),
  'half message': () => {
    const frame = Buffer.alloc(20);
    frame.writeUInt32LE(4000); // announces 4000 bytes, sends 16
    writeSync(pipeDescriptor, frame);
    process.exit(0);
  },
  'endless message': () => {
    supervisor.write(Buffer.alloc(100_000, 0xff)); // announces 4 GiB, never sends them
    return new Promise(() => undefined);
  },
  'nonsense of the right length': () => {
    const frame = Buffer.alloc(20, 0xee);
    frame.writeUInt32LE(16);
    supervisor.write(frame);
    return sleep(60_000);
  },
  'malformed message': (request) => {
    send({ id: request.id, ok: 'perhaps' });
    return sleep(60_000);
  },
  'NaN samples': () => Float64Array.of(0.001, Number.NaN),
  'NaN error': (_, honest) => ({ ...honest, error: { ...honest.error, relativeL2: Number.NaN } }),
  'wrong id': (request) => {
    send({ id: request.id + 1000, generation: request.generation, ok: true, value: undefined });
    return sleep(60_000);
  },
  'wrong generation': (request) => {
    send({ id: request.id, generation: request.generation - 1, ok: true, value: undefined });
    return sleep(60_000);
  },
  'huge delay': () => untilCancelled(),
  disconnect: () => {
    supervisor.removeAllListeners('close');
    supervisor.destroy();
    setInterval(() => undefined, 1000);
    return new Promise(() => undefined);
  },
  'unknown error code': () => refuse('cuda-700', 'an illegal memory access was encountered'),
  poisoned: () => refuse('poisoned', 'an illegal memory access was encountered'),
  'out of memory': () => refuse('out-of-memory', '80 GiB were asked for'),
  refused: () => refuse('refused', 'this combination is not built'),
  failed: () => refuse('failed', 'the eigenvalues did not converge'),
  'double answer': (request, honest) => {
    send({ id: request.id, generation: request.generation, ok: true, value: honest });
    return honest;
  },
  'exit while idle': (_, honest) => {
    setTimeout(() => process.exit(7), 30);
    return honest;
  },
};
/** These show while a prepared point is sampled; the others while it is prepared. */
const whileSampling = ['NaN samples', 'exit while idle'];

/** The behaviour of a point rides on its level, where a test may write anything; FASTMQA_FAKE sets one for all. */
const behaviourOf = (config) => process.env.FASTMQA_FAKE ?? config?.level ?? '';
const sampling = new Map();

/**
 * With FASTMQA_FAKE_GATHERS: points wait for each other, so many at a time. Arrivals are numbered links in the folder
 * FASTMQA_FAKE_GATHERING, each to the process that made it.
 */
async function gather() {
  const together = Number(process.env.FASTMQA_FAKE_GATHERS ?? 0);
  if (together === 0) return;
  const arrival = (number) => join(process.env.FASTMQA_FAKE_GATHERING, String(number));
  const isTaken = (number) => lstatSync(arrival(number), { throwIfNoEntry: false }) !== undefined;
  let mine = 1;
  for (; ; mine += 1) {
    try {
      symlinkSync(String(process.pid), arrival(mine)); // fails where another has it
      break;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
    }
  }
  while (!isTaken(Math.ceil(mine / together) * together)) await sleep(10);
}

/** With FASTMQA_FAKE_LEASH: no point is measured whose `seqLen` is above the number in that file. It may grow. */
async function untilAllowed({ seqLen }) {
  const leash = process.env.FASTMQA_FAKE_LEASH;
  while (leash !== undefined && seqLen > Number(readFileSync(leash, 'utf8'))) await sleep(10);
}

const calls = {
  info: () => ({ threads: 2, instructionSet: 'scripted', buildFlags: 'none' }),
  ceilings: () => ({ fmaFlopsPerSecond: 1e11, readBytesPerSecond: 1e10 }),
  cuda: () => ({ reason: 'no CUDA in a script', devices: [] }),
  prepare: (config) => {
    const answer = figures(config);
    sampling.set(answer.handle, behaviourOf(config));
    return answer;
  },
  prepareModel: (config) => {
    const { controls: _, ...answer } = calls.prepare(config);
    const quality = {
      logitKl: 0.01,
      logitKlP95: 0.05,
      top1Agreement: 0.9,
      acceptance: 0.95,
      perplexity: 2.2,
      exactPerplexity: 2,
    };
    return { ...answer, quality: { ...quality, layerErrors: [0.01], positions: 100 } };
  },
  sample: async (handle, seconds, maxSamples) => {
    if (!sampling.has(handle)) refuse('failed', `no point has handle ${handle}`);
    await sleep(Number(process.env.FASTMQA_FAKE_SECONDS ?? Math.min(seconds, 0.02)) * 1000);
    return Float64Array.from({ length: Math.min(maxSamples, 10) }, (_, i) => 0.001 + i * 1e-9);
  },
  release: (handle) => void sampling.delete(handle),
};

async function answer(request) {
  const { call, args } = request;
  const behaviour = call === 'sample' ? sampling.get(args[0]) : behaviourOf(args[0]);
  if (call === 'prepare') await untilAllowed(args[0]);
  if (call === 'prepare') await gather();
  const honest = await calls[call](...args);
  const isDue = call === (whileSampling.includes(behaviour) ? 'sample' : 'prepare');
  return isDue && Object.hasOwn(misbehaviours, behaviour) ? misbehaviours[behaviour](request, honest) : honest;
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => undefined);
supervisor.on('error', () => undefined).on('close', () => process.kill(process.pid, 'SIGKILL'));
const hear = frameReader(async (request) => {
  if (request.call === 'cancel') {
    cancelled = true;
    return;
  }
  cancelled = false; // what comes from now on concerns this call
  const { id, generation } = request;
  try {
    send({ id, generation, ok: true, value: await answer(request) });
  } catch (error) {
    send({ id, generation, ok: false, code: String(error.code), message: error.message });
  }
});
supervisor.on('data', hear);
