/**
 * `recommend` against the named levels on 20 random budgets, real engine, points measured once for all of them:
 * `node test/run-program.mjs test/bench/recommend.bench.ts`, after `npm run build`. FASTMQA_CONTEXT and FASTMQA_MODEL
 * choose others than 512 tokens of byte-mha.
 */
import { formatBytes } from '../../src-main/contract/format.ts';
import { withModels } from '../../src-main/hosts/model-backend.ts';
import { workerScript } from '../../src-main/worker/location.ts';
import { forkWorker } from '../../src-main/worker/spawn.ts';
import { Supervisor } from '../../src-main/worker/supervisor.ts';
import { judge, measureOnce, randomBudgets } from '../hosts/random-budgets.ts';

const base = {
  model: process.env.FASTMQA_MODEL ?? 'byte-mha',
  seqLen: Number(process.env.FASTMQA_CONTEXT ?? 512),
  phase: 'decode',
};
const supervisor = new Supervisor({ spawn: forkWorker(workerScript) });
const measure = measureOnce(withModels(supervisor));
const start = performance.now();
const ratios: number[] = [];
let lost = 0;
for (const budgets of randomBudgets(20, 7)) {
  const { chosen, named } = await judge(base, budgets, measure);
  const bytes = (point: typeof chosen): number => point?.memory?.kvAllocatedBytes ?? Number.NaN;
  const shown = (point: typeof chosen): string =>
    point ? `${point.config.level} ${formatBytes(bytes(point))}` : 'nothing';
  const asked = budgets.map(({ metric, bound }) => `${metric} ${bound.toPrecision(2)}`).join(', ');
  console.log(`${asked} | best named level: ${shown(named)} | recommended: ${shown(chosen)}`);
  if (!named) continue;
  ratios.push(bytes(named) / bytes(chosen));
  if (!(bytes(chosen) <= bytes(named))) lost += 1;
}
ratios.sort((a, b) => a - b);
const beaten = ratios.filter((ratio) => ratio > 1).length;
console.log(
  `${ratios.length} of 20 budgets are kept by a named level: recommended is smaller on ${beaten}, larger on ${lost}; ` +
    `smaller by a factor of ${ratios[Math.floor(ratios.length / 2)]?.toFixed(2)} in the median, ${ratios.at(-1)?.toFixed(2)} at best; ` +
    `${((performance.now() - start) / 1000).toFixed(0)} s`,
);
await supervisor.close();
