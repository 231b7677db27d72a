/** R1 kill -9 of command line, web host and worker; and a long run in which the worker dies again and again. */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterAll, expect, test } from 'vitest';
import { type HubEvent, noRun, type RunState, reduceRun } from '../../src-main/contract/run-state.ts';
import type { Sweep } from '../../src-main/contract/sweep.ts';
import { expandSweep } from '../../src-main/engine/plan.ts';
import { createProfiler } from '../../src-main/hosts/compose.ts';
import { RunHub, withoutSamples } from '../../src-main/hosts/run-hub.ts';
import { readSession } from '../../src-main/sessions/recovery.ts';
import { startCli } from '../hosts/run-cli.ts';
import { Chance, counted, effort, grouped, longestTest, reached, tries } from './effort.ts';
import { childrenLeft, fakeWorker } from './sweep-of-trouble.ts';
import { killNow, startWeb, WebClient } from './web-client.ts';

const folder = mkdtempSync(join(tmpdir(), 'fastmqa-kill-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const measuring = { minSeconds: 0, minSamples: 5 };
const sweepOf = (seqLens: number, name = 'kill'): Sweep => ({
  name,
  axes: {
    level: ['baseline', 'near-lossless', 'four-bit'],
    hiddenDim: [64],
    heads: [2],
    seqLen: Array.from({ length: seqLens }, (_, i) => 16 + i),
  },
  measuring,
});

/** Every acknowledged point is in the session, and none is there twice. */
async function expectKept(file: string, acknowledged: Iterable<string>, atLeast = 0): Promise<number> {
  const { records, points } = await readSession(file);
  const ids = records.flatMap((record) => (record.kind === 'point' ? [record.point.id] : []));
  expect(new Set(ids).size, 'points recorded twice').toBe(ids.length);
  for (const id of acknowledged) expect(points.has(id), `point ${id} is lost`).toBe(true);
  expect(points.size).toBeGreaterThanOrEqual(atLeast);
  return points.size;
}

test('R1: kill -9 of the command line, again and again, loses no point it told of', {
  timeout: longestTest,
}, async (context) => {
  const chance = new Chance(11);
  const sweep = sweepOf(20);
  const total = expandSweep(sweep).length;
  const source = join(folder, 'kill.json');
  writeFileSync(source, JSON.stringify(sweep));
  let [kills, sessions, told] = [0, 0, 0];
  let out = '';
  for (const _ of counted(tries(100, 1700, 6))) {
    const isNew = out === '' || (await expectKept(out, [])) === total;
    if (isNew) {
      sessions += 1;
      out = join(folder, `cli-${sessions}.fmqa`);
    }
    const args = isNew ? ['sweep', source] : ['sweep', '--resume'];
    const run = startCli([...args, '--out', out, '--verbose'], { FASTMQA_WORKER: fakeWorker });
    const before = isNew ? 0 : await expectKept(out, []);
    await run.heard(new RegExp(`^${Math.min(total, before + 1 + chance.below(12))}/${total} `, 'm'));
    await new Promise((resolve) => setTimeout(resolve, chance.below(15)));
    run.child.kill('SIGKILL');
    const { stderr } = await run.ended;
    kills += 1;
    const last = Math.max(...[...stderr.matchAll(/^(\d+)\/\d+ /gm)].map(([, count]) => Number(count)));
    await expectKept(out, [], last);
    told += last - before;
  }
  reached(
    context,
    `R1  kill -9 of the command line: ${kills} times in ${sessions} sessions, ${told} points told of, 0 lost, 0 twice`,
  );
});

test('R1: kill -9 of the web host, again and again, loses no point that a window saw', {
  timeout: longestTest,
}, async (context) => {
  const chance = new Chance(12);
  const home = join(folder, 'home');
  const environment = { FASTMQA_HOME: home, FASTMQA_WORKER: fakeWorker };
  const sweep = sweepOf(30);
  const seen = new Set<string>();
  let [kills, all, id] = [0, 0, ''];
  for (const _ of counted(tries(100, 1700, 4))) {
    const { child, link } = await startWeb(environment);
    try {
      const client = await WebClient.enter(link);
      const enough = 1 + chance.below(15);
      let count = 0;
      // Rows may arrive before the host has said which session they are of.
      let begun: Promise<{ readonly id: string }> | undefined;
      await new Promise<void>((resolve) => {
        const hear = (events: readonly HubEvent[]): void => {
          for (const event of events) {
            if (event.type === 'point') {
              seen.add(event.point.id);
              count += 1;
            }
            if (event.type === 'ended' || count >= enough) resolve();
          }
        };
        void client.listen(hear, () => {
          begun = id ? client.call('continueSession', { id }) : client.call('startRun', { sweep });
        });
      });
      if (begun) ({ id } = await begun);
      await killNow(child);
      client.close();
    } finally {
      await killNow(child);
    }
    kills += 1;
    const files = readdirSync(join(home, 'sessions'))
      .filter((name) => name.endsWith('.fmqa'))
      .sort();
    const last = join(home, 'sessions', files[files.length - 1]);
    const size = await expectKept(last, seen, seen.size);
    if (size === expandSweep(sweep).length) {
      all += seen.size;
      seen.clear();
      id = '';
    }
  }
  reached(context, `R1  kill -9 of the web host: ${kills} times, ${all + seen.size} points seen, 0 lost, 0 twice`);
});

/** Kills whatever worker is there. @returns how many */
function killWorkers(): number {
  const alive = childrenLeft().filter((line) => line.split(' ')[1] !== 'Z');
  for (const line of alive) process.kill(Number(line.split(' ')[0]), 'SIGKILL');
  return alive.length;
}

function memoryInUse(): { heap: number; resident: number } {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  collect();
  collect();
  const { heapUsed, external, rss } = process.memoryUsage();
  return { heap: heapUsed + external, resident: rss };
}

test('R1, R5: an accelerated night: the worker dies at random, and the table ends as the session', {
  timeout: 2 * longestTest,
}, async (context) => {
  const wanted = tries(3000, 20_000, 900);
  const sweepsPlanned = 10;
  const profiler = createProfiler({ workerScript: fakeWorker });
  const hub = new RunHub({ profiler, folder: join(folder, 'night') });
  const chance = new Chance(13);
  let kills = 0;
  let isOnItsWay = false; // so that one at most meets the start of a sweep, which survives one
  let table: RunState = noRun;
  hub.subscribe((events) => {
    table = reduceRun(table, events);
    const isDue = events.some(({ type }) => type === 'point') && chance.isTrue(0.2);
    if (isDue && !isOnItsWay) {
      isOnItsWay = true;
      setTimeout(() => {
        isOnItsWay = false;
        kills += killWorkers();
      }, chance.below(30));
    }
    if (events.some((event) => event.type === 'paused')) hub.steer('continue');
  });
  let [rows, failed] = [0, 0];
  const memory: ReturnType<typeof memoryInUse>[] = [];
  try {
    for (let i = 0; i < sweepsPlanned; i += 1) {
      const sweep = sweepOf(Math.ceil(wanted / sweepsPlanned / 3), `night-${i}`);
      const { file } = await hub.start(sweep); // the last kill of the sweep before may meet the worker of this one
      await expect.poll(() => hub.snapshot().status, { timeout: longestTest, interval: 50 }).toBe('ended');
      const session = await readSession(file);
      expect(await expectKept(file, [])).toBe(expandSweep(sweep).length);
      const snapshot = hub.snapshot(); // with it comes what still waits to be told
      expect(table).toEqual(snapshot);
      expect(table.points).toEqual([...session.points.values()].map(withoutSamples));
      rows += table.points.length;
      failed += table.points.filter(({ outcome }) => outcome === 'failed').length;
      memory.push(memoryInUse());
    }
  } finally {
    await hub.close();
    await profiler.close();
  }
  expect(kills).toBeGreaterThan(wanted / 30); // 100 of the 300 kills that are promised; the others stand above
  expect(failed).toBeLessThanOrEqual(kills);
  await expect.poll(childrenLeft).toEqual([]);
  const growth = (of: 'heap' | 'resident'): number => (100 * memory[memory.length - 1][of]) / memory[2][of] - 100;
  expect(growth('heap')).toBeLessThan(10);
  if (effort === 'soak') expect(growth('resident')).toBeLessThan(10);
  const shown = (percent: number): string => `${percent < 0 ? '' : '+'}${percent.toFixed(1)} %`;
  reached(
    context,
    `R1  a night, accelerated: ${grouped(rows)} points, worker killed ${kills} times (${failed} rows failed), table = session, ` +
      `memory ${shown(growth('heap'))} in use, ${shown(growth('resident'))} resident, 0 zombies`,
  );
});
