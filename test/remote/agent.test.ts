/** The far end by itself, with a profiler that is played by the test; and its door. */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { Agent } from '../../src-main/remote/agent.ts';
import { listenForClients } from '../../src-main/remote/listen.ts';
import { greeting } from '../../src-main/remote/protocol.ts';
import { readSession } from '../../src-main/sessions/recovery.ts';
import { encodeFrame, frameReader } from '../../src-main/worker/frames.ts';
import { environment, measured, planOf } from '../fakes/points.ts';
import { FakeProfiler } from '../fakes/profiler.ts';

const sweep = { name: 'a sweep', axes: { level: ['baseline', 'four-bit'] } };
const first = '00000000-0000-4000-8000-000000000001';
const second = '00000000-0000-4000-8000-000000000002';
let folder: string;
let profiler: FakeProfiler;
let agent: Agent;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'fastmqa-agent-'));
  profiler = new FakeProfiler();
  agent = await Agent.open(
    { host: 'h', version: 'v', ...profiler, environment: async () => environment, readSession },
    folder,
  );
});
afterEach(() => rmSync(folder, { recursive: true }));

test('one sweep at a time; rows are told from where one asks on, and deleted only when they are acknowledged', async () => {
  const { api } = agent;
  const ask = { run: first, sweep, except: ['x'] };
  await api.start(ask);
  await api.start(ask); // the answer was lost, and it is asked again
  expect(profiler.options).toEqual([{ out: join(folder, `${first}.fmqa`), except: ['x'] }]);
  await expect(api.start({ ...ask, run: second })).rejects.toThrow('h measures another sweep now: a sweep');
  await expect(api.acknowledge({ run: first })).rejects.toThrow('still runs');
  profiler.emit({ type: 'started', total: 2, done: 0, environment });
  const rows = await Promise.all(planOf('baseline', 'four-bit').map(measured));
  for (const [i, point] of rows.entries())
    profiler.emit({ type: 'point', point, done: i + 1, total: 2, etaSeconds: 0 });
  const all = await api.follow({ run: first, from: 0, seen: -1 });
  expect(all.rows.map(({ id }) => id)).toEqual(rows.map(({ id }) => id));
  expect(all.rows[0]?.device).toMatchObject({ host: 'h', name: environment.cpu });
  expect((await api.follow({ run: first, from: 1, seen: -1 })).rows).toHaveLength(1);
  const news = api.follow({ run: first, from: 2, seen: all.changes });
  profiler.end('done');
  expect(await news).toMatchObject({ rows: [], rowsSoFar: 2 });
  await expect.poll(async () => (await api.follow({ run: first, from: 2, seen: -1 })).status).toBe('ended');
  writeFileSync(join(folder, `${first}.fmqa`), '');
  await api.acknowledge({ run: first });
  await api.acknowledge({ run: first });
  expect(existsSync(join(folder, `${first}.fmqa`))).toBe(false);
  await expect(api.follow({ run: first, from: 0, seen: -1 })).rejects.toThrow('the agent has no such sweep');
});

test('a sweep that cannot start, or breaks, says why', async () => {
  profiler.failure = new Error('the disk is full');
  await agent.api.start({ run: first, sweep, except: [] });
  await expect
    .poll(() => agent.api.follow({ run: first, from: 0, seen: -1 }))
    .toMatchObject({ status: 'ended', failure: 'the disk is full' });
});

test('whoever talks nonsense, or announces more than may be, is shown the door; others are not disturbed', async () => {
  const path = join(folder, 'agent.sock');
  const server = await listenForClients(path, agent.api);
  const talk = (bytes: Buffer): Promise<string> =>
    new Promise((resolve) => {
      let said = '';
      const socket = connect(path, () => socket.write(bytes));
      socket.setEncoding('latin1').on('data', (text) => {
        said += text;
      });
      socket.on('close', () => resolve(said)).on('error', () => undefined);
    });
  const endless = Buffer.alloc(8, 0xff);
  for (const bytes of [
    endless,
    encodeFrame('hello'),
    encodeFrame({ id: 1, call: 'eval', input: {} }),
    Buffer.alloc(99),
  ])
    expect(await talk(bytes)).toBe(greeting);
  const replies: unknown[] = [];
  const socket = connect(path);
  const read = frameReader((message) => replies.push(message));
  socket.on('data', (piece) =>
    read(replies.length === 0 && piece.includes(greeting) ? piece.subarray(greeting.length) : piece),
  );
  socket.write(encodeFrame({ id: 1, call: 'follow', input: { run: '../../etc/passwd', from: 0, seen: 0 } }));
  await expect
    .poll(() => replies)
    .toEqual([{ id: 1, ok: false, message: 'the agent cannot understand follow: another version?' }]);
  socket.destroy();
  server.close();
});
