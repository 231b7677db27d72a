/** Two set-ups of one folder take turns; one that was killed holds nobody up. */
import { existsSync } from 'node:fs';
import { mkdtemp, rm, utimes, writeFile } from 'node:fs/promises';
import os from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';

const { inTurn } = (await import(resolve(import.meta.dirname, '../../src-main/setup/turn.mjs'))) as {
  inTurn<T>(file: string, work: () => Promise<T>, onWait: () => void): Promise<T>;
};

async function folder(): Promise<string> {
  const path = await mkdtemp(join(os.tmpdir(), 'fastmqa-turn-'));
  onTestFinished(() => rm(path, { recursive: true }));
  return path;
}

test('the second waits, says so once, and nothing is left', async () => {
  const file = join(await folder(), 'dist/at-work');
  const told: string[] = [];
  const work = (name: string) => async (): Promise<void> => {
    told.push(`${name} begins`);
    await sleep(400);
    told.push(`${name} ends`);
  };
  await Promise.all([
    inTurn(file, work('first'), () => told.push('first waits')),
    inTurn(file, work('second'), () => told.push('second waits')),
  ]);
  expect(told).toEqual(['first begins', 'second waits', 'first ends', 'second begins', 'second ends']);
  expect(existsSync(file)).toBe(false);
});

test('work that fails gives the turn back', async () => {
  const file = join(await folder(), 'at-work');
  await expect(inTurn(file, () => Promise.reject(new Error('no disk')), expect.fail)).rejects.toThrow('no disk');
  expect(existsSync(file)).toBe(false);
});

test('what a killed one left behind is taken over; what is renewed is not', async () => {
  const file = join(await folder(), 'at-work');
  const aged = async (seconds: number): Promise<void> => {
    await writeFile(file, '1\n');
    await utimes(file, new Date(), new Date(Date.now() - seconds * 1000));
  };
  await aged(60);
  expect(
    await inTurn(
      file,
      async () => 'mine',
      () => undefined,
    ),
  ).toBe('mine');
  await aged(1);
  let waits = false;
  const second = inTurn(
    file,
    async () => 'mine',
    () => {
      waits = true;
    },
  );
  await sleep(600);
  expect([waits, existsSync(file)]).toEqual([true, true]);
  await rm(file);
  expect(await second).toBe('mine');
});
