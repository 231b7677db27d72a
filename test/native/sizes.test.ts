/** S7: sizes that wrap around, are negative or no numbers at all are refused at the door of the addon, before they size a buffer. */
import { afterAll, expect, test } from 'vitest';
import { resolvePoint } from '../../src-main/engine/plan.ts';
import type { AttendRequest, Tensor } from '../../src-main/worker/addon-types.ts';
import { workerScript } from '../../src-main/worker/location.ts';
import { forkWorker } from '../../src-main/worker/spawn.ts';
import { Supervisor } from '../../src-main/worker/supervisor.ts';
import { reached } from '../reliability/effort.ts';

const backend = new Supervisor({ spawn: forkWorker(workerScript) });
afterAll(() => backend.close());

const wrap = 2 ** 32;
const badShapes: readonly (readonly number[])[] = [
  [wrap, wrap, 1, 1], // 2^64 elements: 0 in 64 bits, as many as are given
  [wrap, wrap, wrap, wrap],
  [1, 1, -1, -4],
  [2 ** 62, 1, 1, 2],
  [1, 1, 1, Number.NaN],
  [1, 1, 1, Number.MAX_VALUE],
  [Number.POSITIVE_INFINITY, 1, 1, 1],
  [1, 1, 1, 5],
];
const tensor = (shape: readonly number[], data: Float32Array): Tensor => ({ shape, data });
const good = tensor([1, 1, 1, 4], new Float32Array(4));

test('S7: shapes of tensors', async (context) => {
  const request: AttendRequest = { q: good, k: good, v: good, causal: true, cacheDtype: 'f32', kernel: 'flash' };
  let refused = 0;
  for (const shape of badShapes) {
    for (const data of [new Float32Array(0), new Float32Array(4)]) {
      for (const name of ['q', 'k', 'v', 'mask', 'cos', 'pastK']) {
        if (shape.some(Number.isNaN) && data.length === 0) continue; // NaN counts as 0: as many as are given
        const call = backend.attend({ ...request, [name]: tensor(shape, data) }, 120);
        await expect(call, `${name} ${shape} of ${data.length}`).rejects.toMatchObject({
          kind: 'refused',
          poisoned: false,
        });
        refused += 1;
      }
    }
  }
  await expect(backend.attend(request, 120)).resolves.toBeDefined();
  reached(
    context,
    `S7  sizes that wrap around, are negative or no numbers: ${refused} shapes refused at the door of the addon`,
  );
});

test('S7: sizes of a point', async () => {
  const { config } = resolvePoint({ level: 'baseline', hiddenDim: 64, heads: 2, seqLen: 32, calibrationTokens: 128 });
  const bad = {
    hiddenDim: 0,
    heads: wrap,
    headDim: -64,
    referenceKvHeads: 0,
    kvHeads: 0,
    batch: 2 ** 53,
    seqLen: 2 ** 62,
    window: 2 ** 62,
  };
  for (const [name, size] of Object.entries(bad)) {
    const wider = name === 'heads' ? { headDim: wrap } : {};
    await expect(backend.prepare({ ...config, ...wider, [name]: size }, 120), name).rejects.toMatchObject({
      kind: 'refused',
      poisoned: false,
    });
  }
});
